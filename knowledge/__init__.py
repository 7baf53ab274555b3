"""Documents taken apart: what is text in them, and the chunks that a search can find."""
