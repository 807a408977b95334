"""Pictures: from whatever people send to what the network sees, and back to files.

Encoded pictures are hostile until shown otherwise. Only six formats are opened; sizes are checked before pixels are
decoded; whatever a decoder trips over becomes an InvalidInput that names the field.
"""

from __future__ import annotations

import numpy as np
from gramlet.types import Array, Limits, Picture, Resize, ResizeMode

from gramlet_server.pictures.decode import checked_bytes, decode, draft, opened, refusing, upright
from gramlet_server.pictures.resize import array_size, bounded_size, check_array, resampled, resampled_float, to_float


def prepare(picture: Picture, resize: Resize, limits: Limits, field: str = "picture") -> Array:
    """A picture as the network takes it.

    Args:
        picture: An encoded file; or RGB pixels, either (H, W, 3) uint8 or (3, H, W) floating point in 0..1. Floats a
            little outside of 0..1, such as an optimizer's, are taken as they are.
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
        target = bounded_size(height, width, resize, limits, field)
        return resampled_float(picture, resize, target)
    data = checked_bytes(picture, limits, field)
    with refusing(field):
        image = opened(data, limits, field)
        target = bounded_size(image.height, image.width, resize, limits, field)
        if image.format == "JPEG":
            draft(image, resize)
        drafted = image.size
        image = upright(image, data, field)
        if image.size != drafted:  # turned on its side
            target = target[::-1]
    return to_float(np.asarray(resampled(image, resize, target)))


def stretch(picture: Picture, height: int, width: int, limits: Limits, field: str = "picture") -> Array:
    """A picture as the network takes it, stretched to a given shape: (3, height, width) float32, RGB in 0..1.

    Raises:
        InvalidInput: As for `prepare`; `network_pixels` is not checked: the shape is of a picture that was, or less.
    """
    if isinstance(picture, np.ndarray):
        check_array(picture, field)
    pixels = picture if isinstance(picture, np.ndarray) else decode(picture, limits, field)
    return resampled_float(pixels, Resize(ResizeMode.STRETCH), (height, width))


def shape(picture: Picture, limits: Limits, field: str = "picture") -> tuple[int, int]:
    """Height and width of a picture at its own size, upright.

    Raises:
        InvalidInput: As for `prepare`; `network_pixels` is not checked.
    """
    return array_size(decode(picture, limits, field) if isinstance(picture, bytes) else picture)


# --- arrays and sizes
