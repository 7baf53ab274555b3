"""What a PDF says, in the order and under the headings that its readers see."""

import pytest

from chat.documents import CHUNK_CHARS, Chunk
from chat.errors import ChatError
from knowledge import pdf as reading
from knowledge.chunks import PDF, chunks_of, parser_of
from tests.knowledge.pdfs import Objects, bomb, objects_of, packed, pdf, shown, stream, text, written


def read(data: bytes) -> list[Chunk]:
    return chunks_of(data, parser_of(PDF))


def outline(*items: bytes) -> Objects:
    """Items one behind the other; further ones may stand below them."""
    objects = {200: b"<< /Type /Outlines /First 201 0 R /Last %d 0 R >>" % (200 + len(items))}
    for number, item in enumerate(items, 201):
        following = b"/Next %d 0 R" % (number + 1) if number < 200 + len(items) else b""
        objects[number] = b"<< %s %s /Parent 200 0 R >>" % (item, following)
    return objects


def test_every_page_is_read_and_named() -> None:
    assert read(pdf(text("Tea is free.", "So is milk."), b"", text("Closed on Sundays."))) == [
        Chunk("page 1", "Tea is free.\nSo is milk."),
        Chunk("page 3", "Closed on Sundays."),
    ]


def test_what_is_compressed_is_read() -> None:
    assert read(written(objects_of([packed(text("Tea is free."), times=3)]))) == [Chunk("page 1", "Tea is free.")]


