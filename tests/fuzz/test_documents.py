"""Documents that people send, and PDFs that somebody made by hand."""

import logging
import zlib

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat.documents import CHUNK_CHARS, Chunk
from chat.errors import ChatError
from handlers.errors import STATUS
from knowledge.chunks import MEDIA_TYPES, PDF, TEXTS, chunks_of, parser_of
from tests.fuzz.strategies import odd_texts, spliced
from tests.knowledge.pdfs import Objects, objects_of, packed, pdf, shown, stream, text, written

logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it has a word for everything that is odd


def read(data: bytes, media_type: str) -> list[Chunk]:
    """None where it is refused, in a way that a client understands."""
    try:
        chunks = chunks_of(data, parser_of(media_type))
    except ChatError as error:
        assert error.code.startswith("document_")
        assert error.code in STATUS
        return []
    for chunk in chunks:
        assert chunk.text.strip()
        assert len(chunk.text) <= CHUNK_CHARS
        assert chunk.place
        for said in (chunk.text, chunk.place):
            assert "\0" not in said
            said.encode()  # no half of a character, which no database takes
    return chunks


TEXT = b"""# Handbook\n\nIt is *short*.\n\n- tea\n- milk\n\n```\ncode\n```\n\nHours\n=====\n\n> nine
<h1 class=a>Tea</h1><p>It is&nbsp;free.<br><table><tr><td>1</table><script>x</script><!-- y -->
<![CDATA[z]]><pre> a</pre>
"""

MARKS = [
    "# ", "```", "~~~", "\n", "\n\n", "<p>", "</p>", "<h2>", "<pre>", "<script>", "<!--", "-->", "<![", "<?", "&#0;",
    "&", "&#xd800;", "<svg>", "<main>", "===", "---", "\r", "\x85", "\u2028", "\ufeff", "\0", "x" * 2_000,
]  # fmt: skip

odd_pages = st.lists(st.sampled_from(MARKS) | odd_texts, max_size=20).map("".join)


@given(
    st.one_of(st.binary(max_size=60), spliced({"text": TEXT}), odd_pages.map(lambda page: page.encode())),
    st.sampled_from(sorted(TEXTS)),
)
def test_a_text_is_taken_apart_or_refused(data: bytes, media_type: str) -> None:
    read(data, media_type)


_OUTLINE: Objects = {
    30: b"<< /First 31 0 R /Last 32 0 R >>",
    31: b"<< /Title (Handbook) /Dest [10 0 R /XYZ 0 700 0] /Next 32 0 R /Parent 30 0 R >>",
    32: b"<< /Title <FEFF00D6> /A << /S /GoTo /D (there) >> /Parent 30 0 R >>",
}
_PAGES = [text("Handbook", "It is manip-", "ulation."), shown((72, 700, "Tea", 24), (72, 600, "It is free."))]
_OBJECTS = objects_of([stream(_PAGES[0]), packed(_PAGES[1])], b"/Outlines 30 0 R", _OUTLINE)
WHOLE = {"plain": pdf(*_PAGES), "outlined": written(_OBJECTS)}

_PARTS = [
    b"[", b"]", b"<<", b">>", b"(", b")", b"/", b"null", b"true", b"-1", b"1e9", b"9" * 20, b"2 0 R", b"10 0 R",
    b"/Kids [2 0 R]", b"/Count -1", b"/Length 0", b"/Length 999999", b"/Filter /FlateDecode", b"/Filter /LZWDecode",
    b"/Filter [/ASCIIHexDecode /ASCII85Decode]", b"/Type /Catalog", b"/Encrypt 3 0 R", b"/Prev 0", b"/Title 7",
    b"/Dest 7", b"BT", b"ET", b"Tj", b"TJ", b"Td", b"Tf", b"Tm", b"cm", b"q", b"Q", b"Do", b"BI", b"ID", b"EI", b"T*",
    b"'", b'"', b"endobj", b"endstream", b"stream\n", b"\n", b" ", b"%", b"<FEFFD83D>", b"\\",
]  # fmt: skip

operators = st.lists(st.sampled_from(_PARTS) | st.binary(max_size=6), max_size=12).map(b" ".join)


@st.composite
def nearly_pdf(draw: st.DrawFn) -> bytes:
    """A file of which some objects are not what they should be; its table of them is right."""
    objects = dict(_OBJECTS)
    for number in draw(st.lists(st.sampled_from(sorted(objects)), max_size=3, unique=True)):
        content, odd = objects[number], draw(operators)
        place = draw(st.integers(0, len(content)))
        match draw(st.integers(0, 4)):
            case 0:
                objects[number] = content[:place] + odd + content[place:]
            case 1:
                objects[number] = odd
            case 2:
                objects[number] = stream(odd + content)
            case 3:
                objects[number] = stream(zlib.compress(odd), b"/Filter /FlateDecode")
            case _:
                del objects[number]
    return written(objects or _OBJECTS, draw(operators))


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=60)
@given(st.one_of(nearly_pdf(), spliced(WHOLE)))
def test_a_pdf_is_taken_apart_or_refused(data: bytes) -> None:
    read(data, PDF)


@given(st.binary(max_size=200), st.sampled_from(sorted(MEDIA_TYPES)))
def test_no_bytes_are_too_odd_to_be_refused(data: bytes, media_type: str) -> None:
    read(b"%PDF-1.7\n" + data, media_type)
