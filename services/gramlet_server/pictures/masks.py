"""Masks: gray pictures that say which part of a picture counts."""

from __future__ import annotations

import numpy as np
from gramlet.errors import InvalidInput
from gramlet.types import Array, Limits, Picture, Resize
from PIL import Image

from gramlet_server.pictures.decode import LUMA, decode
from gramlet_server.pictures.resize import array_size, check_array, resampled_float

ASPECT_TOLERANCE = 0.01
"""How far a mask's aspect ratio may be from its picture's."""


def region(mask: Picture, limits: Limits, field: str = "region") -> Array:
    """A mask at its own size: (H, W) float32, 1 inside, 0 outside.

    Args:
        mask: A picture of white inside, black outside and gray in between; what is transparent in it is outside. Or
            (H, W) uint8 or floating point in 0..1.
        limits: As for `prepare`; `network_pixels` is not checked.
        field: Where the mask is in the request, for errors.

    Raises:
        InvalidInput: As for `prepare`, or nothing is inside.
    """
    if isinstance(mask, np.ndarray) and mask.ndim == 2:
        found = mask.astype(np.float32) / np.float32(255) if mask.dtype == np.uint8 else mask.astype(np.float32)
    else:
        picture = decode(mask, limits, field, background="black") if isinstance(mask, bytes) else mask
        check_array(picture, field)
        channels = resampled_float(picture, Resize(), array_size(picture))
        found = np.tensordot(np.array(LUMA, np.float32), channels, 1)
    found = found.clip(0, 1)
    if not found.max(initial=0) > 0:  # a NaN fails as well
        raise InvalidInput("the mask is black everywhere: paint white what is inside", field=field)
    return found


def fit_region(region: Array, height: int, width: int, field: str = "region") -> Array:
    """A region brought to the size of its picture.

    Raises:
        InvalidInput: As for `check_aspect`.
    """
    check_aspect(region, height, width, field)
    return stretch_region(region, height, width)


def check_aspect(region: Array, height: int, width: int, field: str = "region") -> None:
    """Refuses a region that was not drawn over the whole of its picture.

    Raises:
        InvalidInput: The aspect ratios differ by more than 1 %, and by more than sizes in whole pixels explain.
    """
    rows, columns = region.shape
    if not _same_aspect(rows, columns, height, width):
        raise InvalidInput(
            f"the mask is {columns} x {rows} and its picture {width} x {height}: draw it over the whole picture, at "
            "any size of the same aspect ratio",
            field=field,
        )


def stretch_region(region: Array, height: int, width: int) -> Array:
    """A region (H, W) at another size: means over what a pixel covers, or straight lines where it is enlarged."""
    if region.shape == (height, width):
        return region
    image = Image.fromarray(np.ascontiguousarray(region, dtype=np.float32))
    smaller = region.size > height * width
    resized = image.resize((width, height), Image.Resampling.BOX if smaller else Image.Resampling.BILINEAR)
    return np.asarray(resized).clip(0, 1)


def _same_aspect(rows: int, columns: int, height: int, width: int) -> bool:
    if abs(columns * height - rows * width) <= ASPECT_TOLERANCE * rows * width:
        return True
    # One of the two sizes may be the other's, with a side rounded to whole pixels.
    sides = ((rows, height * columns / width), (columns, width * rows / height))
    scaled = ((height, rows * width / columns), (width, columns * height / rows))
    return any(abs(side - exact) < 1 for side, exact in (*sides, *scaled))
