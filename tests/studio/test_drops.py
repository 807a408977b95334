"""Files that are dropped on the page: on the places for them, and beside."""

from __future__ import annotations

from typing import Any

from tests.embed.browser import Page
from tests.studio.conftest import StudioProcess
from tests.studio.test_page import at

_DROP = """
const files = new DataTransfer();
files.items.add(new File(arguments[2], arguments[1], { type: "image/jpeg" }));
const target = document.querySelector(arguments[0]);
return ["dragover", "drop"].map((type) => {
  const event = new DragEvent(type, { dataTransfer: files, bubbles: true, cancelable: true });
  target.dispatchEvent(event);
  return event.defaultPrevented;
});
"""


def drop(page: Page, selector: str, name: str, content: list[str]) -> Any:
    """Drops a file; returns whether the browser was kept from opening it, when it hovered and when it was dropped."""
    return page.run(_DROP, selector, name, content)


def test_a_file_that_is_dropped_anywhere_never_replaces_the_page(browser: Page, studio: StudioProcess) -> None:
    for tab in ("stylize", "map", "see"):
        page = at(browser, studio, f"/{tab}")
        assert drop(page, "main", "photo.jpg", ["x"]) == [True, True]
        assert drop(page, "nav", "photo.jpg", ["x"]) == [True, True]


def test_a_dropped_file_that_is_empty_is_named(browser: Page, studio: StudioProcess) -> None:
    page = at(browser, studio, "/stylize")
    drop(page, ".drop.content", "nothing.jpg", [])
    page.until("document.getElementById('notes').innerText.includes('nothing.jpg is empty')")


def test_columns_that_are_no_numbers_are_not_ordered(browser: Page, studio: StudioProcess) -> None:
    page = at(browser, studio, "/sweep")
    page.until("document.querySelectorAll('.sample').length >= 6")
    page.run("document.querySelectorAll('.samples').forEach((strip) => strip.querySelector('.sample').click())")
    page.until("!document.getElementById('start').disabled")
    page.run("document.getElementById('ratios').value = '0.1, much'")
    page.click("#start")
    page.until("document.getElementById('notes').innerText.includes('Columns: give numbers')")
    assert page.run("return location.pathname") == "/sweep"
    assert page.errors() == []
