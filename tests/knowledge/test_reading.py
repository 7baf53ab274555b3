"""Documents are taken apart beside the service, within limits."""

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chat.documents import Chunk
from chat.errors import ChatError
from knowledge import reading
from knowledge.chunks import MAX_CHUNKS, chunks_of, parser_of
from knowledge.reading import INHERITED, LINES, Reader, _answer
from knowledge.worker import CPU_SECONDS, MEMORY, OPEN_FILES
from tests.knowledge.pdfs import bomb, objects_of, pdf, text, written
from tests.patience import soon

SLOW = b"<a " * 330_000
"""A parser goes through all of it again for each of these."""

ROOT = Path(__file__).parents[2]


async def test_document_is_taken_apart_in_another_process() -> None:
    text = ("# Zürich 🌍\n\n" + "A sentence. " * 500).encode()
    assert await soon(Reader().chunks(text, "text/markdown")) == chunks_of(text, parser_of("text/markdown"))


async def test_pdf_is_taken_apart_in_another_process() -> None:
    pages = pdf(text("Tea is free."), text("So is milk."))
    chunks = [Chunk("page 1", "Tea is free."), Chunk("page 2", "So is milk.")]
    assert await soon(Reader().chunks(pages, "application/pdf")) == chunks


def test_service_itself_does_not_import_what_reads_pdfs() -> None:
    imports = "import server, sys; sys.exit('pypdf' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", imports], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(
    ("data", "media_type", "refused"),
    [
        (b"<![nothing that is known[", "text/html", "document_unreadable: .* as HTML"),
        (b"\x89PNG\r\n\x1a\n\0", "text/plain", r"document_unreadable: .* an image \(PNG\)"),
        (b"PK\x03\x04\0\0", "application/pdf", "document_unreadable: .* a ZIP archive"),
        (pdf(text("Tea."), trailer=b"/Encrypt << >>"), "application/pdf", "document_encrypted: .* password"),
        (pdf(b""), "application/pdf", "document_empty: .* images"),
        (b"# a\nb\n" * (MAX_CHUNKS + 1), "text/markdown", "document_too_large: .* 20,000 passages"),
        (b"x" * 50_000_000, "text/plain", "document_too_large: .* 20,000 passages"),
        (b"tea\0", "text/html", "document_unreadable: There is a NUL"),
    ],
)
async def test_what_cannot_be_read_is_refused_with_its_reason(data: bytes, media_type: str, refused: str) -> None:
    with pytest.raises(ChatError, match=refused):
        await soon(Reader().chunks(data, media_type))


async def test_document_that_keeps_a_parser_busy_is_given_up_and_its_process_ended() -> None:
    reader = Reader(seconds=0.5)
    with pytest.raises(ChatError, match=r"document_unreadable: .* too long"):
        await soon(reader.chunks(SLOW, "text/html"))
    assert _workers() == []
    assert await soon(Reader().chunks(b"tea", "text/plain")) == [Chunk("paragraph 1", "tea")]


async def test_process_that_dies_is_no_crash(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ChatError, match="document_unreadable"):
        await soon(Reader().chunks(b"tea", "text/unknown"))
    assert [record.message for record in caplog.records] == ["a document could not be taken apart: status 1"]


# --- its process


def _workers() -> list[int]:
    """The processes that this one has for documents."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"knowledge.worker" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


async def _limited_worker() -> int:
    """Of the process that has begun with its document."""
    while True:
        for pid in _workers():
            if f"Max open files            {OPEN_FILES} " in Path(f"/proc/{pid}/limits").read_text():
                return pid
        await asyncio.sleep(0.01)


async def test_its_process_has_no_key_and_little_of_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:secret@localhost/db")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    reading = asyncio.create_task(Reader().chunks(SLOW, "text/html"))
    pid = await soon(_limited_worker())
    environment = Path(f"/proc/{pid}/environ").read_bytes().rstrip(b"\0").decode().split("\0")
    rows = Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    limits = {row[:26].strip(): tuple(row[26:].split()[:2]) for row in rows}
    assert os.getsid(pid) == pid
    assert str(Path(f"/proc/{pid}/fd/2").readlink()) == os.devnull
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert "PYTHONPATH" in {entry.partition("=")[0] for entry in environment} <= {*INHERITED, "LC_CTYPE"}
    assert limits["Max address space"] == (str(MEMORY), str(MEMORY))
    assert limits["Max cpu time"] == (str(CPU_SECONDS), str(CPU_SECONDS + 1))
    assert limits["Max file size"] == limits["Max processes"] == limits["Max core file size"] == ("0", "0")


async def test_process_whose_time_is_up_says_so() -> None:
    """The kernel's signal at the limit, which the test is not going to wait for."""
    reading = asyncio.create_task(Reader().chunks(SLOW, "text/html"))
    os.kill(await soon(_limited_worker()), signal.SIGXCPU)
    with pytest.raises(ChatError, match=r"document_unreadable: .* too long"):
        await soon(reading)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_process_that_is_ended_from_outside_says_nothing_of_the_document(number: signal.Signals) -> None:
    reading = asyncio.create_task(Reader().chunks(SLOW, "text/html"))
    os.kill(await soon(_limited_worker()), number)
    with pytest.raises(ChatError, match="service_full"):
        await soon(reading)


