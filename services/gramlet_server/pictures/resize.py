"""Sizes of pictures, and resampling by Pillow's Lanczos filter."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gramlet.errors import InvalidInput
from gramlet.types import Array, Limits, Pixels, Resize, ResizeMode
from numpy.typing import NDArray
from PIL import Image

Box = tuple[float, float, float, float]
"""A part of a picture in pixels: left, top, right, bottom."""


def target_size(height: int, width: int, resize: Resize, field: str = "resize.size") -> tuple[int, int]:
    """Height and width of a picture after resizing, in pixels; no side is less than 1.

    Raises:
        InvalidInput: The size is not positive.
    """
    mode, size = resize.mode, resize.size
    if mode is ResizeMode.KEEP:
        return height, width
    if size < 1:
        raise InvalidInput(f"resize to {mode.value} needs a size of at least 1 pixel, not {size}", field=field)
    if mode in (ResizeMode.CENTER_CROP, ResizeMode.STRETCH):
        return size, size
    side = max(height, width) if mode is ResizeMode.LONGEST_SIDE else min(height, width)
    return max(1, round(height * size / side)), max(1, round(width * size / side))


def network_size(height: int, width: int, resize: Resize, limits: Limits, field: str) -> tuple[int, int]:
    """Height and width of a picture after resizing, in pixels.

    Raises:
        InvalidInput: The size is not positive, or it has more than `limits.network_pixels` pixels.
    """
    rows, columns = target_size(height, width, resize, field)
    if rows * columns > limits.network_pixels:
        longest = int(math.sqrt(limits.network_pixels * max(rows, columns) / min(rows, columns)))
        raise InvalidInput(
            f"{columns} x {rows} is {rows * columns:,} pixels; the network takes {limits.network_pixels:,}: "
            f"resize to a longest side of at most {longest}",
            field=field,
        )
    return rows, columns


def kept_box(width: int, height: int, resize: Resize) -> Box:
    """The part of a picture that is kept: left, top, right, bottom."""
    if resize.mode is not ResizeMode.CENTER_CROP:
        return 0, 0, width, height
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def resample(pixels: NDArray[Any], box: Box, height: int, width: int) -> NDArray[Any]:
    """A part of a picture, resampled by Pillow.

    Args:
        pixels: (H, W, 3) uint8, or (H, W) float32.
        box: The part, as `kept_box` returns it. The filter reads pixels outside of it.
        height, width: Of the result, in pixels.
    """
    if pixels.shape[:2] == (height, width) and box == (0, 0, width, height):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS, box=box))


def resample_array(picture: NDArray[Any], resize: Resize, target: tuple[int, int]) -> Array:
    """A checked picture resampled to `target` (height, width), as (3, H', W') float32.

    Args:
        picture: (H, W, 3) uint8, or (C, H, W) floating point.
        resize: Its mode says which part of the picture is kept.
        target: As `network_size` returned it.
    """
    height, width = array_size(picture)
    box = kept_box(width, height, resize)
    if picture.dtype == np.uint8:
        return to_float(resample(picture, box, *target))
    exact = np.ascontiguousarray(picture, dtype=np.float32)
    if exact.shape[1:] == target:
        return exact
    channels = [resample(channel, box, *target) for channel in exact]
    # Lanczos overshoots at edges: the values are clipped to the range of the picture.
    return np.stack(channels).clip(exact.min(), exact.max())


def to_float(pixels: Pixels) -> Array:
    """(H, W, 3) uint8 to (3, H, W) float32 in 0..1."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32) / np.float32(255)


def check_array(picture: NDArray[Any], field: str) -> None:
    """Refuses an array that is no picture.

    Raises:
        InvalidInput: It is neither (H, W, 3) uint8 nor (3, H, W) floating point in about 0..1.
    """
    pixels = picture.dtype == np.uint8
    if not pixels and not np.issubdtype(picture.dtype, np.floating):
        raise InvalidInput(f"pixels are uint8 or floating point, not {picture.dtype}", field=field)
    channels = picture.shape[2 if pixels else 0] if picture.ndim == 3 else 0
    if channels != 3 or picture.size == 0:
        wanted = "uint8 pixels are (height, width, 3)" if pixels else "floating-point pixels are (3, height, width)"
        raise InvalidInput(f"{wanted}, not {picture.shape}", field=field)
    if pixels:
        return
    lowest, highest = float(picture.min()), float(picture.max())
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise InvalidInput("the picture has pixels that are not finite numbers", field=field)
    if lowest < -1 or highest > 2:
        raise InvalidInput(
            f"floating-point pixels are in 0..1; these are in {lowest:g}..{highest:g}: divide by the level of white",
            field=field,
        )


def array_size(picture: NDArray[Any]) -> tuple[int, int]:
    """Height and width of a checked picture."""
    height, width = picture.shape[:2] if picture.dtype == np.uint8 else picture.shape[1:]
    return height, width
