"""The tabs Map, Heads, Sweep and See in a real browser: their main paths, with names that are attacks."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

from tests.embed.browser import Page
from tests.studio.conftest import StudioProcess
from tests.studio.test_page import at, choose_samples, keep, run_of

HOSTILE = "<img src=x onerror=document.title=2>"
CHOOSE = "const v = document.querySelector('.map').view; v.choose(v.items.map((_, i) => i).filter(i => %s))"


def choose_folder(page: Page, folder: Path) -> None:
    page.choose_files(".folder input[type=file]", [folder])
    page.until("document.querySelector('.summary')")


def test_a_folder_becomes_a_map_whose_regions_become_a_classifier(
    browser: Page, studio: StudioProcess, folder: Path
) -> None:
    page = at(browser, studio, "/map")
    choose_folder(page, folder)
    assert "24 pictures" in page.run("return document.querySelector('.summary').textContent")
    assert "notes.txt" in page.run("return document.querySelector('.summary details').textContent")
    page.click("#make")
    page.until("document.querySelector('main').dataset.done")
    run_id = run_of(page)
    page.until("document.querySelector('.map').view.pictures.sheets[0].naturalWidth > 0")

    # A lasso around everything, by mouse, then names by class.
    page.click("#mode-lasso")
    left, top, right, bottom = page.run(
        "const r = document.querySelector('.map').getBoundingClientRect();"
        "return [r.left + 5, r.top + 5, r.right - 5, r.bottom - 5]"
    )
    page.drag([(left, top + 60), (right, top + 60), (right, bottom), (left, bottom)])
    page.until("document.getElementById('name').textContent === 'Name 24'")
    for name, label in ((HOSTILE, "red"), ("blue ones", "blue")):
        page.run(CHOOSE % f"v.items[i].label === '{label}'")
        page.run("document.getElementById('region').value = arguments[0]", name)
        page.click("#name")
    page.click("#learn")
    page.until("document.querySelector('main').dataset.recolored")
    assert "has the colors of" in page.run("return document.querySelector('.panel [role=status]').textContent")
    keep(page, "map-test")
    assert page.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")

    # The keyboard goes from picture to picture and says their names.
    page.press(".map", "\ue014", "\ue014")
    assert "named" in page.run("return document.querySelector('.hovercard figcaption').textContent")

    page = at(page, studio, f"/map/{run_id}")  # a reload: the names are still there
    page.until("document.querySelectorAll('.groups li').length === 2")
    names = studio.call("GET", f"/maps/{run_id}/names.csv").decode()
    assert names.count("blue ones") == 12
    with zipfile.ZipFile(io.BytesIO(studio.call("GET", f"/maps/{run_id}/names.zip"))) as archive:
        folders = {name.split("/")[0] for name in archive.namelist()}
        assert len(archive.namelist()) == 24
    assert len(folders) == 2
    assert not any(character in "".join(folders) for character in "<>/\\")
    assert page.run("return document.title") == "Map · gramlet studio"
    assert page.errors() == []


def test_a_folder_becomes_a_head_whose_matrix_opens_the_pictures(
    browser: Page, studio: StudioProcess, folder: Path
) -> None:
    page = at(browser, studio, "/heads")
    choose_folder(page, folder)
    page.run("document.getElementById('name').value = 'colors'")
    page.run("document.getElementById('epochs').value = 8")
    page.click("#train")
    page.until("document.querySelector('main').dataset.done")
    run_id = run_of(page)
    assert "ready" in page.run("return document.getElementById('words').textContent")
    shown = studio.call("GET", f"/trainings/{run_id}/validation")["pictures"]
    assert len(shown) == 4  # a fifth of each class
    page.click(".cell")
    page.until("document.querySelector('dialog .thumbs img').naturalWidth > 0")
    page.run("document.querySelector('dialog').close()")
    page.choose_files(".row .file input", [folder / "blue" / "blue1.png"])
    page.until("document.querySelector('dialog .classes')")
    keep(page, "heads-test")
    assert page.run("return document.title") == "Heads · gramlet studio"
    assert page.errors() == []


def test_changes_to_suspects_are_trained_again(studio: StudioProcess, folder: Path) -> None:
    from tests.studio.test_backend import send_folder

    order = {"folder": send_folder(studio, folder), "name": "changed", "settings": {"kind": "linear", "epochs": 3}}
    order["changes"] = {"red/red1.png": "blue", "red/red2.png": None}
    run_id = studio.call("POST", "/trainings", order)["run"]
    result = next(event for _, event in studio.events("train", run_id) if event["event"] == "result")
    report = next(each for each in result["head"]["outcome"]["reports"] if each["set"] == "val")
    support = {each["label"]: each["support"] for each in report["classes"]}
    assert support == {"blue": 2, "red": 2}
    accepted = next(event for _, event in studio.events("train", run_id) if event["event"] == "accepted")
    assert accepted["pictures"] == 23


def test_a_sweep_fills_in_and_goes_on_from_a_cell(browser: Page, studio: StudioProcess) -> None:
    page = at(browser, studio, "/sweep")
    choose_samples(page)
    page.until("document.querySelectorAll('.stages input').length > 1")
    page.run("document.querySelectorAll('.stages input').forEach((box, i) => { box.checked = i < 2; })")
    page.run("document.getElementById('ratios').value = '0.5, 5'")
    page.run("document.getElementById('size').value = 64; document.getElementById('iterations').value = 3")
    page.click("#start")
    page.until("document.querySelector('main').dataset.done")
    page.until("document.querySelectorAll('.sweep img').length === 4")
    sweep = run_of(page)
    keep(page, "sweep-test")
    page.click(".sweep button")
    page.run("document.getElementById('full-size').value = 64; document.getElementById('full-iterations').value = 2")
    page.click("#go-on")
    page.until("document.querySelector('.stage')?.dataset.state === 'succeeded'")
    order = studio.call("GET", f"/runs/stylize/{run_of(page)}")["order"]
    assert order["from"] == sweep
    assert order["settings"]["content_weight"] == 0.5 * order["settings"]["style_weight"]
    assert len(order["settings"]["style_stages"]) == 1
    assert json.dumps(order["settings"])
    assert page.errors() == []


def test_a_channel_is_seen_in_the_pictures_of_a_folder(browser: Page, studio: StudioProcess, folder: Path) -> None:
    page = at(browser, studio, "/runs")
    page.until("document.getElementById('server').dataset.state === 'serving'")
    page.click("nav a[data-tab=see]")  # from another part, when the stages are known already
    page.until("document.querySelector('main').dataset.tab === 'see'")
    page.until("!document.getElementById('look').disabled")
    page.choose_files(".folder input[type=file]", [folder])
    page.until("document.querySelector('#source').selectedOptions[0].textContent.includes('(24)')")
    page.run("document.getElementById('stage').value = 'conv1'; document.getElementById('channel').value = 3")
    page.click("#look")
    page.until("document.querySelector('main').dataset.done")
    page.until("document.querySelector('.formed img').naturalWidth > 100")
    assert page.run("return location.pathname") == "/see/conv1:3"
    assert "Channel 3 of conv1, in 24 pictures" in page.run("return document.getElementById('words').textContent")
    shown = page.run("return [...document.querySelectorAll('.patches img')].map(image => image.naturalWidth > 0)")
    assert len(shown) == 2 * 9  # each with its projection
    assert all(shown)
    keep(page, "see-test")
    page.press(".patches button", "\ue007")  # by keyboard: the whole picture, with a box around the patch
    page.until("document.querySelector('dialog .boxed img').naturalWidth > 0")
    page.press("dialog button", "\ue00c")
    page.until("!document.querySelector('dialog')")
    page.run("document.getElementById('forms').click()")
    page.press("#next", "\ue007")
    page.until("location.pathname === '/see/conv1:4'")
    page.until("document.querySelector('main').dataset.done")
    assert page.run("return document.activeElement.id") == "next"
    assert page.run("return document.title") == "See · gramlet studio"
    assert page.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    page = at(page, studio, page.run("return location.pathname + location.search"))  # a reload looks again
    page.until("document.querySelector('main').dataset.done")
    assert page.errors() == []
