"""What the pages among the examples have in common."""

from pathlib import Path

from playwright.async_api import Locator, Page

EXAMPLES = Path(__file__).parents[3] / "examples"


def answer(page: Page) -> Locator:
    return page.get_by_label("Answer").last
