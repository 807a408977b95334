"""Encoded files by their headers: whether they are accepted, and what decoding them will take. No pixel is decoded."""

from __future__ import annotations

import io
import struct

from gramlet.errors import InvalidInput
from gramlet.types import Limits
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""The only formats that are opened. For some other formats Pillow starts other programs."""

CHEAP_PIXELS = 16 * 2**20

_END_OF_JPEG = b"\xff\xd9"
_PLAIN_SEGMENTS = frozenset((0xC0, 0xC4, 0xDB, 0xDD, 0xE0, 0xFE))
"""Baseline frame, Huffman and quantization tables, restart interval, JFIF, comment."""
_MOST_SEGMENTS = 64

_TIFF_ORDERS = {b"II": "<", b"MM": ">"}
_STRIPS = frozenset((273, 279, 324, 325))
"""The TIFF tags of the offsets and sizes of strips and of tiles."""
_BYTES = frozenset((1, 2, 6, 7))
"""The TIFF types of which Pillow makes one object, however many there are: profiles, texts, private data."""
_MOST_VALUES = 2**16

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
        InvalidInput: `data` is not bytes, is empty, or has too many bytes, pixels, or strips of a TIFF.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise InvalidInput(f"a picture is bytes or an array, not {type(data).__name__}", field=field)
    if len(data) > limits.picture_bytes:
        raise InvalidInput(
            f"the file has {len(data):,} bytes; a picture may have {limits.picture_bytes:,}: send it smaller",
            field=field,
        )
    if not data:
        raise InvalidInput("the file is empty", field=field)
    if _tiff_values(data) > _MOST_VALUES:
        raise InvalidInput(
            f"the TIFF has more than {_MOST_VALUES:,} strips or tiles, or values of another tag: save it again, with "
            "larger ones",
            field=field,
        )
    image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    width, height = image.size
    if width * height > limits.decoded_pixels:
        raise InvalidInput(
            f"{width} x {height} is {width * height:,} pixels; a picture may have {limits.decoded_pixels:,}: "
            "send it smaller",
            field=field,
        )
    return image


def _tiff_values(data: bytes | bytearray | memoryview) -> int:
    """The number of tags in the first directory of a TIFF, or of values of one if those are more; 0 for other files.

    Pillow makes an object of each of these values when it opens the file, and of each strip: 400 bytes and 2
    microseconds, in the server itself. See TIFF 6.0, section 2; a BigTIFF has the number 43 and longer fields.
    """
    order = _TIFF_ORDERS.get(bytes(data[:2]))
    if order is None:
        return 0
    is_big = data[2:3] == b"+"  # 43; as Pillow tells it
    head, entry, size = ("Q", "HHQ", 20) if is_big else ("H", "HHI", 12)
    try:
        (start,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, 8 if is_big else 4)
        (tags,) = struct.unpack_from(order + head, data, start)
    except (struct.error, OverflowError):
        return 0  # cut off, which Pillow reports
    start += struct.calcsize(order + head)
    tags = min(tags, (len(data) - start) // size)  # Pillow takes those before the cut
    entries = (struct.unpack_from(order + entry, data, start + size * tag) for tag in range(min(tags, _MOST_VALUES)))
    # Pillow skips tags of more bytes than the file.
    counts = (count for tag, kind, count in entries if count <= len(data) and (tag in _STRIPS or kind not in _BYTES))
    most: int = max((tags, *counts))
    return most


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


def plain_jpeg_size(data: bytes, limits: Limits) -> tuple[int, int] | None:
    """Height and width of a JPEG as most programs write them, which is cheap to decode; None for every other file.

    It is a baseline JPEG of 8 bits in color, whole as far as its end tells, without EXIF, ICC profile or anything else
    that says how to show it, and within the limits. So no more of its header has to be read. See ITU-T T.81, B.1.1.3.
    """
    if not (data.startswith(b"\xff\xd8") and data.endswith(_END_OF_JPEG)) or len(data) > limits.picture_bytes:
        return None
    at, size = 2, None
    for _ in range(_MOST_SEGMENTS):
        if at + 20 > len(data) or data[at] != 0xFF:
            return None
        kind = data[at + 1]
        if kind == 0xDA:  # the scan
            return size
        if kind not in _PLAIN_SEGMENTS:
            return None
        length = data[at + 2] << 8 | data[at + 3]
        if kind == 0xC0:
            # 8 bits; 3 components, named as JFIF names Y, Cb and Cr
            if (
                size
                or length != 17
                or data[at + 4] != 8
                or data[at + 9] != 3
                or data[at + 10 : at + 19 : 3] != b"\x01\x02\x03"
            ):
                return None
            height, width = data[at + 5] << 8 | data[at + 6], data[at + 7] << 8 | data[at + 8]
            if not 0 < height * width <= min(CHEAP_PIXELS, limits.decoded_pixels):
                return None
            size = height, width
        at += 2 + length
    return None


def is_shown_as_stored(image: Image.Image, data: bytes) -> bool:
    """Whether an opened file is a baseline color JPEG, as cameras write them too, to be shown as it is stored.

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


def plain_bytes(height: int, width: int) -> int:
    """The memory that decoding a plain picture of 8 bits takes at most: the copies in all steps together."""
    return 12 * height * width


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
