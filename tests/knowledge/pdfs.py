"""PDF files, written by hand: as they should be, and as nobody should write them. ISO 32000 says what is what."""

import zlib
from collections.abc import Mapping, Sequence

Objects = dict[int, bytes]

FONT = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"


def stream(data: bytes, entries: bytes = b"") -> bytes:
    return b"<< /Length %d %s >>\nstream\n%s\nendstream" % (len(data), entries, data)


def packed(data: bytes, times: int = 1) -> bytes:
    """A stream that is compressed, so many times."""
    for _ in range(times):
        data = zlib.compress(data, 9)
    return stream(data, b"/Filter [%s]" % (b"/FlateDecode " * times))


def bomb(times: int = 1) -> bytes:
    """A stream that unpacks to a gigabyte of spaces, compressed so many times: a megabyte, two kilobytes, one."""
    compressor = zlib.compressobj(9)
    data = b"".join(compressor.compress(b" " * 10_000_000) for _ in range(100)) + compressor.flush()
    for _ in range(times - 1):
        data = zlib.compress(data, 9)
    return stream(data, b"/Filter [%s]" % (b"/FlateDecode " * times))


def shown(*lines: tuple[float, float, str] | tuple[float, float, str, int]) -> bytes:
    """What a page does to show these: how far from the left, from the bottom, the text, and its size if not 12."""
    done = []
    for x, y, text, *size in lines:
        escaped = text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)").encode("cp1252")
        done.append(b"BT /F %d Tf %g %g Td (%s) Tj ET" % (size[0] if size else 12, x, y, escaped))
    return b"\n".join(done)


def objects_of(contents: Sequence[bytes], catalog: bytes = b"", more: Mapping[int, bytes] | None = None) -> Objects:
    """Objects of a file with these pages: page n is number 10 + 2 n, from 0, its content the next.

    ``catalog`` is put into the catalog, ``more`` stands beside or instead.
    """
    kids = b" ".join(b"%d 0 R" % (10 + 2 * number) for number in range(len(contents)))
    objects: Objects = {
        1: b"<< /Type /Catalog /Pages 2 0 R %s >>" % catalog,
        2: b"<< /Type /Pages /Kids [%s] /Count %d /MediaBox [0 0 612 792] >>" % (kids, len(contents)),
        3: FONT,
    }
    for number, content in enumerate(contents):
        page = b"<< /Type /Page /Parent 2 0 R /Resources << /Font << /F 3 0 R >> >> /Contents %d 0 R >>"
        objects[10 + 2 * number] = page % (11 + 2 * number)
        objects[11 + 2 * number] = content
    return objects | dict(more or {})


def written(objects: Mapping[int, bytes], trailer: bytes = b"") -> bytes:
    """The file."""
    data = bytearray(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
    places = {}
    for number, content in sorted(objects.items()):
        places[number] = len(data)
        data += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    start = len(data)
    size = max(objects) + 1
    data += b"xref\n0 %d\n" % size
    for number in range(size):
        data += b"%010d 00000 n \n" % places[number] if number in places else b"0000000000 65535 f \n"
    data += b"trailer\n<< /Size %d /Root 1 0 R %s >>\nstartxref\n%d\n%%%%EOF\n" % (size, trailer, start)
    return bytes(data)


def pdf(*pages: bytes, catalog: bytes = b"", more: Mapping[int, bytes] | None = None, trailer: bytes = b"") -> bytes:
    """A file with pages that show this, see :func:`shown`."""
    return written(objects_of([stream(page) for page in pages], catalog, more), trailer)


def text(*lines: str) -> bytes:
    """A page with these lines, one below the other."""
    return shown(*((72, 720 - 14 * number, line) for number, line in enumerate(lines)))
