"""The page works without network in a real browser."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gramlet.embed.types import Layout
from gramlet_server.embed.page import page
from gramlet_server.embed.stored import Frame
from PIL import Image

from tests.embed.browser import Page, chromium
from tests.embed.test_drawings import a_map, some_jpegs

ITEMS = 30


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    """A browser for the tests of this module."""
    with chromium() as page:
        yield page


def opened(browser: Page, path: Path, dimensions: int = 2) -> Page:
    """Opens a page of two layouts with three frames and one frame."""
    style_map = a_map(ITEMS, dimensions, layouts=2)
    first = style_map.layouts[0].coordinates
    frames = [[Frame(10, 2.0, first[::-1] * 0.01), Frame(20, 1.0, first * 0.5)], []]
    path.write_bytes(page(style_map, some_jpegs(ITEMS), frames, "Two layouts"))
    browser.open(path)
    browser.until("window.gramletMap && gramletMap.ready()")
    return browser


def picture(page: Page) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)


def test_hovering_shows_a_large_picture_and_the_name(browser: Page, tmp_path: Path) -> None:
    page = opened(browser, tmp_path / "map.html")
    assert page.run("return gramletMap.count") == ITEMS
    for item in (0, 17):
        page.move_to(*page.run("return gramletMap.pointOf(arguments[0])", item))
        page.until(f"gramletMap.hovered() === {item}")
        assert page.run("return document.querySelector('#card p').textContent") == f"{item}.png"
        assert page.run("return document.querySelectorAll('#card p')[1].textContent") == "ab"[item % 2]
        assert page.run("return document.querySelector('#card canvas').width") > 150
    assert page.errors() == []


def test_sliders_move_between_layouts_and_iterations(browser: Page, tmp_path: Path) -> None:
    page = opened(browser, tmp_path / "map.html")
    assert page.run("return document.getElementById('frame-name').textContent") == "750, KL 0.500"
    before = page.run("return gramletMap.pointOf(3)")
    page.press("#frame", "\ue012")  # left
    assert page.run("return [gramletMap.layout(), gramletMap.frame()]") == [0, 1]
    assert page.run("return document.getElementById('frame-name').textContent") == "20, KL 1.000"
    page.press("#frame", "\ue012")
    assert page.run("return gramletMap.pointOf(3)") != before
    page.press("#layout", "\ue014")  # right
    assert page.run("return [gramletMap.layout(), gramletMap.frame()]") == [1, 0]
    assert page.run("return document.getElementById('layout-name').textContent") == "perplexity 6"
    assert page.run("return document.getElementById('frame-control').hidden")
    assert page.errors() == []


def test_the_page_shows_the_pictures_in_the_colors_of_their_labels(browser: Page, tmp_path: Path) -> None:
    page = opened(browser, tmp_path / "map.html")
    page.until("document.fonts.status === 'loaded'")
    pixels = picture(page)
    for color in ((0x00, 0x72, 0xB2), (0xE6, 0x9F, 0x00)):
        assert (np.abs(pixels - color).sum(axis=2) < 12).sum() > 300
    page.run("document.querySelector('#legend button').click()")
    page.until("document.querySelector('#legend button').getAttribute('aria-pressed') === 'false'")
    page.run("return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    hidden = picture(page)
    of_a = np.abs(pixels - (0x00, 0x72, 0xB2)).sum(axis=2) < 12
    assert (np.abs(hidden - (0x00, 0x72, 0xB2)).sum(axis=2) < 12).sum() < of_a.sum() / 3


def test_pictures_move_apart_unless_their_true_points_are_wanted(browser: Page, tmp_path: Path) -> None:
    style_map = a_map(ITEMS)
    crowded = replace(style_map, layouts=(Layout(np.zeros((ITEMS, 2), np.float32), style_map.layouts[0].quality),))
    (tmp_path / "map.html").write_bytes(page(crowded, some_jpegs(ITEMS), [[]], ""))
    browser.open(tmp_path / "map.html")
    browser.until("window.gramletMap && gramletMap.ready()")
    points = np.array([browser.run("return gramletMap.pointOf(arguments[0])", item) for item in range(ITEMS)])
    distance = np.abs(points[:, None] - points[None]).max(axis=2) + 1e9 * np.eye(ITEMS)
    assert distance.min() > 30
    browser.run("document.getElementById('apart').click()")
    first, last = (browser.run("return gramletMap.pointOf(arguments[0])", item) for item in (0, ITEMS - 1))
    assert first == last


def test_the_keyboard_goes_from_picture_to_picture_and_says_their_names(browser: Page, tmp_path: Path) -> None:
    page = opened(browser, tmp_path / "map.html")
    page.press("#map", "\ue014", "\ue014", "+")
    hovered = page.run("return gramletMap.hovered()")
    assert hovered >= 0
    assert page.run("return document.getElementById('spoken').textContent").startswith(f"{hovered}.png")
    page.press("#map", "\ue00c")  # escape
    assert page.run("return document.getElementById('card').hidden")


def test_names_are_found(browser: Page, tmp_path: Path) -> None:
    page = opened(browser, tmp_path / "map.html")
    page.press("#find", "2")
    expected = sum("2" in f"{number}.png" for number in range(ITEMS))
    assert page.run("return document.getElementById('spoken').textContent") == f"{expected} found"


@pytest.mark.parametrize("dimensions", [1, 3])
def test_maps_of_one_and_three_dimensions_are_drawn(browser: Page, tmp_path: Path, dimensions: int) -> None:
    page = opened(browser, tmp_path / "map.html", dimensions)
    assert len(np.unique(picture(page)[200:].reshape(-1, 3), axis=0)) > 500
    assert page.errors() == []