def test_long_pages_are_several_chunks() -> None:
    page = shown(*((72, 780 - 8 * number, f"Line {number} {'word ' * 20}", 6) for number in range(90)))
    chunks = read(pdf(page, page))
    assert [chunk.place for chunk in chunks] == ["page 1"] * (len(chunks) // 2) + ["page 2"] * (len(chunks) // 2)
    assert all(len(chunk.text) <= CHUNK_CHARS for chunk in chunks)
    lines = [line for chunk in chunks for line in chunk.text.split("\n")]
    assert lines == [f"Line {number} {'word ' * 20}".strip() for number in range(90)] * 2


def test_paragraphs_are_what_stands_apart() -> None:
    page = shown(
        (72, 700, "The first paragraph has a line"), (72, 686, "and another one."),
        (72, 660, "The second begins further below."),
        (72, 646, "a table:"), (160, 646, "green"), (240, 646, "2.50"),
    )  # fmt: skip
    [chunk] = read(pdf(page))
    assert chunk.text == (
        "The first paragraph has a line\nand another one.\n\nThe second begins further below.\na table: green 2.50"
    )


def test_cells_of_a_row_are_one_line() -> None:
    cells = [(72 + 80 * column, 700 - 18 * row, f"{row}.{column}") for row in range(3) for column in range(3)]
    page = b" ".join(b"q 1 0 0 1 %d %d cm BT /F 12 Tf (%s) Tj ET Q" % (x, y, said.encode()) for x, y, said in cells)
    [chunk] = read(pdf(page))
    assert chunk.text == "0.0 0.1 0.2\n1.0 1.1 1.2\n2.0 2.1 2.2"


def test_paragraph_goes_on_in_the_next_column() -> None:
    left = [(72, 700 - 14 * line, f"left {line} goes on", 12) for line in range(3)]
    right = [(320, 700 - 14 * line, f"right {line} goes on", 12) for line in range(3)]
    [chunk] = read(pdf(shown(*left, *right)))
    assert chunk.text == "\n".join(said for _, _, said, _ in left + right)
    left[-1] = (72, 672, "It ends here.", 12)
    [chunk] = read(pdf(shown(*left, *right)))
    assert "It ends here.\n\nright 0" in chunk.text


def numbered(said: str, about: str, size: int = 12) -> bytes:
    lines = ((72, 700 - 14 * line, f"{about} {line}") for line in range(9))
    return shown((72, 760, said, size), *lines, (300, 40, about * int(about[-1])))


@pytest.mark.parametrize("said", ["Handbook", "Chapter 7: {0}", "{1} Handbook", "Page {0} of 4", "{0}", "{0} / {1}"])
def test_what_runs_along_the_edges_of_pages_is_left_out(said: str) -> None:
    pages = [numbered(said.format(number, number + 7), f"about {number}") for number in range(1, 5)]
    chunks = read(pdf(*pages))
    assert [chunk.place for chunk in chunks] == ["page 1", "page 2", "page 3", "page 4"]
    lines = [chunk.text.split("\n") for chunk in chunks]
    assert [each[0] for each in lines] == [f"about {number} 0" for number in range(1, 5)]
    assert [each[-1] for each in lines] == [f"about {number}" * number for number in range(1, 5)]
    assert read(pdf(*pages[:2]))[0].text.startswith(said.format(1, 8))


def test_what_may_be_a_heading_is_not_left_out() -> None:
    large = read(pdf(*(numbered("Results", f"about {number}", size=24) for number in range(4))))
    assert all(chunk.text.startswith("Results") for chunk in large)
    other = read(pdf(*(numbered(f"Case {number * number}", f"about {number}") for number in range(4))))
    assert all(chunk.text.startswith("Case") for chunk in other)
    assert len(read(pdf(*[text("Tea is free.", "So is milk.")] * 4))) == 4


def test_soft_hyphen_that_is_not_seen_is_no_space() -> None:
    marked = b"/Span << /ActualText <FEFF00AD> >> BDC ( ) Tj EMC"
    other = b"/Span << /ActualText (x) >> BDC ( ) Tj EMC /P BMC ( of) Tj EMC EMC"
    [chunk] = read(pdf(b"BT /F 12 Tf 72 700 Td (mani) Tj %s (pulation) Tj %s ET" % (marked, other)))
    assert chunk.text == "manipulation  of"


@pytest.mark.parametrize(
    ("lines", "joined"),
    [
        (("a manip-", "ulation of it"), "a manipulation\nof it"),
        (("a manip-", "ulation", "of it"), "a manipulation\nof it"),
        (("a manip\u00ad", "ulation of it"), "a manipulation\nof it"),
        (("the Shakespeare-", "Company"), "the Shakespeare-\nCompany"),
        (("from 1914-", "1918"), "from 1914-\n1918"),
        (("a dash -", "and so on"), "a dash -\nand so on"),
    ],
)
def test_words_that_were_cut_at_the_end_of_a_line_are_whole(lines: tuple[str, ...], joined: str) -> None:
    [chunk] = read(pdf(text(*lines)))
    assert chunk.text == joined


def test_ligatures_are_letters_and_controls_are_nothing() -> None:
    letters = b"<01> <fb03> <02> <0000> <03> <d83d> <04> <fb01>"
    cmap = b"1 begincodespacerange <00> <ff> endcodespacerange 4 beginbfchar %s endbfchar" % letters
    font = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /ToUnicode 5 0 R >>"
    page = rb"BT /F 12 Tf 72 700 Td (o\001ce \002\003\004sh) Tj ET"
    [chunk] = read(pdf(page, more={3: font, 5: stream(cmap)}))
    assert chunk.text == "office fish"


def test_outline_names_the_headings() -> None:
    first = shown(
        (72, 740, "Handbook", 24), (72, 700, "It is short."), (72, 686, "1. Hours", 12), (72, 672, "From nine.")
    )
    second = shown((72, 700, "And to five."), (72, 600, "Tea is free."))
    items = outline(
        b"/Title (Handbook) /Dest [10 0 R /XYZ 0 760 0] /First 210 0 R /Last 211 0 R",
        b"/Title (Nowhere) /Dest [999 0 R /Fit]",
        b"/Title (?!) /Dest [10 0 R /Fit]",
    )
    items[210] = b"<< /Title (Hours) /Dest [10 0 R /XYZ 0 700 0] /Parent 201 0 R /Next 211 0 R >>"
    items[211] = b"<< /Title (What it costs) /Dest [12 0 R /XYZ 0 620 0] /Parent 201 0 R >>"
    assert read(pdf(first, second, catalog=b"/Outlines 200 0 R", more=items)) == [
        Chunk("Handbook, page 1", "Handbook\n\nIt is short."),
        Chunk("Handbook > Hours, page 1", "1. Hours\n\nFrom nine."),
        Chunk("Handbook > Hours, page 2", "And to five."),
        Chunk("Handbook > What it costs, page 2", "Tea is free."),
    ]


def test_outline_may_name_a_page_that_shows_nothing() -> None:
    items = outline(b"/Title (Cover) /Dest [10 0 R /Fit]", b"/Title (End) /Dest [12 0 R /Fit]")
    [chunk] = read(pdf(b"", text("Tea is free."), catalog=b"/Outlines 200 0 R", more=items))
    assert chunk == Chunk("End, page 2", "Tea is free.")
    items = outline(b"/Title (Last) /Dest [10 0 R /XYZ 0 90 0]")
    assert [chunk.place for chunk in read(pdf(*[text("Tea.")] * 2, catalog=b"/Outlines 200 0 R", more=items))] == [
        "page 1",
        "Last, page 2",
    ]


def test_without_an_outline_large_letters_are_headings() -> None:
    page = shown(
        (72, 740, "Handbook", 24), (72, 700, "It is short, and says what has to be said."), (72, 660, "Hours", 16),
        (72, 640, "From nine to five."), (72, 600, "Prices", 16), (72, 580, "Tea is free."), (72, 520, "* * *", 30),
    )  # fmt: skip
    assert read(pdf(page, text("So is milk."))) == [
        Chunk("Handbook, page 1", "Handbook\n\nIt is short, and says what has to be said."),
        Chunk("Handbook > Hours, page 1", "Hours\n\nFrom nine to five."),
        Chunk("Handbook > Prices, page 1", "Prices\n\nTea is free.\n\n* * *"),
        Chunk("Handbook > Prices, page 2", "So is milk."),
    ]


@pytest.mark.parametrize(
    "broken",
    [
        outline(b"/Title (A) /Next 201 0 R /First 201 0 R /Dest [10 0 R /Fit]"),
        {200: b"<< /First 201 0 R >>", 201: b"<< /Title 7 /Dest (nowhere) >>"},
        {200: b"<< /First 201 0 R >>", 201: b"[1 2 3]"},
        {200: b"7"},
        {200: b"<< /First 201 0 R >>", 201: b"<< /Title (A) /A << /S /GoTo /D 7 >> /Next 200 0 R >>"},
        {200: b"<< /First 201 0 R >>", **{n: b"<< /Title (A) /First %d 0 R >>" % (n + 1) for n in range(201, 900)}},
    ],
)
def test_outline_that_is_damaged_or_runs_in_circles_takes_nothing_away(broken: Objects) -> None:
    [chunk] = read(pdf(text("Tea is free."), catalog=b"/Outlines 200 0 R", more=broken))
    assert chunk.text == "Tea is free."


def test_scripts_files_notes_and_fields_are_no_text() -> None:
    more = {
        5: b"<< /Type /Filespec /F (secret.txt) /EF << /F 6 0 R >> >>",
        6: stream(b"secret", b"/Type /EmbeddedFile"),
        7: b"<< /Type /Annot /Subtype /Text /Rect [0 0 9 9] /Contents (secret) >>",
        8: b"<< /FT /Tx /T (name) /V (secret) >>",
    }
    catalog = (
        b"/OpenAction << /S /JavaScript /JS (app.alert\\('secret'\\)) >> /AcroForm << /Fields [8 0 R] >> "
        b"/Names << /EmbeddedFiles << /Names [(secret.txt) 5 0 R] >> /JavaScript << /Names [(a) 9 0 R] >> >>"
    )
    objects = objects_of([stream(text("Tea is free."))], catalog, more)
    objects[10] = objects[10].replace(
        b"/Parent", b"/Annots [7 0 R] /AA << /O << /S /JavaScript /JS (secret) >> >> /Parent"
    )
    assert read(written(objects)) == [Chunk("page 1", "Tea is free.")]


# --- what is refused

WHOLE = pdf(text("Tea is free."), text("So is milk."))

ENCRYPTED = b"<< /Filter /Standard /V 1 /R 2 /O (%s) /U (%s) /P -4 >>" % (b"a" * 32, b"b" * 32)


def refusal(data: bytes) -> ChatError:
    with pytest.raises(ChatError) as refused:
        read(data)
    return refused.value


@pytest.mark.parametrize("entry", [ENCRYPTED, b"<< /Filter /Unknown >>", b"<< /Filter /Standard /V 5 /R 6 >>", b"7"])
def test_encrypted_file_is_refused(entry: bytes) -> None:
    refused = refusal(pdf(text("Tea."), trailer=b"/Encrypt 5 0 R /ID [(a)(a)]", more={5: entry}))
    assert (refused.code, "password" in refused.message) == ("document_encrypted", True)


def test_file_of_images_is_refused_with_a_word_on_them() -> None:
    objects = objects_of([stream(b"q 612 0 0 792 0 0 cm /I Do Q")])
    objects[10] = objects[10].replace(b"/Font <<", b"/XObject << /I 5 0 R >> /Font <<")
    objects[5] = stream(b"\xff\x00\xff", b"/Type /XObject /Subtype /Image /Width 1 /Height 1 /ColorSpace /DeviceRGB")
    refused = refusal(written(objects))
    assert (refused.code, "images" in refused.message) == ("document_empty", True)


def test_file_without_pages_is_refused() -> None:
    assert refusal(pdf()).code == "document_empty"


def test_so_many_pages_may_be_there() -> None:
    objects = objects_of([stream(text("Tea."))])
    objects[2] = objects[2].replace(b"[10 0 R]", b"[" + b"10 0 R " * 10_000 + b"]")
    refused = refusal(written(objects))
    assert (refused.code, "1,000" in refused.message, "10,000" in refused.message) == ("document_too_large", True, True)
    objects[2] = objects[2].replace(b"10 0 R " * 10_000, b"10 0 R " * reading.MAX_PDF_PAGES)
    assert len(read(written(objects))) == reading.MAX_PDF_PAGES


def test_so_much_text_may_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(read(WHOLE)) == 2
    monkeypatch.setattr(reading, "MAX_PDF_CHARS", 20)
    assert refusal(WHOLE).code == "document_too_large"


@pytest.mark.parametrize("end", [9, 60, 300, len(WHOLE) - 200, len(WHOLE) - 20])
def test_file_that_is_cut_off_is_refused(end: int) -> None:
    assert refusal(WHOLE[:end]).code == "document_unreadable"


def test_page_that_cannot_be_read_is_named() -> None:
    refused = refusal(pdf(text("Tea."), b"[" * 100_000))
    assert (refused.code, "Page 2" in refused.message) == ("document_unreadable", True)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n" + WHOLE, "PNG"),
        (b"PK\x03\x04" + WHOLE, "ZIP"),
        (b"MZ" + WHOLE, "program"),
        (b"Tea is free.", "This is no PDF."),
        (b" " * 2_000 + WHOLE, "This is no PDF."),
        (b"", "This is no PDF."),
    ],
)
def test_what_is_no_pdf_is_refused_with_what_it_seems_to_be(data: bytes, reason: str) -> None:
    refused = refusal(data)
    assert (refused.code, reason in refused.message) == ("document_unreadable", True)


