"""Augmented views of a training picture: random crops, half of them mirrored, drawn by the picture's hash."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gramlet.types import Limits, Picture, Pixels
from numpy.typing import NDArray
from PIL import Image

from gramlet_server.pictures.decode import decode
from gramlet_server.pictures.encode import to_uint8

AREA = (0.35, 1.0)
ASPECT = (3 / 4, 4 / 3)


def augmented(picture: Picture, sha256: str, view: int, size: int, limits: Limits) -> Pixels:
    """An augmented view of a picture, (size, size, 3) in uint8. The same hash and view give the same pixels.

    A crop of 35 to 100 % of the area with an aspect of 3:4 to 4:3, mirrored with probability 1/2: the augmentation of
    ImageNet training (Szegedy et al., CVPR 2015) with larger crops, since the pictures are whole photographs.

    Args:
        picture: An encoded picture, or pixels.
        sha256: Its hash.
        view: Number of the view, from 1.
        size: Side of the square, in pixels.
        limits: Of pictures.

    Raises:
        InvalidInput: The picture cannot be read.
    """
    pixels = _pixels(picture, limits)
    rng = np.random.default_rng([int(sha256[:16], 16), view])
    box = _box(rng, pixels.shape[1], pixels.shape[0])
    image = Image.fromarray(pixels).resize((size, size), Image.Resampling.LANCZOS, box=box)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(image)


def _box(rng: np.random.Generator, width: int, height: int) -> tuple[float, float, float, float]:
    area = rng.uniform(*AREA) * width * height
    aspect = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
    w, h = min(math.sqrt(area * aspect), width), min(math.sqrt(area / aspect), height)
    left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
    return left, top, min(left + w, width), min(top + h, height)


def _pixels(picture: Picture, limits: Limits) -> NDArray[Any]:
    if isinstance(picture, bytes):
        return decode(picture, limits)
    if picture.dtype == np.uint8:
        return np.ascontiguousarray(picture)
    return to_uint8(picture.astype(np.float32, copy=False))
