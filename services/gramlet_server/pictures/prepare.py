"""Pictures in any form that the API accepts become arrays as the network takes them.

A file goes through one row of calls: it is opened and its size is checked, it is decoded, converted to sRGB and turned
upright (`pictures.decode`), and it is resized (`pictures.resize`). Features are extracted from pictures that the device
resizes; `decode_for` stops before that.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from gramlet.types import Array, Limits, Picture, Pixels, Resize, ResizeMode
from numpy.typing import NDArray
from PIL import Image

from gramlet_server.pictures.decode import (
    decode,
    plain_pixels,
    read_pixels,
    reduce_while_decoding,
    reduction,
    refuse_broken_files,
)
from gramlet_server.pictures.headers import decoding_bytes, open_file, plain_bytes, plain_jpeg_size
from gramlet_server.pictures.offload import HERE, Kind, Task, offloaded
from gramlet_server.pictures.resize import (
    Box,
    array_size,
    check_array,
    kept_box,
    network_size,
    resample,
    resample_array,
    to_float,
)
from gramlet_server.process.memory_budget import PROCESS

MOST_TO_DEVICE = 2**20
"""Pictures of more pixels, such as a PNG of a camera's size, are resized where they are decoded: those that wait for
the device would take too much memory."""


@dataclass(frozen=True)
class Decoded:
    """A picture as it travels to the device, which converts it and resizes what is left to resize.

    Attributes:
        pixels: (H, W, 3) uint8, sRGB; or (3, height, width) float32, RGB in 0..1, in its final size.
        height, width: In pixels, as the network takes it.
        box: The part of the pixels that is resized: left, top, right, bottom.
    """

    pixels: NDArray[Any]
    height: int
    width: int
    box: Box

    @property
    def is_final(self) -> bool:
        """Whether its pixels have their final size."""
        return self.pixels.dtype != np.uint8 or (
            self.pixels.shape[:2] == (self.height, self.width) and self.box == (0, 0, self.width, self.height)
        )


def prepare(picture: Picture, resize: Resize, limits: Limits, field: str = "picture") -> Array:
    """A picture as the network takes it.

    Args:
        picture: An encoded file; or RGB pixels, either (H, W, 3) uint8 or (3, H, W) floating point in 0..1. Floats
            from -1 to 2, such as an optimizer's, are accepted and not clipped.
        resize: The size to bring it to.
        limits: `picture_bytes`, `decoded_pixels` and `network_pixels` are checked.
        field: Where the picture is in the request, for errors.

    Returns:
        (3, H', W') float32, RGB in 0..1.

    Raises:
        InvalidInput: The picture is broken, of an unknown format, too large, or not of that shape or range.
    """
    found = offloaded(picture, Task(Kind.RESIZED, limits, resize), field)
    if found is HERE:
        return floats(decode_for(picture, resize, limits, field, most_pixels=0), field)
    return floats(found if found.is_final else _resized(found), field)


def floats(decoded: Decoded, field: str = "picture") -> Array:
    """A decoded picture of its final size as (3, height, width) float32, RGB in 0..1."""
    if decoded.pixels.dtype != np.uint8:
        return decoded.pixels
    pixels = decoded.pixels
    return PROCESS.make(8 * pixels.size, lambda: to_float(pixels), field)  # the floats, and a copy on their way


def decode_for(
    picture: Picture,
    resize: Resize,
    limits: Limits,
    field: str = "picture",
    most_pixels: int = MOST_TO_DEVICE,
    image: Image.Image | None = None,
) -> Decoded:
    """A picture as it travels to the device.

    Args:
        picture, resize, limits, field: As for `prepare`.
        most_pixels: A picture of more pixels is resized here, as are floating-point pixels. 0: every picture.
        image: The file, if it was opened before with these limits.

    Raises:
        InvalidInput: As for `prepare`.
    """
    if isinstance(picture, np.ndarray):
        check_array(picture, field)
        height, width = size = network_size(*array_size(picture), resize, limits, field)
        if picture.dtype != np.uint8:
            return Decoded(resample_array(picture, resize, size), height, width, (0, 0, width, height))
        pixels = picture
    else:
        with refuse_broken_files(field):
            found = _plain(picture, resize, limits, field) or _decoded(picture, resize, limits, field, image)
        pixels, (height, width) = found
    decoded = Decoded(pixels, height, width, kept_box(pixels.shape[1], pixels.shape[0], resize))
    return decoded if pixels[:, :, 0].size <= most_pixels or decoded.is_final else _resized(decoded)


def _plain(data: Any, resize: Resize, limits: Limits, field: str) -> tuple[Pixels, tuple[int, int]] | None:
    """The pixels of a plain JPEG, and its size after resizing; None if it is another file, or has a fault."""
    stored = plain_jpeg_size(data, limits) if isinstance(data, bytes) else None
    if stored is None:
        return None
    size = network_size(*stored, resize, limits, field)
    with PROCESS.reserve(plain_bytes(*stored), field) as room:
        pixels = plain_pixels(data, *stored, reduction(*stored, resize))
        if pixels is None:
            return None
        room.keep_for(pixels)
    return pixels, size


def _decoded(
    data: Any, resize: Resize, limits: Limits, field: str, image: Image.Image | None
) -> tuple[Pixels, tuple[int, int]]:
    """The pixels of any file, and its size after resizing."""
    image = image or open_file(data, limits, field)
    size = network_size(image.height, image.width, resize, limits, field)
    reduce_while_decoding(image, resize)
    stored = image.size
    pixels = PROCESS.make(decoding_bytes(image), partial(read_pixels, image, data, field), field)
    # A picture may be turned by 90 degrees; all resize modes treat width and height alike.
    return pixels, size if pixels.shape[1::-1] == stored else size[::-1]


def _resized(decoded: Decoded) -> Decoded:
    height, width = decoded.height, decoded.width
    return Decoded(resample(decoded.pixels, decoded.box, height, width), height, width, (0, 0, width, height))


def stretch(picture: Picture, height: int, width: int, limits: Limits, field: str = "picture") -> Array:
    """A picture as the network takes it, stretched to a given shape.

    Args:
        picture: As for `prepare`.
        height, width: In pixels. They are not checked against `network_pixels`.
        limits: `picture_bytes` and `decoded_pixels` are checked.
        field: Where the picture is in the request, for errors.

    Returns:
        (3, height, width) float32, RGB in 0..1.

    Raises:
        InvalidInput: As for `prepare`.
    """
    if isinstance(picture, np.ndarray):
        check_array(picture, field)
    pixels = picture if isinstance(picture, np.ndarray) else decode(picture, limits, field)
    resize, size = Resize(ResizeMode.STRETCH), (height, width)
    return PROCESS.make(3 * 8 * height * width, lambda: resample_array(pixels, resize, size), field)


def shape(picture: Picture, limits: Limits, field: str = "picture") -> tuple[int, int]:
    """Height and width in pixels of a picture at its own size, upright.

    Raises:
        InvalidInput: As for `prepare`; `network_pixels` is not checked.
    """
    return array_size(decode(picture, limits, field) if isinstance(picture, bytes) else picture)