def test_of_a_file_that_is_something_else_as_well_only_the_pages_are_read() -> None:
    page = b"<html><script>alert('secret')</script>\n" + WHOLE + b"PK\x03\x04secret"
    assert read(page) == read(WHOLE)
    with pytest.raises(ChatError, match="document_unreadable"):
        chunks_of(page, parser_of("text/html"))


@pytest.mark.parametrize(
    "tree",
    [
        b"<< /Type /Pages /Kids [2 0 R 10 0 R] /Count 2 >>",
        b"<< /Type /Pages /Kids [4 0 R] /Count 1 >>",
        b"<< /Type /Pages /Kids [2 0 R] /Count -1 >>",
    ],
)
def test_tree_of_pages_that_runs_in_circles_is_refused(tree: bytes) -> None:
    more = {2: tree, 4: b"<< /Type /Pages /Kids [2 0 R] /Count 1 /Parent 2 0 R >>"}
    assert refusal(pdf(text("Tea."), more=more)).code in ("document_unreadable", "document_too_large")


@pytest.mark.parametrize("times", [1, 2, 3])
def test_what_unpacks_to_a_gigabyte_is_refused(times: int) -> None:
    refused = refusal(written(objects_of([stream(text("Tea.")), bomb(times)])))
    assert (refused.code, "Page 2" in refused.message) == ("document_too_large", True)


@pytest.mark.parametrize("nested", [b"[" * 100_000 + b"]" * 100_000, b"<< /A " * 100_000 + b">>" * 100_000])
def test_what_is_nested_deeply_is_read_or_refused(nested: bytes) -> None:
    data = pdf(text("Tea."), catalog=b"/X " + nested)
    try:
        assert read(data) == [Chunk("page 1", "Tea.")]
    except ChatError as refused:
        assert refused.code in ("document_unreadable", "document_too_large")  # noqa: PT017
