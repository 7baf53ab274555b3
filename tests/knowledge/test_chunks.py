"""Documents are taken apart by their structure, and nothing of them is lost."""

from contextlib import suppress
from html import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

import knowledge.chunks
from chat.documents import CHUNK_CHARS, Chunk
from chat.errors import ChatError
from knowledge.chunks import parser_of
from knowledge.html import UNSEEN


def chunks_of(text: str, media_type: str) -> list[Chunk]:
    return knowledge.chunks.chunks_of(text.encode(), parser_of(media_type))


def inked(text: str) -> str:
    """The text without its white space."""
    return "".join(text.split())


def places(chunks: list[Chunk]) -> list[str]:
    return [chunk.place for chunk in chunks]


LINES = ["#", "# A", "## B", "Setext", "===", "---", "```", "~~~~", "- item", "1. item", "text. More text!", "x" * 900]
MARKS = ["\n", "\n\n", " ", "    indented", "\r\n", "\u2028", "\x0c", "日本語。" * 300, "| a | b |", "> quote", "\x85"]
pieces = st.sampled_from(LINES + MARKS)
texts = st.text().map(lambda text: text.replace("\0", "").lstrip("\ufeff"))  # which are no text, and no part of it
documents = texts | st.lists(pieces, max_size=40).map("".join) | st.lists(pieces, max_size=40).map("\n".join)


@pytest.mark.parametrize("media_type", ["text/plain", "text/markdown"])
@given(text=documents)
def test_every_character_is_in_exactly_one_chunk_in_order(media_type: str, text: str) -> None:
    chunks = chunks_of(text, media_type)
    assert inked("".join(chunk.text for chunk in chunks)) == inked(text)
    assert all(0 < len(chunk.text) <= CHUNK_CHARS and chunk.text.strip() for chunk in chunks)


elements = st.recursive(
    st.tuples(st.just(""), documents),
    lambda inner: st.tuples(
        st.sampled_from(["p", "div", "h1", "h3", "ul", "li", "pre", "table", "tr", "td", "b", "a", "unknown"]),
        st.lists(inner, max_size=4),
    ),
    max_leaves=12,
)


def written(element: tuple[str, object]) -> tuple[str, str]:
    """The element as HTML, and what it says."""
    name, content = element
    if isinstance(content, str):
        content = content.replace("\0", "").replace("\r", "")
        return escape(content), content
    assert isinstance(content, list)
    inside = [written(child) for child in content]
    return f"<{name} class='x'>{''.join(html for html, _ in inside)}</{name}>", "".join(said for _, said in inside)


@given(elements)
def test_every_character_that_a_page_shows_is_in_exactly_one_chunk_in_order(element: tuple[str, object]) -> None:
    html, said = written(element)
    chunks = chunks_of(html, "text/html")
    assert inked("".join(chunk.text for chunk in chunks)) == inked(said)
    assert all(0 < len(chunk.text) <= CHUNK_CHARS for chunk in chunks)


@given(st.text(alphabet="<>!-/[]&;#?=\"' abcdpreh1\n"))
def test_what_is_hardly_html_is_read_or_refused(text: str) -> None:
    with suppress(ChatError):
        chunks_of(text, "text/html")


def test_what_is_no_declaration_is_refused() -> None:
    with pytest.raises(ChatError):
        chunks_of("<![nothing that is known[", "text/html")


GUIDE = """\
Before everything.

# Guide

## Opening hours

From nine to five.

On Sundays:

- closed in winter
- from ten in summer

## Code

```python
# no heading

def f(): ...
```

Set
===

The end.
"""


def test_markdown_is_taken_apart_at_its_headings() -> None:
    assert chunks_of(GUIDE, "text/markdown") == [
        Chunk("paragraph 1", "Before everything."),
        Chunk(
            "Guide > Opening hours, paragraph 1",
            "# Guide\n\n## Opening hours\n\nFrom nine to five.\n\nOn Sundays:\n\n"
            "- closed in winter\n- from ten in summer",
        ),
        Chunk("Guide > Code, paragraph 1", "## Code\n\n```python\n# no heading\n\ndef f(): ...\n```"),
        Chunk("Set, paragraph 1", "Set\n===\n\nThe end."),
    ]


