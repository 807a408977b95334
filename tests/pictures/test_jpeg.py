"""Color JPEGs are decoded outside of Pillow, with Pillow's bits and Pillow's answers."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from gramlet.errors import InvalidInput
from gramlet.types import Limits, Pixels, Resize, ResizeMode
from gramlet_server.pictures import decode as decoding
from gramlet_server.pictures.decode import read_pixels, reduce_while_decoding, refuse_broken_files
from gramlet_server.pictures.headers import open_file
from PIL import Image

SHARED = Path(__file__).parents[3] / "shared"
REAL = decoding._jpeg_pixels
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
        with refuse_broken_files("picture"):
            image = open_file(file, Limits(), "picture")
            reduce_while_decoding(image, resize)
            return read_pixels(image, file, "picture")
    except InvalidInput as error:
        return error.message


def check_same(file: bytes, monkeypatch: pytest.MonkeyPatch) -> int:
    """Compares both ways at all sizes; returns how often the fast way was taken."""
    taken = []

    def counted(image: Image.Image, data: bytes) -> Pixels | None:
        pixels = REAL(image, data)
        taken.extend([1] * (pixels is not None))
        return pixels

    for resize in SIZES:
        answers = []
        for way in (counted, lambda image, data: None):
            with monkeypatch.context() as patch:
                patch.setattr(decoding, "_jpeg_pixels", way)
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
