"""Files and arrays become float arrays of the size that was asked for, or are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gramlet.errors import InvalidInput
from gramlet.types import Resize, ResizeMode
from gramlet_server.pictures.decode import decode
from gramlet_server.pictures.encode import to_uint8
from gramlet_server.pictures.prepare import prepare, stretch
from gramlet_server.pictures.resize import to_float
from PIL import Image

from .files import LIMITS, file, scene

KEEP = Resize()


@pytest.mark.parametrize(
    ("mode", "size", "shape"),
    [
        (ResizeMode.KEEP, 0, (48, 64)),
        (ResizeMode.LONGEST_SIDE, 32, (24, 32)),
        (ResizeMode.SHORTEST_SIDE, 24, (24, 32)),
        (ResizeMode.CENTER_CROP, 24, (24, 24)),
        (ResizeMode.STRETCH, 20, (20, 20)),
        (ResizeMode.LONGEST_SIDE, 128, (96, 128)),
    ],
)
def test_each_resize_mode_gives_its_shape(mode: ResizeMode, size: int, shape: tuple[int, int]) -> None:
    resize = Resize(mode, size)
    floats = to_float(scene())
    for picture in (file(scene(), "PNG"), scene(), floats):
        assert prepare(picture, resize, LIMITS).shape == (3, *shape)


def test_a_file_and_its_pixels_and_its_floats_are_resized_alike() -> None:
    resize = Resize(ResizeMode.LONGEST_SIDE, 30)
    found = [prepare(p, resize, LIMITS) for p in (file(scene(), "PNG"), scene(), to_float(scene()))]
    assert np.array_equal(found[0], found[1])
    assert np.abs(found[0] - found[2]).mean() < 1 / 255  # uint8 is clipped between the two directions


def test_resizing_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = prepare(stripes, Resize(ResizeMode.STRETCH, 8), LIMITS)
    assert np.abs(small - 0.5).max() < 8 / 255  # taking every second column would give 0 or 1


def test_center_crop_is_the_middle_of_the_resized_picture() -> None:
    found = prepare(scene(), Resize(ResizeMode.CENTER_CROP, 24), LIMITS)
    whole = prepare(scene(), Resize(ResizeMode.SHORTEST_SIDE, 24), LIMITS)
    assert np.abs(found - whole[:, :, 4:28]).max() < 0.05


def test_floats_keep_their_own_range() -> None:
    edge = np.zeros((3, 20, 20), np.float32)
    edge[:, :, 10:] = 1
    found = prepare(edge, Resize(ResizeMode.STRETCH, 33), LIMITS)
    assert found.min() == 0
    assert found.max() == 1


def test_stretching_gives_the_shape_asked_for() -> None:
    for picture in (file(scene(), "PNG"), scene(), to_float(scene())):
        assert stretch(picture, 30, 20, LIMITS).shape == (3, 30, 20)


@pytest.mark.parametrize("mode", [mode for mode in ResizeMode if mode is not ResizeMode.KEEP])
def test_a_size_of_nothing_is_refused(mode: ResizeMode) -> None:
    with pytest.raises(InvalidInput, match="at least 1 pixel"):
        prepare(scene(), Resize(mode, 0), LIMITS)


def test_a_jpeg_reduced_while_decoding_is_the_picture_resized(samples: Path) -> None:
    """Decoding at a quarter of the size first changes a photograph less than JPEG compression does."""
    photo = Image.open(samples / "content" / "tubingen.jpg").convert("RGB")
    large = photo.resize((photo.width * 2, photo.height * 2), Image.Resampling.BICUBIC)
    data = file(large, "JPEG", quality=95)
    resize = Resize(ResizeMode.LONGEST_SIDE, 128)
    found = prepare(data, resize, LIMITS)
    expected = prepare(decode(data, LIMITS), resize, LIMITS)
    difference = np.abs(found - expected) * 255
    assert difference.mean() < 1
    assert difference.max() < 20


# --- arrays


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (np.zeros((3, 4, 5), np.uint8), r"\(height, width, 3\), not \(3, 4, 5\)"),
        (np.zeros((4, 5, 3), np.float32), r"\(3, height, width\), not \(4, 5, 3\)"),
        (np.zeros((4, 5), np.uint8), r"not \(4, 5\)"),
        (np.zeros((0, 5, 3), np.uint8), r"not \(0, 5, 3\)"),
        (np.zeros((3, 4, 5), np.int64), "not int64"),
        (np.full((3, 4, 5), np.nan, np.float32), "not finite"),
        (np.full((3, 4, 5), -np.inf, np.float32), "not finite"),
        (np.full((3, 4, 5), 255, np.float32), r"in 0\.\.1; these are in 255\.\.255"),
        ("picture.jpg", "bytes or an array, not str"),
        (b"", "empty"),
    ],
)
def test_arrays_of_another_kind_are_refused(picture: Any, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason) as caught:
        prepare(picture, KEEP, LIMITS, "objective.content")
    assert caught.value.field == "objective.content"


def test_floats_are_not_changed() -> None:
    picture = np.random.default_rng(0).normal(0.5, 0.1, (3, 9, 7)).astype(np.float32)
    picture[0, 0, 0] = 1.3
    assert np.array_equal(prepare(picture, KEEP, LIMITS), picture)
    assert np.array_equal(prepare(picture.astype(np.float64), KEEP, LIMITS), picture)


def test_levels_survive_the_conversion_to_floats_and_back() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    floats = to_float(levels)
    assert floats.shape == (3, 16, 16)
    assert floats.dtype == np.float32
    assert np.array_equal(to_uint8(floats), levels)
    assert to_uint8(np.full((3, 1, 1), 1.7, np.float32)).tolist() == [[[255, 255, 255]]]
