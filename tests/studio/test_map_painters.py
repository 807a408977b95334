"""How the map is drawn: by WebGL, which is in software here, without it, and when the graphics card drops the map."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.embed.browser import Page, chromium
from tests.studio.conftest import StudioProcess
from tests.studio.test_backend import send_folder
from tests.studio.test_page import at, keep

SOFTWARE_GL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")
# The page refuses WebGL by the processor, which is slower than a 2D canvas. The tests have no other.
HIDE_SOFTWARE = """
const { getExtension } = WebGL2RenderingContext.prototype;
WebGL2RenderingContext.prototype.getExtension = function (name) {
  return name === 'WEBGL_debug_renderer_info' ? null : getExtension.call(this, name);
};
"""
VIEW = "document.querySelector('.map').view"
# The colors in the middle of each picture, and in the rim above it, as the painter has them.
LOOK = """
const { view } = document.querySelector('.map'), { canvas } = view.painter, copy = document.createElement('canvas');
view.paint();
[copy.width, copy.height] = [canvas.width, canvas.height];
const pen = copy.getContext('2d'), frame = view.frame();
pen.drawImage(canvas, 0, 0);
const color = (x, y, width, height) => {
  const { data } = pen.getImageData(x, y, width, height);
  return [0, 1, 2].map((channel) => data.filter((_, i) => i % 4 === channel).reduce((a, b) => a + b) / width / height);
};
return view.shown.map((index) => {
  const [x, y] = view.cornerOf(index, frame), middle = Math.floor(frame.side / 2);
  const inner = color(x + middle - 8, y + middle - 8, 16, 16), rim = color(x + middle, y - 2, 1, 1);
  return { label: view.items[index].label, x, y, middle: inner, rim };
});
"""


@pytest.fixture(scope="module")
def painter() -> Iterator[Page]:
    """A browser with WebGL."""
    os.environ.setdefault("NO_PROXY", "127.0.0.1,localhost")
    with chromium(*SOFTWARE_GL, offline=False) as page:
        page.before_pages(HIDE_SOFTWARE)
        yield page


@pytest.fixture(scope="module")
def map_run(studio: StudioProcess, folder: Path) -> str:
    """A map that is done."""
    run_id = str(studio.call("POST", "/maps", {"folder": send_folder(studio, folder), "settings": {}})["run"])
    studio.events("embed", run_id)
    return run_id


def opened(page: Page, studio: StudioProcess, run_id: str, painter: str) -> Page:
    page.resize(1200, 800)
    page = at(page, studio, f"/map/{run_id}")
    page.until(f"document.querySelector('.map').dataset.painter === '{painter}'")
    page.until("document.querySelector('main').dataset.done")
    page.until(f"{VIEW}.pictures.sheets[0].naturalWidth > 0 && {VIEW}.frames > 0 && !{VIEW}.waiting")
    return page


def hint(page: Page) -> str:
    return str(page.run("return document.querySelector('.mapstage .hint:not([hidden])')?.textContent ?? ''"))


def test_webgl_draws_what_the_canvas_draws(painter: Page, browser: Page, studio: StudioProcess, map_run: str) -> None:
    drawn = {}
    for name, page in (("webgl", painter), ("canvas", browser)):
        opened(page, studio, map_run, name)
        for zoom in (1, 1.4):  # the second with the larger pictures
            page.run(f"{VIEW}.fit(); {VIEW}.scale(arguments[0])", zoom)
            page.until(f"!{VIEW}.waiting && [...{VIEW}.pictures.large.values()].every(({{ cut }}) => cut)")
            drawn[name, zoom] = page.run(LOOK)
            keep(page, f"map-{name}-{zoom}-test")
        assert page.run(f"return {VIEW}.pictures.large.size") > 3
        assert page.errors() == []
    for zoom in (1, 1.4):
        for one, other in zip(drawn["webgl", zoom], drawn["canvas", zoom], strict=True):
            assert (one["x"], one["y"]) == (other["x"], other["y"])
            for part in ("middle", "rim"):
                assert max(abs(a - b) for a, b in zip(one[part], other[part], strict=True)) < 24, (part, one, other)
            red, _, blue = one["middle"]
            assert zoom > 1 or (red > blue) == (one["label"] == "red")
    assert hint(painter) == ""
    assert "Drawn on a 2D canvas" in hint(browser)


def test_the_mouse_the_keyboard_and_fingers_act_on_a_map_by_webgl(
    painter: Page, studio: StudioProcess, map_run: str
) -> None:
    page = opened(painter, studio, map_run, "webgl")
    left, top, right, bottom = page.run(
        "const r = document.querySelector('.map').getBoundingClientRect();"
        "return [r.left + 5, r.top + 60, r.right - 5, r.bottom - 5]"
    )
    page.click("#mode-lasso")
    page.drag([(left, top), (right, top), (right, bottom), (left, bottom)])
    page.until("document.getElementById('name').textContent === 'Name 24'")
    page.press(".map", "\ue014", "\ue012")
    assert page.run("return document.querySelector('.hovercard figcaption').textContent")
    assert page.run("return !document.querySelector('.ring').hasAttribute('hidden')")
    page.press(".map", "+", "+", "+", "+", "+", "+", "\ue014", "\ue014", "\ue015")  # those beyond the edge come in
    corner = page.run(f"return {VIEW}.cornerOf({VIEW}.hovered, {VIEW}.frame())")
    width, height = page.run(f"return [{VIEW}.width, {VIEW}.height]")
    assert -220 < corner[0] < width
    assert -220 < corner[1] < height
    page.press(".map", "\ue00c", "0")

    middle = ((left + right) / 2, (top + bottom) / 2)
    page.touch(
        [(middle[0] - 40, middle[1]), (middle[0] + 40, middle[1])],
        [(middle[0] - 80, middle[1]), (middle[0] + 80, middle[1])],
    )
    page.until(f"{VIEW}.zoom > 1.8")
    page.run(f"{VIEW}.fit(); {VIEW}.hover(-1)")
    x, y = page.run(
        f"const view = {VIEW}, [x, y] = view.cornerOf(view.shown[0], view.frame());"
        "const r = view.element.getBoundingClientRect();"
        "return [r.left + x + view.side / 2, r.top + y + view.side / 2]"
    )
    page.touch([(x, y)])  # a tap opens the card of a picture
    page.until("!document.querySelector('.hovercard').hidden")
    assert page.errors() == []


def test_the_map_is_sharp_on_a_fine_screen_and_follows_the_theme(
    painter: Page, studio: StudioProcess, map_run: str
) -> None:
    page = opened(painter, studio, map_run, "webgl")
    page.resize(390, 844, ratio=3)
    page.until(f"{VIEW}.painter.canvas.width === Math.round(document.querySelector('.map').clientWidth * 3)")
    page.resize(1200, 800)
    before = page.run(f"return {VIEW}.ink.accent")
    page.click("#theme")
    page.until(f"{VIEW}.ink.accent !== '{before}'")
    page.click("#theme")
    page.until(f"{VIEW}.ink.accent === '{before}'")
    assert page.errors() == []


def test_a_graphics_card_that_drops_the_map_is_done_without_and_taken_again(
    painter: Page, studio: StudioProcess, map_run: str
) -> None:
    page = opened(painter, studio, map_run, "webgl")
    page.run(f"window.card = {VIEW}.painter.renderer.gl.getExtension('WEBGL_lose_context');card.loseContext()")
    page.until("document.querySelector('.map').dataset.painter === 'canvas'")
    assert "graphics card dropped the map" in hint(page)
    page.until(f"!{VIEW}.waiting")
    assert any(max(each["middle"]) > 100 for each in page.run(LOOK))
    page.run("card.restoreContext()")
    page.until("document.querySelector('.map').dataset.painter === 'webgl'")
    assert hint(page) == ""
    page.until(f"!{VIEW}.waiting")
    assert any(max(each["middle"]) > 100 for each in page.run(LOOK))
    page.errors()  # the browser reports the loss itself
