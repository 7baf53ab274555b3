"""Markdown: safe, right, and cheap while it grows."""

import re
from pathlib import Path

from playwright.async_api import expect

from tests.live.conftest import Serve
from tests.live.pages import send
from tests.live.playground.conftest import Browse
from tests.live.playground.page import said, verified
from tests.live.service import PATIENCE, Service

HOSTILE = """<script>window.owned = 1</script>

<img src="x" onerror="window.owned = 2">

[click](javascript:window.owned=3) <javascript:window.owned=4> ![image](http://localhost:9/pixel.png)

<iframe src="http://localhost:9/"></iframe> <a href="javascript:window.owned=5">here</a>

`<img src=x onerror=alert(1)>` **<b onmouseover=alert(2)>bold</b>**

```html"><img src=x onerror=window.owned=6>
<script>window.owned = 7</script>
```

| <script>window.owned = 8</script> | b |
|---|---|
| [x](data:text/html,<script>alert(1)</script>) | [y](vbscript:x) |
"""


async def test_hostile_text_stays_text(serve: Serve, browse: Browse) -> None:
    service = await serve(STREAM_DELAY="0.002")
    page = await browse(service.url)
    await send(page, HOSTILE)
    await verified(page)
    for selector in ("script", "img", "iframe", "[onerror]", "[onmouseover]", "a[href^='javascript']"):
        await expect(page.locator(f"#log {selector}")).to_have_count(0)
    links = page.locator(".prose a")
    await expect(links).to_have_count(2)  # the image, and an address in what would have been a frame
    for link in await links.all():
        await expect(link).to_have_attribute("href", re.compile("^http://localhost:9/"))
        await expect(link).to_have_attribute("rel", "noopener noreferrer nofollow")
    await expect(said(page)).to_contain_text("<script>window.owned = 1</script>")
    assert await page.evaluate("window.owned") is None


NESTED = "<ol><li>a</li><li>b<ul><li>c<ul><li>d</li></ul></li></ul></li><li>e</li></ol>"

RENDERED = {
    "# One\n\ntwo *three* **four**": "<h3>One</h3><p>two <em>three</em> <strong>four</strong></p>",
    "1. a\n2. b\n   - c\n     - d\n3. e": NESTED,
    "- a\n\n- b": "<ul><li><p>a</p></li><li><p>b</p></li></ul>",
    "> a\n> > b": "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote>",
    "a\n\n---\n\nb": "<p>a</p><hr><p>b</p>",
    "``a`b`` \\*c\\* d_e_f ~~g~~": "<p><code>a`b</code> *c* d_e_f <del>g</del></p>",
    "a  \nb<br>c": "<p>a<br>b<br>c</p>",
    "[a](https://b.org/(c)) [d](/e) <https://f.org>": (
        '<p><a href="https://b.org/(c)">a</a> [d](/e) <a href="https://f.org/">https://f.org</a></p>'
    ),
    "see https://a.org/b_c_d.": '<p>see <a href="https://a.org/b_c_d">https://a.org/b_c_d</a>.</p>',
}


async def test_markdown_is_rendered(service: Service, browse: Browse) -> None:
    page = await browse(service.url)
    for source, expected in RENDERED.items():
        html = await page.evaluate(
            """async (source) => {
                const { markdown } = await import('/static/markdown.js');
                const box = document.createElement('div');
                box.append(...markdown(source));
                for (const part of box.querySelectorAll('*')) {
                    for (const { name } of [...part.attributes]) if (name !== 'href') part.removeAttribute(name);
                }
                return box.innerHTML.replaceAll('\\n', '');
            }""",
            source,
        )
        assert html == expected


async def test_code_can_be_copied(serve: Serve, browse: Browse) -> None:
    service = await serve(STREAM_DELAY="0")
    page = await browse(service.url, permissions=["clipboard-read", "clipboard-write"])
    await send(page, "```python\nprint('<hi>')\n\tx\n```")
    await verified(page)
    await page.get_by_role("button", name="Copy this code").click()
    await expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert await page.evaluate("navigator.clipboard.readText()") == "print('<hi>')\n    x"


GROWTH = """async ([pieces, seed, documents]) => {
    const { markdown } = await import('/static/markdown.js');
    const { GrowingMarkdown } = await import('/static/growing.js');
    const random = (below) => (seed = (seed * 1103515245 + 12345) & 0x7fffffff) % below;
    const broken = [];
    for (let document_ = 0; document_ < documents; document_ += 1) {
        const text = Array.from({ length: 2 + random(12) }, () => pieces[random(pieces.length)]).join('\\n');
        const [whole, grown] = [document.createElement('div'), document.createElement('div')];
        whole.append(...markdown(text));
        const growing = new GrowingMarkdown(grown);
        for (let at = 0; at < text.length; ) {
            const end = at + 1 + random(6);
            growing.append(text.slice(at, end));
            growing.flush();
            at = end;
        }
        if (whole.innerHTML !== grown.innerHTML) broken.push(text);
    }
    return broken;
}"""


async def test_markdown_that_grows_ends_as_if_rendered_at_once(service: Service, browse: Browse) -> None:
    pieces = ["- a", "1. b", "2", "```", "```py", "|a|b|", "|-|-|", "> c", "# d", "**e", "f**", "  g", "    h", "***"]
    pieces += ["[i](https://j.org)", "k", "`", "~~~", "\t- l", "---", "", "", "\r", "- [ ] m", "![n](https://o.org)"]
    page = await browse(service.url)
    assert await page.evaluate(GROWTH, [pieces, 1, 1500]) == []


async def test_malicious_markdown_takes_no_time(service: Service, browse: Browse) -> None:
    page = await browse(service.url)
    size = 50_000
    pieces = ("*a ", "[", "[a](", "![", "`a``", ">", "- ", "_a", "<", "http://", "|", "*a_b ")
    sources = [piece * size for piece in pieces]
    sources += ["*" * size + "a" + "*" * size, "![" * size + "](u)" * size, "|" * size + "\n" + "|-" * size]
    slowest = await page.evaluate(
        """async (sources) => {
            const { markdown } = await import('/static/markdown.js');
            return Math.max(...sources.map((source) => {
                const began = performance.now();
                markdown(source);
                return performance.now() - began;
            }));
        }""",
        sources,
    )
    assert slowest < PATIENCE * 1000 / 4


MARKUP = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function")


def test_the_page_is_served_as_it_is_written() -> None:
    """No build, no markup made from text, nothing from elsewhere, and no file too long to read."""
    files = [*Path(__file__).parents[3].glob("handlers/static/*.js")]
    assert files
    for file in files:
        source = file.read_text()
        assert not MARKUP.search(source), file
        assert len(source.splitlines()) < 400, file
