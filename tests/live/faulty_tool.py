"""A tool that fails without a word to the model, and quotes what it was given where it should not."""


def faulty(text: str) -> str:
    """Fail."""
    raise ValueError(f"cannot do anything with {text}")


TOOLS = [faulty]
