"""A tool that notes that it was called, and never answers."""

import os
import time
from pathlib import Path


def launch(name: str) -> None:
    """Launch something."""
    with Path(os.environ["TMPDIR"], "launched").open("a") as file:
        file.write(f"{name}\n")
    time.sleep(3600)


TOOLS = [launch]
