"""Masks are pictures, or arrays of one channel, in which 0 and 1 are outside and inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gramlet.errors import InvalidInput
from gramlet.inputs.pictures import read_mask
from gramlet.types import Limits
from gramlet_server.pictures.masks import region
from PIL import Image


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.bool_, np.float32, np.uint16])
@pytest.mark.parametrize("shape", [(6, 8), (1, 6, 8), (6, 8, 1)])
def test_masks_of_zero_and_one_are_outside_and_inside(kind: type[Any], shape: tuple[int, ...]) -> None:
    inside = np.tri(6, 8)
    most = 65535 if kind is np.uint16 else 1
    mask = (inside * most).astype(kind).reshape(shape)
    np.testing.assert_array_equal(region(read_mask(mask), Limits()), inside)


def test_a_file_with_levels_zero_and_one_is_such_a_mask_as_well() -> None:
    inside = np.tri(6, 8, dtype=np.uint8)
    for mode in ("L", "RGB"):
        np.testing.assert_array_equal(region(read_mask(Image.fromarray(inside).convert(mode)), Limits()), inside)
    gray = inside * np.uint8(2)
    np.testing.assert_allclose(region(read_mask(gray), Limits()), gray / 255, atol=1e-7)


def test_a_mask_is_a_picture_or_an_array_of_one_channel(tmp_path: Path) -> None:
    inside = np.tri(6, 8, dtype=bool)
    file = tmp_path / "mask.png"
    # Painted white on nothing: what is transparent is outside.
    Image.fromarray(np.dstack([np.full((6, 8, 3), 255, np.uint8), inside * np.uint8(255)])).save(file)
    gray = Image.fromarray(inside * np.uint8(255))
    for mask in (inside, inside * np.uint8(255), inside.astype(np.float64), gray, gray.convert("1"), file):
        np.testing.assert_array_equal(region(read_mask(mask), Limits()), inside.astype(np.float32))
    colors = np.stack([inside] * 3).astype(np.float32)
    np.testing.assert_allclose(region(read_mask(colors), Limits()), inside, atol=1e-6)
    for nothing in (np.zeros((6, 8), bool), Image.new("RGBA", (8, 6), (255, 255, 255, 0))):
        with pytest.raises(InvalidInput, match="black everywhere"):
            region(read_mask(nothing), Limits())
    with pytest.raises(InvalidInput, match=r"in 0\.\.1"):
        read_mask(np.full((6, 8), 1.5))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int64, np.float64, np.bool_, "I", "I;16"])
def test_masks_of_0_and_1_are_outside_and_inside_in_every_type(kind: Any) -> None:
    mask = np.eye(8)
    given = Image.fromarray(mask.astype(np.uint16)).convert(kind) if isinstance(kind, str) else mask.astype(kind)
    np.testing.assert_array_equal(region(read_mask(given), Limits()), mask)
