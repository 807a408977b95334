"""Color JPEGs are decoded outside of Pillow, with Pillow's bits and Pillow's answers."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from gramlet.errors import InvalidInput
from gramlet.types import Limits, Pixels, Resize, ResizeMode
from gramlet_server.pictures import decode as decoding
from gramlet_server.pictures import prepare as preparing
from gramlet_server.pictures.decode import DRAFT_MARGIN, reduction
from gramlet_server.pictures.headers import is_shown_as_stored, open_file, plain_jpeg_size
from gramlet_server.pictures.prepare import decode_for
from PIL import Image

SHARED = Path(__file__).parents[3] / "shared"
REAL = decoding.plain_pixels
SIZES = (Resize(), *(Resize(ResizeMode.CENTER_CROP, size) for size in (96, 40, 12)))


def picture(random: np.random.Generator) -> Image.Image:
    """Of an odd size: a gradient with noise, so that chroma subsampling shows."""
    height, width = random.integers(1, 300, 2)
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([rows * 3, columns * 2, rows + columns], axis=2) + random.integers(0, 40, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def read(file: bytes, resize: Resize) -> Pixels | str:
    """The pixels, or why there are none."""
    try:
        return decode_for(file, resize, Limits(), most_pixels=10**9).pixels
    except InvalidInput as error:
        return error.message


def check_same(file: bytes, monkeypatch: pytest.MonkeyPatch) -> int:
    """Compares both ways at all sizes; returns how often the fast way was taken."""
    taken = []

    def counted(*given: Any) -> Pixels | None:
        pixels = REAL(*given)
        taken.extend([1] * (pixels is not None))
        return pixels

    for resize in SIZES:
        answers = []
        for way in (counted, lambda *_: None):
            with monkeypatch.context() as patch:
                patch.setattr(decoding, "plain_pixels", way)
                patch.setattr(preparing, "plain_pixels", way)
                answers.append(read(file, resize))
        assert type(answers[0]) is type(answers[1])
        assert np.array_equal(*answers)
    return len(taken)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "rgb"])
def test_color_jpegs_have_pillows_bits_at_every_scale(
    subsampling: str, progressive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    how = {"keep_rgb": True} if subsampling == "rgb" else {"subsampling": subsampling}
    for quality in (10, 60, 95):
        file = io.BytesIO()
        picture(random).save(file, "JPEG", quality=quality, progressive=progressive, **how)
        assert check_same(file.getvalue(), monkeypatch) == len(SIZES)


@pytest.mark.parametrize("subsampling", ["411", "440"])
def test_rare_subsamplings_have_pillows_bits_at_every_scale(subsampling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(2)
    for quality in (10, 60, 95):
        pixels = np.array(picture(random))
        file = simplejpeg.encode_jpeg(pixels, quality, colorsubsampling=subsampling)
        assert check_same(file, monkeypatch) == len(SIZES)


def test_samples_and_broken_files_have_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [*SHARED.glob("samples/*/*.jpg"), *SHARED.glob("malformed/*")]
    if not paths:
        pytest.skip(f"no samples in {SHARED}")
    assert sum(check_same(path.read_bytes(), monkeypatch) for path in paths if path.is_file()) > len(SIZES)


def test_mutated_files_have_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    for _ in range(60):
        file = io.BytesIO()
        picture(random).save(file, "JPEG", progressive=bool(random.integers(2)))
        data = bytearray(file.getvalue())
        for place in random.integers(0, len(data), random.integers(1, 4)):
            data[place] = random.integers(256)
        check_same(bytes(data[: random.integers(len(data) // 2, len(data) + 1)]), monkeypatch)


def test_what_is_a_plain_jpeg_by_a_look_at_it_is_one_for_pillow(malformed: Path, samples: Path) -> None:
    files = [path.read_bytes() for path in [*malformed.glob("*"), *samples.glob("*/*.jpg")] if path.is_file()]
    found = 0
    for data in files:
        if (size := plain_jpeg_size(data, Limits())) is not None:
            image = open_file(data, Limits(), "picture")
            assert (image.format, image.mode, (image.height, image.width)) == ("JPEG", "RGB", size)
            assert is_shown_as_stored(image, data)
            found += 1
    assert found > 10


@pytest.mark.parametrize("side", [3, 16, 31, 100, 1000, 4001])
def test_a_jpeg_is_reduced_by_the_factor_that_pillow_chooses(side: int) -> None:
    data = io.BytesIO()
    Image.new("RGB", (side, side + 7)).save(data, "JPEG")
    for size in (1, 2, 5, 30, 124, 125, 126, 249, 500, 2000):
        image = open_file(data.getvalue(), Limits(), "picture")
        factor = DRAFT_MARGIN * size / side
        image.draft(None, (math.ceil(side * factor), math.ceil((side + 7) * factor)))
        reduced = reduction(side + 7, side, Resize(ResizeMode.SHORTEST_SIDE, size))
        assert image.size == (-(-side // reduced), -(-(side + 7) // reduced))
        image = open_file(data.getvalue(), Limits(), "picture")
        image.draft(None, (side // reduced, (side + 7) // reduced))
        assert image.size == (-(-side // reduced), -(-(side + 7) // reduced))
