"""Pictures as PNG and JPEG files."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from gramlet.types import Array, Pixels
from PIL import Image


def to_uint8(picture: Array) -> Pixels:
    """(3, H, W) float32 to (H, W, 3) uint8; what is outside of 0..1 is clipped."""
    levels = np.rint(np.clip(picture, 0, 1) * np.float32(255))
    return np.ascontiguousarray(levels.astype(np.uint8).transpose(1, 2, 0))


def encode_png(picture: Array | Pixels) -> bytes:
    """A PNG file of a picture, (3, H, W) float or (H, W, 3) uint8. It holds pixels and nothing else."""
    return _encoded(picture, format="PNG")


def encode_jpeg(picture: Array | Pixels, quality: int = 90) -> bytes:
    """A JPEG file of a picture, (3, H, W) float or (H, W, 3) uint8. It holds pixels and nothing else."""
    return _encoded(picture, format="JPEG", quality=quality)


def _encoded(picture: Array | Pixels, **options: Any) -> bytes:
    pixels = picture if picture.dtype == np.uint8 else to_uint8(picture.astype(np.float32, copy=False))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, **options)
    return file.getvalue()
