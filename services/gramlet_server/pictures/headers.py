"""Encoded files by their headers: whether they are accepted, and what decoding them will take. No pixel is decoded."""

from __future__ import annotations

import io

from gramlet.errors import EMPTY_FILE, InvalidInput
from gramlet.types import Limits
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""The only formats that are opened. For some other formats Pillow starts other programs."""

CHEAP_PIXELS = 16 * 2**20

_END_OF_JPEG = b"\xff\xd9"

ORIENTATION = 0x0112
"""The EXIF tag of the orientation."""

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The operation that turns a picture of an EXIF orientation upright; orientation 1 needs none."""


def open_file(data: object, limits: Limits, field: str) -> Image.Image:
    """Opens a file and checks its sizes. Reads its header; its pixels are not decoded yet.

    Raises:
        InvalidInput: `data` is not bytes, is empty, or has too many bytes or too many pixels.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise InvalidInput(f"a picture is bytes or an array, not {type(data).__name__}", field=field)
    if len(data) > limits.picture_bytes:
        raise InvalidInput(
            f"the file has {len(data):,} bytes; a picture may have {limits.picture_bytes:,}: send it smaller",
            field=field,
        )
    if not data:
        raise InvalidInput(EMPTY_FILE, field=field)
    image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    width, height = image.size
    if width * height > limits.decoded_pixels:
        raise InvalidInput(
            f"{width} x {height} is {width * height:,} pixels; a picture may have {limits.decoded_pixels:,}: "
            "send it smaller",
            field=field,
        )
    return image


def opened(data: bytes, limits: Limits) -> Image.Image | None:
    """The opened file; None if it is refused for its header."""
    try:
        return open_file(data, limits, "picture")
    except Exception:  # as in `refuse_broken_files`
        return None


def is_cheap(image: Image.Image) -> bool:
    """Whether an opened file takes a fraction of a second at most.

    Baseline JPEGs and PNGs take a time in proportion to their pixels. A progressive JPEG has as many passes over all
    pixels as its author likes; the other formats are rare enough not to be looked into.
    """
    is_simple = image.format == "PNG" or (image.format == "JPEG" and "progressive" not in image.info)
    return is_simple and image.width * image.height <= CHEAP_PIXELS


def is_plain_jpeg(image: Image.Image, data: bytes) -> bool:
    """Whether an opened file is a baseline color JPEG, as cameras and browsers write them, to be shown as it is stored.

    It has 8 bits, is whole as far as its end tells, upright, and without an ICC profile. Every decoder of JPEGs has an
    answer for such a file.
    """
    return (
        image.format == "JPEG"
        and image.mode == "RGB"
        and getattr(image, "bits", 0) == 8
        and "progressive" not in image.info
        and image.info.get("adobe_transform", 1) == 1
        and image.info.get("icc_profile") is None
        and data.endswith(_END_OF_JPEG)
        and orientation(image) not in UPRIGHT
    )


def decoding_bytes(image: Image.Image) -> int:
    """The memory that decoding an opened file takes at most, from its header: the copies in all steps together.

    Up to 34 bytes for each pixel where 16-bit levels are compared with a transparent color; 12 where a plain picture is
    turned upright. EXIF is not read here, since Pillow decodes a PNG to find it.
    """
    width, height = image.size
    deep = image.mode.startswith(("I", "F"))
    blended = image.has_transparency_data or image.info.get("icc_profile") is not None
    return width * height * (36 if deep else 20 if blended else 12)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of a loaded picture, 1 to 8; 1 if EXIF is absent or broken."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # broken EXIF raises many exceptions, and the pixels may be good
        return 1
