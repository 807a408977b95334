"""Pictures that are too large for a message: reduced where the service would reduce them anyway, or refused.

Nothing here imports PIL before a picture is too large.
"""

from __future__ import annotations

import logging
from io import BytesIO
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from gramlet.errors import InvalidInput
from gramlet.types import Limits, Picture, Resize, ResizeMode

if TYPE_CHECKING:
    from PIL import Image

P = TypeVar("P", bound=Picture | None)

_log = logging.getLogger("gramlet")
LARGEST = Limits.message_bytes - 2**20  # the rest of a message is for everything but pictures

MESSAGE_MEGABYTES = LARGEST / 1e6
"""What the pictures of one message may have together."""

_MARGIN = 2
"""A picture is reduced on its way to at least this many times the size that the service will reduce it to."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""What the services read. For some other formats Pillow starts other programs."""


def fitting(data: bytes, resize: Resize | None, field: str, name: str) -> bytes:
    """A file that a message can hold: itself, or reduced where the service would reduce it anyway.

    Args:
        data: The file.
        resize: What the service will do; None: unknown.
        field: What the caller calls it, for errors.
        name: What the file is, for errors.

    Raises:
        InvalidInput: Too large.
    """
    if len(data) <= Limits.picture_bytes:
        return data
    smaller = _reduce_file(data, resize)
    if smaller is not None and len(smaller) <= Limits.picture_bytes:
        _log.info("%s has %.1f MB: sent reduced, to %s pixels", name, len(data) / 1e6, _size_of(smaller))
        return smaller
    if len(data) > LARGEST:
        raise InvalidInput(
            f"{name} has {len(data) / 1e6:.1f} MB and does not fit a message, which holds {MESSAGE_MEGABYTES:.0f}: "
            "send it smaller",
            field=field,
        )
    return data


def reduced(picture: P, resize: Resize | None) -> P | bytes:
    """A picture that travels, smaller if the service would reduce it anyway."""
    if picture is None or (isinstance(picture, np.ndarray) and picture.dtype != np.uint8):
        return picture
    from PIL import Image

    data = picture if isinstance(picture, bytes) else encode_png(Image.fromarray(picture))
    smaller = _reduce_file(data, resize)
    return picture if smaller is None or len(smaller) >= picture_bytes(picture) else smaller


def picture_bytes(picture: Picture | None) -> int:
    """The bytes of a picture that travels."""
    return 0 if picture is None else len(picture) if isinstance(picture, bytes) else picture.nbytes


def encode_png(image: Image.Image, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, format="PNG", compress_level=1, **options)
    return file.getvalue()


def _reduce_file(data: bytes, resize: Resize | None) -> bytes | None:
    """The picture as a PNG file, as small as the service's resizing allows; None if it cannot be read."""
    from PIL import Image, ImageOps

    try:
        image: Image.Image = Image.open(BytesIO(data), formats=FORMATS)
        if image.width * image.height > Limits.decoded_pixels:
            return None
        upright = ImageOps.exif_transpose(image)
        if upright.mode not in ("L", "LA", "RGB", "RGBA"):
            upright = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
        factor = reduction(upright.width, upright.height, resize)
        return encode_png(upright.reduce(factor) if factor > 1 else upright)
    except Exception:  # the service says what is wrong with it
        return None


def reduction(width: int, height: int, resize: Resize | None) -> int:
    """By which whole number a picture can be reduced, so that the service still has _MARGIN times what it needs."""
    if resize is None or resize.mode is ResizeMode.KEEP or resize.size < 1:
        return 1
    side = max(width, height) if resize.mode is ResizeMode.LONGEST_SIDE else min(width, height)
    return max(1, side // (_MARGIN * resize.size))


def _size_of(data: bytes) -> str:
    from PIL import Image

    with Image.open(BytesIO(data), formats=FORMATS) as image:
        return f"{image.width} x {image.height}"
