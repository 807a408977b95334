"""Pictures that the device decodes: which they are, how far their features are from the default's, and faults."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gramlet.errors import GramletError
from gramlet.feature.types import Extraction, Features, Form
from gramlet.types import Picture, Resize, ResizeMode
from gramlet_server.feature.device_decode import NVJPEG
from gramlet_server.feature.engine import Engine
from PIL import Image

Engines = Callable[..., Engine]

WHAT = Extraction(("avgpool",), (Form.POOLED,), resize=Resize(ResizeMode.CENTER_CROP, 64))


def smooth(seed: int, width: int = 96, height: int = 80, **how: object) -> bytes:
    """A JPEG that is smooth like a photograph."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", **how)  # type: ignore[arg-type]
    return file.getvalue()


def pooled(engine: Engine, pictures: list[Picture]) -> list[np.ndarray]:
    outcomes = list(engine.extract(pictures, WHAT))
    assert all(isinstance(outcome, Features) for outcome in outcomes)
    return [outcome.pooled["avgpool"] for outcome in outcomes if isinstance(outcome, Features)]


def test_features_are_near_those_of_the_default_decoder(engines: Engines) -> None:
    pictures: list[Picture] = [smooth(seed, 90 + seed % 3) for seed in range(24)]
    for found, expected in zip(pooled(engines(pixels=NVJPEG), pictures), pooled(engines(), pictures), strict=True):
        cosine = float(found @ expected / np.linalg.norm(found) / np.linalg.norm(expected))
        assert cosine > 0.99


def test_what_it_does_not_decode_has_the_default_s_features(engines: Engines) -> None:
    gray = io.BytesIO()
    Image.open(io.BytesIO(smooth(1))).convert("L").save(gray, "JPEG")
    pictures: list[Picture] = [smooth(0, progressive=True), gray.getvalue(), np.zeros((70, 70, 3), np.uint8)]
    for found, expected in zip(pooled(engines(pixels=NVJPEG), pictures), pooled(engines(), pictures), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_every_malformed_file_is_answered_as_by_default(engines: Engines) -> None:
    folder = Path(__file__).parents[3] / "shared" / "malformed"
    if not folder.exists():
        pytest.skip(f"{folder} is absent")
    pictures: list[Picture] = [path.read_bytes() for path in sorted(folder.glob("*")) if path.is_file()]
    answers = [list(engine.extract(pictures, WHAT)) for engine in (engines(pixels=NVJPEG), engines())]
    for found, expected in zip(*answers, strict=True):
        assert type(found) is type(expected)
        if isinstance(expected, GramletError):
            assert str(found) == str(expected)
