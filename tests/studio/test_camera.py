"""Photos by the camera, which is Chromium's fake one: a green picture with a clock in it."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.embed.browser import Page, chromium
from tests.studio.conftest import StudioProcess
from tests.studio.test_backend import send_folder
from tests.studio.test_page import at, keep

CAMERA = "[...document.querySelectorAll('main button')].find((button) => button.textContent === 'Camera')"


@pytest.fixture(scope="module")
def photographer() -> Iterator[Page]:
    """A browser with a camera."""
    os.environ.setdefault("NO_PROXY", "127.0.0.1,localhost")
    with chromium("--use-fake-device-for-media-stream", offline=False) as page:
        yield page


def open_camera(page: Page) -> None:
    page.until(CAMERA)
    page.run(f"{CAMERA}.click()")


def test_a_photo_of_the_camera_is_the_content_of_a_stylization(photographer: Page, studio: StudioProcess) -> None:
    page = at(photographer, studio, "/stylize")
    page.permit("camera", "granted")
    open_camera(page)
    page.until(
        "document.querySelector('dialog .viewfinder')?.videoWidth > 0 && !document.querySelector('.viewfinder').hidden"
    )
    keep(page, "camera-test")
    page.click("dialog .primary")
    page.until("document.querySelector('.content.filled img')?.naturalWidth > 0")
    assert not page.run("return document.querySelector('dialog')")
    identifier = page.run("return /pictures.([0-9a-f]+)/.exec(document.querySelector('.content img').src)[1]")
    shown = np.asarray(
        Image.open(io.BytesIO(studio.call("GET", f"/pictures/{identifier}/jpeg?side=160"))).convert("RGB")
    )
    red, green, blue = shown.reshape(-1, 3).mean(0)
    assert green > 1.3 * max(red, blue)
    assert page.errors() == []


def test_a_head_is_tried_on_a_photo_of_the_camera(photographer: Page, studio: StudioProcess, folder: Path) -> None:
    order = {"folder": send_folder(studio, folder), "name": "seen", "settings": {"kind": "linear", "epochs": 2}}
    run_id = studio.call("POST", "/trainings", order)["run"]
    studio.events("train", run_id)
    page = at(photographer, studio, f"/heads/{run_id}")
    page.permit("camera", "granted")
    open_camera(page)
    page.until("document.querySelector('dialog .primary')?.disabled === false")
    page.run("window.track = document.querySelector('.viewfinder').srcObject.getTracks()[0]")
    page.press("dialog .primary", "\ue007")
    page.until("document.querySelector('dialog .classes')")
    assert page.run("return track.readyState") == "ended"  # the camera's lamp goes out
    assert page.run("return document.querySelectorAll('dialog .classes li').length") == 2
    keep(page, "camera-head-test")
    assert page.errors() == []


def test_a_camera_that_is_not_allowed_or_not_there_is_said(
    photographer: Page, browser: Page, studio: StudioProcess
) -> None:
    page = at(photographer, studio, "/stylize")
    page.permit("camera", "denied")
    open_camera(page)
    page.until("/not allowed/.test(document.querySelector('dialog .hint').textContent)")
    assert page.run("return document.querySelector('dialog .primary').disabled")
    keep(page, "camera-denied-test")
    assert page.errors() == []

    page = at(browser, studio, "/stylize")
    page.permit("camera", "granted")
    open_camera(page)
    page.until("/No camera was found/.test(document.querySelector('dialog .hint').textContent)")
    page.press("dialog button", "\ue00c")
    page.until("!document.querySelector('dialog')")
    assert page.errors() == []
