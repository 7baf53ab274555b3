"""What may be shown of strings that others have written."""


def printable(text: str) -> str:
    """The text on one line, and nothing in it that a terminal obeys: no escape sequences, no turned directions."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
