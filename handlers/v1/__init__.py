"""The OpenAI API, as its own clients speak it."""
