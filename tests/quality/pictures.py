"""The pictures of the comparison: the project's samples, photographs that come with packages, a painting drawn here."""

from __future__ import annotations

import io
import os
from importlib.resources import files
from pathlib import Path

from demo.painting import paint

SHARED = Path(__file__).parents[3] / "shared"

SAMPLES = {
    "tubingen": "content/tubingen.jpg",
    "golden_gate": "content/golden_gate.jpg",
    "starry_night": "style/starry_night.jpg",
}

PACKAGED = {
    "china": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    "astronaut": ("skimage", "data/astronaut.png"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "tissue": ("skimage", "data/ihc.png"),  # stained cells: a style of spots
}

PAIRS = (
    "tubingen:starry_night",
    "golden_gate:painting",
    "chelsea:starry_night",
    "china:painting",
    "coffee:tissue",
    "hopper:painting",
)
"""Content and style of what is compared unless told otherwise."""


def picture(name: str) -> bytes:
    """The encoded file of a picture: one of the names above, `painting`, or a path.

    Raises:
        FileNotFoundError: There is no such file; the samples may be elsewhere, in GRAMLET_TEST_SAMPLES.
    """
    if name in SAMPLES:
        return (Path(os.environ.get("GRAMLET_TEST_SAMPLES") or SHARED / "samples") / SAMPLES[name]).read_bytes()
    if name in PACKAGED:
        package, path = PACKAGED[name]
        return (files(package) / path).read_bytes()
    if name == "painting":
        file = io.BytesIO()
        paint().save(file, "PNG")
        return file.getvalue()
    return Path(name).read_bytes()
