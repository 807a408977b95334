"""The page in a real browser: the main path of each tab, hostile names, and what assistive technology finds."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.embed.browser import Page
from tests.studio.conftest import StudioProcess

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / "build" / "studio"


def at(page: Page, studio: StudioProcess, path: str) -> Page:
    """Opens a part of the studio."""
    page.visit(studio.url + path)
    page.until("document.querySelector('main').dataset.tab && document.querySelector('main').children.length > 0")
    return page


def keep(page: Page, name: str) -> None:
    """Keeps a screenshot for people: build/studio/."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    (SCREENSHOTS / f"{name}.png").write_bytes(page.screenshot())


def choose_samples(page: Page) -> None:
    """Chooses a photo and a style of the samples."""
    page.until("document.querySelectorAll('.sample').length >= 6")
    page.run("document.querySelector('.samples .sample').click()")
    page.run("document.querySelectorAll('.samples')[1].querySelector('.sample').click()")


def order_samples(page: Page, iterations: int = 8, size: int = 64) -> None:
    """Chooses two samples and small settings."""
    choose_samples(page)
    for name, value in (("size", size), ("iterations", iterations)):
        set_input(page, f"set-{name}", value, "change")


def set_input(page: Page, identifier: str, value: float, event: str) -> None:
    """Gives an input a value, as a user does: at once, since an event of the run may move a slider in between."""
    page.run(
        "const input = document.getElementById(arguments[0]); input.value = arguments[1];"
        "input.dispatchEvent(new Event(arguments[2]))",
        identifier,
        value,
        event,
    )


def keep_notes(page: Page) -> None:
    """Keeps the texts of notes in `window.notes`: each is shown for seconds, and a busy machine looks later."""
    page.run(
        "window.notes = [...document.querySelectorAll('.note')].map((note) => note.textContent);"
        "new MutationObserver((changes) => notes.push(...changes.flatMap(({ addedNodes }) =>"
        " [...addedNodes].map((note) => note.textContent)))).observe(document.getElementById('notes'),"
        " { childList: true })"
    )


def run_of(page: Page) -> str:
    return str(page.run("return location.pathname.split('/')[2]"))


def test_a_sample_is_stylized_reloaded_and_watched_from_a_second_window(browser: Page, studio: StudioProcess) -> None:
    page = at(browser, studio, "/stylize")
    assert page.run("return document.getElementById('start').disabled")
    order_samples(page)
    page.click("#start")
    page.until("location.pathname.startsWith('/stylize/')")
    page.until("document.querySelector('.stage').dataset.state === 'succeeded'")
    page.until("document.querySelector('.compare .after').naturalWidth === 64")
    assert "Done after 8 iterations" in page.run("return document.getElementById('words').textContent")
    assert page.run("return document.getElementById('save').getAttribute('href')").endswith("result.png?download")
    page.press(".compare input", "\ue014", "\ue014")  # right: the photo comes in
    assert page.run("return document.querySelector('.compare .before').style.clipPath") == "inset(0px 99% 0px 0px)"
    run_id = run_of(page)
    page = at(page, studio, f"/stylize/{run_id}")  # as a reload, or another window
    page.until("document.querySelector('.stage').dataset.state === 'succeeded'")
    assert page.run("return document.querySelectorAll('.style').length") == 1
    assert page.run("return document.getElementById('set-size').value") == "64"
    page.until("document.querySelector('.chart canvas').getAttribute('aria-label').includes('iteration 8')")
    keep(page, "stylize-test")
    assert page.errors() == []