async def test_machine_without_a_process_to_spare_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    async def none_left(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(asyncio, "create_subprocess_exec", none_left)
    with pytest.raises(ChatError, match="service_full"):
        await Reader().chunks(b"tea", "text/plain")


async def test_what_takes_too_much_memory_is_refused() -> None:
    with pytest.raises(ChatError, match=r"document_unreadable: .* memory"):
        await soon(Reader().chunks(b"\n" * 150_000_000, "text/plain"))


async def test_bomb_is_refused() -> None:
    with pytest.raises(ChatError, match="document_too_large: Page 1 of the PDF unpacks to more"):
        await soon(Reader().chunks(written(objects_of([bomb(times=2)])), "application/pdf"))


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (b"<div>" * 1_000_000 + b"tea", "text/html"),
        (b"<svg><!--" * 300_000 + b"-->" * 300_000 + b"</svg><main>tea", "text/html"),
        (b"`" * 2_000_000 + b"tea", "text/markdown"),
        (b"#" * 2_000_000 + b"tea", "text/markdown"),
        (b"[![" * 1_000_000 + b"tea", "text/markdown"),
        (b"\n>" * 1_000_000 + b"tea", "text/markdown"),
        (b" " * 20_000_000 + b"tea", "text/plain"),
        (b"tea " * 7_000_000, "text/plain"),
    ],
)
async def test_what_is_made_to_take_long_does_not(data: bytes, media_type: str) -> None:
    chunks = await soon(Reader().chunks(data, media_type))
    assert chunks[-1].text.endswith("tea")


# --- what it says


class Said:
    """A process that has said this already, and was asked nothing."""

    def __init__(self, *lines: object, end: bytes = b"") -> None:
        self.stdout = asyncio.StreamReader()
        self.stdout.feed_data(b"".join(json.dumps(line).encode() + b"\n" for line in lines) + end)
        self.stdout.feed_eof()
        self.stdin = SimpleNamespace(write=lambda data: None, drain=self.drain, close=lambda: None)

    async def drain(self) -> None:
        raise BrokenPipeError


async def test_others_have_their_turn_while_passages_are_read() -> None:
    said: Any = Said(*[["page 1", "tea"]] * 50 * LINES)
    reading = asyncio.create_task(_answer(said, b"", b""))
    turns = 0
    while not reading.done():
        await asyncio.sleep(0)
        turns += 1
    assert len(await reading) == 50 * LINES
    assert turns >= 50


async def test_of_passages_no_more_is_taken_than_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    said = [["page 1", "tea"]] * 10
    process: Any = Said(*said)
    assert len(await _answer(process, b"", b"")) == 10
    monkeypatch.setattr(reading, "ANSWER_BYTES", 100)
    process = Said(*said)
    with pytest.raises(ChatError, match=r"document_too_large: .* 100 bytes"):
        await _answer(process, b"", b"")


@pytest.mark.parametrize("said", [b'["page 1", "te', b'["page 1", "\xf0\x9f', b'{"code'])
async def test_process_that_is_ended_in_the_middle_of_a_line_is_no_crash(said: bytes) -> None:
    process: Any = Said(["page 1", "tea"], end=said)
    with pytest.raises(ChatError, match=r"document_unreadable: .* could not be taken apart"):
        await _answer(process, b"", b"")


async def test_loop_goes_on_while_a_document_is_taken_apart() -> None:
    reading = asyncio.create_task(Reader(seconds=1).chunks(SLOW, "text/html"))
    turns = 0
    while not reading.done():
        await asyncio.sleep(0.01)
        turns += 1
    with pytest.raises(ChatError):
        await reading
    assert turns > 5


async def test_who_goes_away_leaves_no_process_behind() -> None:
    reader = Reader()
    for _ in range(3):  # more than may be read at once
        reading = asyncio.create_task(reader.chunks(SLOW, "text/html"))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    assert await soon(reader.chunks(b"tea", "text/plain")) == [Chunk("paragraph 1", "tea")]
    assert _workers() == []
