"""The service as it is; on SIGUSR2 it writes how many asyncio tasks it has into the file that ``TASKS_FILE`` names."""

import asyncio
import os
import signal
from pathlib import Path

import server


def main() -> None:
    file = Path(os.environ["TASKS_FILE"])
    signal.signal(signal.SIGUSR2, lambda *_: file.write_text(str(len(asyncio.all_tasks()))))
    server.main()


if __name__ == "__main__":
    main()