def test_sliders_act_on_the_run_under_way_and_it_stops_and_goes_on(browser: Page, studio: StudioProcess) -> None:
    page = at(browser, studio, "/stylize")
    order_samples(page, iterations=10_000)
    page.click("#start")
    page.until("document.querySelector('.stage')?.dataset.state === 'running'")
    page.until("!document.getElementById('set-content_weight').disabled")
    keep_notes(page)
    set_input(page, "set-content_weight", 2, "input")
    page.until("window.notes.some((text) => text.startsWith('New weights from iteration'))")
    set_input(page, "set-style_size", 96, "change")
    assert "stroke size needs a restart" in page.run("return document.querySelector('.restart').textContent")
    page = at(page, studio, f"/stylize/{run_of(page)}")  # a reload in the middle: what has happened is there again
    page.until("document.querySelector('.chart canvas').getAttribute('aria-label').includes('from')")
    page.until("document.querySelector('.stage').dataset.state === 'running'")
    page.until("document.getElementById('set-content_weight').value === '2'")
    with page.second_window(f"{studio.url}/stylize/{run_of(page)}"):  # it watches, and may act as well
        page.until("document.querySelector('.stage')?.dataset.state === 'running'")
        page.click("#stop")
        page.until("document.querySelector('.stage').dataset.state === 'stopped'")
    page.until("document.querySelector('.stage').dataset.state === 'stopped'")
    page.click("#resume")
    page.until("document.querySelector('.stage').dataset.state === 'running'")
    page.click("#stop")
    page.until("document.querySelector('.stage').dataset.state === 'stopped'")
    page.click("#remove")
    page.click("dialog .danger")
    page.until("location.pathname === '/stylize'")
    assert page.errors() == []


def test_a_ratio_between_styles_restarts_and_a_fork_starts_from_the_picture_so_far(
    browser: Page, studio: StudioProcess
) -> None:
    page = at(browser, studio, "/stylize")
    order_samples(page, iterations=2000)
    page.run("document.querySelectorAll('.samples')[1].querySelectorAll('.sample')[1].click()")
    page.click("#start")
    page.until("/preview/.test(document.querySelector('.compare .after')?.src)")
    first = run_of(page)
    page.run(
        "const share = document.querySelectorAll('.ratio input')[1]; share.value = 0.5;"
        "share.dispatchEvent(new Event('input'))"
    )
    assert "ratio between the styles needs a restart" in page.run(
        "return document.querySelector('.restart').textContent"
    )
    page.click("#restart")
    page.until(f"location.pathname.split('/')[2] !== '{first}'")
    page.until("/preview/.test(document.querySelector('.compare .after')?.src)")
    second = run_of(page)
    page.click("#fork")
    page.until(f"location.pathname.split('/')[2] !== '{second}'")
    page.until("document.querySelector('.stage')?.dataset.state === 'running'")
    orders = [studio.call("GET", f"/runs/stylize/{each}")["order"] for each in (second, run_of(page))]
    for order in orders:
        assert [style["weight"] for style in order["styles"]] == [1, 0.5]
    assert [bool(order.get("initial")) for order in orders] == [False, True]
    assert studio.call("GET", f"/runs/stylize/{first}")["state"] == "stopped"
    for run_id in (second, run_of(page)):
        studio.call("POST", f"/runs/stylize/{run_id}/stop")
    assert page.errors() == []


def test_a_style_is_confined_to_a_region(browser: Page, studio: StudioProcess) -> None:
    page = at(browser, studio, "/stylize")
    order_samples(page)
    page.until("document.querySelector('.paint')")
    page.click(".paint")
    page.until("document.querySelector('.easel canvas').width > 300")
    box = page.run(
        "const r = document.querySelector('.easel canvas').getBoundingClientRect(); return [r.x, r.y, r.width]"
    )
    page.drag([(box[0] + 20, box[1] + 40), (box[0] + box[2] - 20, box[1] + 40)])  # by brush, on the photo
    page.run(
        "document.querySelectorAll('.easels .chips')[1].querySelector('button').click()"
    )  # by button, on the style
    page.click("#regions-done")
    page.until("document.querySelector('.paint.on')")
    page.click("#start")
    page.until("document.querySelector('.stage')?.dataset.state === 'succeeded'")
    (style,) = studio.call("GET", f"/runs/stylize/{run_of(page)}")["order"]["styles"]
    for name in ("content_region", "style_region"):
        mask = np.asarray(
            Image.open(io.BytesIO(studio.call("GET", f"/pictures/{style[name]}/jpeg?side=64"))).convert("L")
        )
        assert 0.02 < (mask > 127).mean() < 0.6
    assert page.errors() == []


