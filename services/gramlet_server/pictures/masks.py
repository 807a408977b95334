"""Masks: gray pictures that select a part of a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from gramlet.errors import InvalidInput
from gramlet.types import Array, Limits, Picture, Resize
from numpy.typing import NDArray
from PIL import Image

from gramlet_server.pictures.decode import decode
from gramlet_server.pictures.resize import array_size, check_array, resample_array
from gramlet_server.process.memory_budget import PROCESS

LUMINANCE = (0.299, 0.587, 0.114)
"""The share of red, green and blue in the luminance (ITU-R BT.601), which is the Y of YIQ."""

_REGION_BYTES = 12
"""For each number of a mask: itself as floats, and copies while it becomes a region."""

ASPECT_TOLERANCE = 0.01
"""The largest relative difference between the aspect ratios of a mask and of its picture."""


def region(mask: Picture, limits: Limits, field: str = "region") -> Array:
    """The region that a mask selects, at the size of the mask.

    Args:
        mask: A picture that is white inside of the region, black outside and gray in between; transparent pixels are
            outside. Or (H, W), uint8 or floating point in 0..1. 8-bit masks of levels 0 and 1 alone are taken as black
            and white.
        limits: `picture_bytes` and `decoded_pixels` are checked.
        field: Where the mask is in the request, for errors.

    Returns:
        (H, W) float32, from 1 inside to 0 outside.

    Raises:
        InvalidInput: As for `prepare`, or the mask selects nothing.
    """
    levels = decode(mask, limits, field, background="black") if isinstance(mask, bytes) else mask
    return PROCESS.make(_REGION_BYTES * levels.size, lambda: _selected(levels, field), field)


def _selected(levels: NDArray[Any], field: str) -> Array:
    if levels.dtype == np.uint8 and levels.max(initial=0) == 1:
        levels = levels * np.uint8(255)  # 0 and 1 were meant as outside and inside
    if levels.ndim == 2:
        found = levels.astype(np.float32) / np.float32(255) if levels.dtype == np.uint8 else levels.astype(np.float32)
    else:
        check_array(levels, field)
        channels = resample_array(levels, Resize(), array_size(levels))
        found = np.tensordot(np.array(LUMINANCE, np.float32), channels, 1)
    found = found.clip(0, 1)
    if not found.max(initial=0) > 0:  # the comparison is false for NaN as well
        raise InvalidInput("the mask is black everywhere: paint the region white", field=field)
    return found


def fit_region(region: Array, height: int, width: int, field: str = "region") -> Array:
    """A region (H, W) resized to its picture, (height, width).

    Raises:
        InvalidInput: As for `check_aspect`.
    """
    check_aspect(region, height, width, field)
    return stretch_region(region, height, width)


def check_aspect(region: Array, height: int, width: int, field: str = "region") -> None:
    """Refuses a region (H, W) whose mask was not drawn over the whole picture, which has height x width pixels.

    Raises:
        InvalidInput: The aspect ratios differ by more than 1 %, and by more than rounding to whole pixels explains.
    """
    rows, columns = region.shape
    if not _same_aspect(rows, columns, height, width):
        raise InvalidInput(
            f"the mask is {columns} x {rows} and its picture {width} x {height}: draw it over the whole picture, at "
            "any size of the same aspect ratio",
            field=field,
        )


def stretch_region(region: Array, height: int, width: int) -> Array:
    """A region (H, W) in 0..1 at another size: box means if there are fewer pixels then, else linear interpolation."""
    if region.shape == (height, width):
        return region
    image = Image.fromarray(np.ascontiguousarray(region, dtype=np.float32))
    smaller = region.size > height * width
    resized = image.resize((width, height), Image.Resampling.BOX if smaller else Image.Resampling.BILINEAR)
    return np.asarray(resized).clip(0, 1)


def _same_aspect(rows: int, columns: int, height: int, width: int) -> bool:
    if abs(columns * height - rows * width) <= ASPECT_TOLERANCE * rows * width:
        return True
    # The mask may be the resized picture, or the picture the resized mask. Its sides were then rounded to whole pixels.
    mask_of_picture = ((rows, height * columns / width), (columns, width * rows / height))
    picture_of_mask = ((height, rows * width / columns), (width, columns * height / rows))
    return any(abs(side - exact) < 1 for side, exact in (*mask_of_picture, *picture_of_mask))
