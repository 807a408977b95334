"""Pictures in any form that the API accepts become arrays as the network takes them.

A file goes through one row of calls: it is opened and its size is checked, it is decoded, converted to sRGB and turned
upright (`pictures.decode`), and it is resized (`pictures.resize`).
"""

from __future__ import annotations

import numpy as np
from gramlet.types import Array, Limits, Picture, Resize, ResizeMode

from gramlet_server.pictures.decode import decode, open_file, read_pixels, reduce_while_decoding, refuse_broken_files
from gramlet_server.pictures.resize import array_size, check_array, network_size, resample, resample_array, to_float


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
    if isinstance(picture, np.ndarray):
        check_array(picture, field)
        height, width = array_size(picture)
        return resample_array(picture, resize, network_size(height, width, resize, limits, field))
    with refuse_broken_files(field):
        image = open_file(picture, limits, field)
        size = network_size(image.height, image.width, resize, limits, field)
        reduce_while_decoding(image, resize)
        stored = image.size
        image = read_pixels(image, picture, field)
        if image.size != stored:  # turned by 90 degrees; all resize modes treat width and height alike
            size = size[::-1]
    return to_float(np.asarray(resample(image, resize, size)))


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
    return resample_array(pixels, Resize(ResizeMode.STRETCH), (height, width))


def shape(picture: Picture, limits: Limits, field: str = "picture") -> tuple[int, int]:
    """Height and width in pixels of a picture at its own size, upright.

    Raises:
        InvalidInput: As for `prepare`; `network_pixels` is not checked.
    """
    return array_size(decode(picture, limits, field) if isinstance(picture, bytes) else picture)
