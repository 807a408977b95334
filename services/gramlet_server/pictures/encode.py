"""Pictures become PNG and JPEG files, which hold pixels and no metadata."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from gramlet.types import Array, Pixels
from PIL import Image


def to_uint8(picture: Array) -> Pixels:
    """(3, H, W) float32 to (H, W, 3) uint8; values outside of 0..1 are clipped."""
    levels = np.rint(np.clip(picture, 0, 1) * np.float32(255))
    return np.ascontiguousarray(levels.astype(np.uint8).transpose(1, 2, 0))


def encode_png(picture: Array | Pixels) -> bytes:
    """The PNG file of a picture: (3, H, W) floating point in 0..1, or uint8, (H, W, 3) or with alpha (H, W, 4)."""
    return _encode(picture, format="PNG")


def encode_jpeg(picture: Array | Pixels, quality: int = 90, *, whole_colors: bool = False) -> bytes:
    """The JPEG file of a picture, (3, H, W) floating point in 0..1 or (H, W, 3) uint8.

    Args:
        picture: The picture.
        quality: Pillow's, 0..95.
        whole_colors: Store the colors of every pixel, rather than of every second one along each axis.
    """
    return _encode(picture, format="JPEG", quality=quality, subsampling="4:4:4" if whole_colors else "4:2:0")


def _encode(picture: Array | Pixels, **options: Any) -> bytes:
    pixels = picture if picture.dtype == np.uint8 else to_uint8(picture.astype(np.float32, copy=False))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, **options)
    return file.getvalue()
