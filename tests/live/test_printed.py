"""PDFs as a browser prints them: whether what is read of one is what its reader sees, in that order."""

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser

from chat.documents import Chunk
from knowledge.reading import Reader
from tests.live.browser import chromium
from tests.patience import soon

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Handbook</title>
<style>body { font: 12pt/1.3 serif } h2 { break-before: var(--break, auto) } .two { columns: 2 }</style>
<h1>Handbook</h1>
<p>This handbook tells everybody who works in Zürich what there is to know of the <b>opening hours</b>, the prices and
the machines; it was written for colleagues who have little time, and is short for this reason.</p>
<p>Offices are difficult: fluffy waffles, efficient affluence.</p>
<h2>Opening hours</h2>
<p>From nine to five on workdays.</p>
<ul><li>Winter: closed on Sundays</li><li>Summer: from ten to four</li></ul>
<h2>Columns</h2>
<div class="two">
<p>The left column comes first, and says so in as many words as it takes to have more than one line.</p>
<p style="break-before: column">The right column comes behind it, and has a few lines of its own as well.</p></div>
<h2 style="--break: page">Prices</h2>
<table><tr><th>Tea</th><th>Cup</th></tr><tr><td>Green</td><td>2.50</td></tr></table>
<p style="width: 1px">called mani&shy;pulation</p>
<p>It is soft in the mi&shy;ddle.</p>
<pre>def price():
    return 2.50</pre>
<script>document.body.append("made by a script")</script>"""


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


async def printed(browser: Browser, *, outline: bool) -> list[Chunk]:
    page = await browser.new_page()
    await page.set_content(PAGE)
    data = await page.pdf(outline=outline, tagged=outline)
    return list(await soon(Reader().chunks(data, "application/pdf")))


@pytest.mark.parametrize("outline", [True, False])
async def test_page_that_is_printed_is_read_as_it_was_written(browser: Browser, outline: bool) -> None:
    chunks = await printed(browser, outline=outline)
    assert [chunk.place for chunk in chunks] == [
        "Handbook, page 1",
        "Handbook > Opening hours, page 1",
        "Handbook > Columns, page 1",
        "Handbook > Prices, page 2",
    ]
    about, hours, columns, prices = (chunk.text for chunk in chunks)
    assert about.split("\n\n")[0] == "Handbook"
    assert " ".join(about.split()[1:]) == (
        "This handbook tells everybody who works in Zürich what there is to know of the opening hours, the prices and "
        "the machines; it was written for colleagues who have little time, and is short for this reason. "
        "Offices are difficult: fluffy waffles, efficient affluence."
    )
    assert about.count("\n\n") == 2
    assert [line.strip() for line in hours.split("\n") if line.strip()] == [
        "Opening hours",
        "From nine to five on workdays.",
        "Winter: closed on Sundays",
        "Summer: from ten to four",
    ]
    assert " ".join(columns.split()) == (
        "Columns The left column comes first, and says so in as many words as it takes to have more than one line. "
        "The right column comes behind it, and has a few lines of its own as well."
    )
    assert "Tea Cup Green 2.50" in " ".join(prices.split())
    assert "called\nmanipulation" in prices
    assert "in the middle." in prices
    assert "def price():\n    return 2.50" in prices
    assert prices.endswith("made by a script")