def test_paragraphs_are_counted_below_their_heading() -> None:
    long = "word " * 200
    chunks = chunks_of(f"{long}\n\n{long}\n\n# A #\n\n{long}\n\n{long}\n\n{long}", "text/markdown")
    assert places(chunks) == ["paragraph 1", "paragraph 2", "A, paragraph 1", "A, paragraph 2", "A, paragraph 3"]
    chunks = chunks_of(f"{long}\n\n\n{long}\n \n{long}", "text/plain")
    assert places(chunks) == ["paragraph 1", "paragraph 2", "paragraph 3"]


def test_code_is_kept_whole_as_far_as_the_limit_allows() -> None:
    code = "```\n" + "\n\n".join(f"line {number}" for number in range(120)) + "\n```"
    assert len(code) < CHUNK_CHARS < len(code) + 800
    chunks = chunks_of(f"{'word ' * 160}\n\n{code}\n\n{'word ' * 160}", "text/markdown")
    assert [chunk.text for chunk in chunks[1:2]] == [code]
    lines = ["~~~~", *[f"    line {number}" for number in range(500)], "~~~~"]
    parts = chunks_of("\n".join(["# A", "", *lines]), "text/markdown")
    assert [line for chunk in parts for line in chunk.text.split("\n") if line] == ["# A", *lines]
    assert set(places(parts)) == {"A, paragraph 1"}
    assert len(parts) > 2


def test_long_paragraph_is_broken_behind_a_sentence_a_word_or_anywhere() -> None:
    sentences = chunks_of("A sentence of words. " * 200, "text/plain")
    assert len(sentences) == 3
    assert all(chunk.text.endswith("words.") for chunk in sentences)
    words = chunks_of("word " * 1_000, "text/plain")
    assert all(chunk.text.endswith("word") for chunk in words)
    assert [len(chunk.text) for chunk in chunks_of("x" * 4_000, "text/plain")] == [1_600, 1_600, 800]


def test_items_of_a_list_are_places_to_break() -> None:
    items = [f"- item {number} {'word ' * 100}".rstrip() for number in range(9)]
    chunks = chunks_of("\n".join(items), "text/markdown")
    assert [line for chunk in chunks for line in chunk.text.split("\n")] == items
    assert set(places(chunks)) == {"paragraph 1"}


def test_headings_with_nothing_below_them_stay_together_and_are_short_in_a_place() -> None:
    [chunk] = chunks_of(f"# {'A' * 500}\n## B\n### C\ntext", "text/markdown")
    assert chunk.place == f"{'A' * 79}… > B > C, paragraph 1"
    assert places(chunks_of("# A\n## B\nx\n# C\ny", "text/markdown")) == ["A > B, paragraph 1", "C, paragraph 1"]


def test_page_is_taken_apart_as_it_is_seen() -> None:
    page = """<!doctype html><html><head><title>T</title><style>p {}</style></head><body>
      <nav><a href="/">Home</a></nav><h1>Caf&eacute;</h1>
      <p>From <b>nine</b>
         to five.<br>On Sundays: <ul><li>winter<li>summer</ul>
      <script>if (a < b) alert("x")</script><svg><text>drawn</text></svg>
      <h2>Code</h2><pre>def f():
    return 1</pre><table><tr><td>a</td><td>b</td></tr></table></body></html>"""
    assert chunks_of(page, "text/html") == [
        Chunk("Café, paragraph 1", "Café\n\nFrom nine to five.\nOn Sundays:\nwinter\nsummer"),
        Chunk("Café > Code, paragraph 1", "Code\n\ndef f():\n    return 1\na b"),
    ]


@pytest.mark.parametrize("tag", sorted(UNSEEN))
def test_what_no_reader_sees_is_left_out(tag: str) -> None:
    [chunk] = chunks_of(f"<p>before</p><{tag}>inside</{tag}><p>behind</p>", "text/html")
    assert chunk.text == "before\n\nbehind"


def test_what_was_left_open_hides_no_page() -> None:
    [chunk] = chunks_of("<nav>Home<main><p>Text</p></main>", "text/html")
    assert chunk.text == "Text"


@pytest.mark.parametrize("media_type", ["text/plain", "text/markdown", "text/html"])
@pytest.mark.parametrize("text", ["", " \n\t\n ", "\n" * 5_000])
def test_nothing_makes_no_chunk(media_type: str, text: str) -> None:
    assert chunks_of(text, media_type) == []
