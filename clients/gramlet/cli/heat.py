"""Heat maps drawn over the pictures that they belong to."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from gramlet.types import Array

SIDE = 448
_FOR, _AGAINST = np.array([220.0, 30.0, 30.0]), np.array([30.0, 80.0, 220.0])
_OPACITY = 0.6


def overlay(picture: Image.Image, heat: Array) -> bytes:
    """A PNG file: the central square of a picture, red where its class is seen and blue where other classes are.

    Args:
        picture: As it was classified.
        heat: (height, width) evidence; the strongest gets the full color.
    """
    side = min(picture.size)
    left, top = (picture.width - side) / 2, (picture.height - side) / 2
    square = picture.convert("RGB").resize(
        (SIDE, SIDE), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side)
    )
    scaled = heat / max(float(np.abs(heat).max()), 1e-12)
    smooth = np.asarray(Image.fromarray(scaled.astype(np.float32)).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    opacity = _OPACITY * np.clip(np.abs(smooth), 0, 1)[..., None]
    color = np.where(smooth[..., None] > 0, _FOR, _AGAINST)
    # Most of the picture's own color is taken out, so that the color of the map stands out.
    gray = np.asarray(square.convert("L"), dtype=np.float64)[..., None]
    pixels = (1 - opacity) * (0.5 * gray + 0.5 * np.asarray(square)) + opacity * color
    data = io.BytesIO()
    Image.fromarray(pixels.round().astype(np.uint8)).save(data, "PNG")
    return data.getvalue()