def test_pictures_come_from_disk_and_hostile_ones_are_rejected_in_words(
    browser: Page, studio: StudioProcess, folder: Path, tmp_path: Path
) -> None:
    page = at(browser, studio, "/stylize")
    hostile = tmp_path / "<script>document.title='owned'</script>.svg"
    hostile.parent.mkdir(parents=True, exist_ok=True)
    hostile.write_text("<svg xmlns='http://www.w3.org/2000/svg' onload='document.title=1'/>")
    keep_notes(page)
    page.choose_files(".content input[type=file]", [hostile])
    page.until("window.notes.some((text) => text.includes('not a picture'))")
    page.choose_files(".content input[type=file]", [folder / "blue" / "blue0.png"])
    page.until("document.querySelector('.content.filled img')?.naturalWidth > 0")
    assert page.run("return document.title") == "Stylize · gramlet studio"
    assert page.errors() == []


def test_the_gallery_shows_compares_and_deletes(browser: Page, studio: StudioProcess) -> None:
    runs = []
    for _ in range(2):
        run_id = studio.call("POST", "/stylizations", studio.sample_order())["run"]
        studio.events("stylize", run_id)
        runs.append(run_id)
    page = at(browser, studio, "/runs")
    for run_id in runs:
        page.until(f"document.querySelector('[data-run=\"{run_id}\"] img')?.naturalWidth > 0")
        page.run(f"document.querySelector('[data-run=\"{run_id}\"] input').click()")
    page.run("[...document.querySelectorAll('button')].find(b => b.textContent === 'Compare two').click()")
    page.until("document.querySelector('dialog .after').naturalWidth === 64")
    page.run("document.querySelector('dialog').close()")
    page.resize(390, 844)
    assert page.run("return document.documentElement.scrollWidth <= 390")
    page.resize(1200, 800)
    page.run(f"document.querySelector('[data-run=\"{runs[0]}\"] [aria-label^=Delete]').click()")
    page.click("dialog .danger")
    page.until(f"!document.querySelector('[data-run=\"{runs[0]}\"]')")
    assert page.errors() == []


@pytest.mark.parametrize("width", [320, 390, 768, 1440])
def test_the_frame_fits_narrow_windows(browser: Page, studio: StudioProcess, width: int) -> None:
    browser.resize(width, 800)
    page = at(browser, studio, "/see")
    page.until("document.getElementById('server').dataset.state === 'serving'")
    brand, theme, last = page.run(
        "return ['.brand', '#theme', 'nav a:last-child']"
        ".map((each) => document.querySelector(each).getBoundingClientRect())"
        ".map(({ top, bottom, left, right }) => ({ middle: (top + bottom) / 2, left, right }))"
    )
    assert abs(brand["middle"] - theme["middle"]) < 8  # on one line
    assert brand["right"] < theme["left"]
    assert max(theme["right"], last["right"]) <= width
    assert page.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    page.resize(1200, 800)


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program axe-core, in the version of package-lock.json. Skips the test without npm."""
    if not shutil.which("npm"):
        pytest.skip("npm is absent: axe-core cannot be installed")
    here = tmp_path_factory.mktemp("axe")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(Path(__file__).with_name(name), here)
    command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    subprocess.run(command, cwd=here, check=True, capture_output=True)
    return (here / "node_modules" / "axe-core" / "axe.min.js").read_text()


def test_axe_finds_nothing_serious(browser: Page, studio: StudioProcess, axe: str) -> None:
    run_id = studio.call("POST", "/stylizations", studio.sample_order())["run"]
    studio.events("stylize", run_id)
    for path in ("/stylize", f"/stylize/{run_id}", "/runs", "/map", "/heads", "/sweep", "/see", "/see/conv1:0"):
        for scheme in ("dark", "light"):
            browser.prefer(scheme)
            page = at(browser, studio, path)
            if path.endswith(":0"):
                page.until("document.querySelector('.patches img')?.naturalWidth > 0")
            page.run(axe)
            found = page.run_async("axe.run().then(r => done(r.violations))")
            serious = [
                (each["id"], [node["html"][:200] for node in each["nodes"]])
                for each in found
                if each["impact"] in ("serious", "critical")
            ]
            assert serious == [], (path, scheme)
