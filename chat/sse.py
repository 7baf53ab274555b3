"""Server-Sent Events, read from bytes: https://html.spec.whatwg.org/multipage/server-sent-events.html

Pure: no I/O, no await. More lenient than the specification in two points, because real servers need it: the last
event counts although the empty line behind it is missing, and ``error:`` is a line of data of an event named so.
"""

from collections.abc import Iterator

from chat.errors import ModelError

# A token makes an event of some hundred bytes, a whole answer at once one of some hundred kilobytes. What is larger
# is broken or hostile, and without a limit one line could fill the memory before its end ever comes.
MAX_EVENT_BYTES = 1 << 20

_BOM = b"\xef\xbb\xbf"


class SSEDecoder:
    """Turns the bytes of one stream into events, however they are cut into reads.

    Holds one unfinished event, ``MAX_EVENT_BYTES`` at most. Invalid UTF-8 becomes U+FFFD. ``id`` and ``retry`` are
    left out: what is read here cannot be resumed.
    """

    def __init__(self) -> None:
        self._line = bytearray()  # the start of a line whose end has not come yet
        self._after_cr = False  # an LF right behind it belongs to the same line end
        self._at_start = True
        self._name = ""
        self._data: list[bytes] = []
        self._size = 0  # of the lines in _data

    @property
    def idle(self) -> bool:
        """Whether nothing of an event is held: what comes next is its beginning."""
        return not (self._line or self._data or self._name or self._after_cr)

    def feed(self, data: bytes) -> Iterator[tuple[str, str]]:
        """Name (of most events empty) and data of every event that ``data`` completes.

        Lazy, so that the events in front of one that is too large are out before that one raises. To be exhausted
        before the next call.

        Raises:
            ModelError: ``upstream_invalid`` for an event larger than ``MAX_EVENT_BYTES``.
        """
        if self._after_cr:
            self._after_cr = not data
            data = data.removeprefix(b"\n")
        if not data:
            return
        lines = data.splitlines()  # of bytes: at LF, CR and CRLF only
        self._after_cr = data.endswith(b"\r")
        rest = b"" if data.endswith((b"\n", b"\r")) else lines.pop()
        if lines:
            if self._line:
                lines[0] = bytes(self._line) + lines[0]
                self._line.clear()
            if self._at_start:
                self._at_start = False
                lines[0] = lines[0].removeprefix(_BOM)
            yield from self._events(lines)
        self._line += rest  # a bytearray: a line that drips in byte by byte takes linear time
        self._check(self._line)

    def finish(self) -> Iterator[tuple[str, str]]:
        """The event that the end of the bytes completes, if there is one."""
        return self.feed(b"\n\n")

    def _events(self, lines: list[bytes]) -> Iterator[tuple[str, str]]:
        for line in lines:
            self._check(line)
            if line.startswith(b"data:"):
                self._size += len(line)
                self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])
            elif not line:
                if self._data:
                    data = b"\n".join(self._data)
                    self._data, self._size = [], 0
                    yield self._name, data.decode("utf-8", "replace")
                self._name = ""
            elif line.startswith(b"event:"):
                self._name = line[6:].removeprefix(b" ").decode("utf-8", "replace")
            elif line.startswith(b"error:"):  # llama.cpp's way for long, and still that of servers built on it
                self._name = "error"
                self._size += len(line)
                self._data.append(line[6:])
            elif line == b"data":
                self._size += len(line)
                self._data.append(b"")

    def _check(self, line: bytes | bytearray) -> None:
        if self._size + len(line) > MAX_EVENT_BYTES:
            raise ModelError("upstream_invalid", "The model sent an event that is too large.", retryable=True)
