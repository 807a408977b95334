"""Encoded files become RGB pixels, turned upright. Only six formats are opened; sizes are checked before decoding."""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from gramlet.errors import InvalidInput
from gramlet.types import Limits, Pixels, Resize, ResizeMode
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from gramlet_server.pictures.icc import to_srgb

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""What is opened at all. Others are not even tried: some of Pillow's readers start other programs."""

DRAFT_MARGIN = 2
"""A large JPEG is decoded at a half, a quarter or an eighth only where that leaves this many times the size wanted."""

ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
"""First column and row, and steps, of the passes of an interlaced PNG."""

LUMA = (0.299, 0.587, 0.114)
"""Share of red, green and blue in how bright a gray is (ITU-R BT.601)."""

ORIENTATION = 0x0112  # the EXIF tag
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: bytes, limits: Limits, field: str = "picture", background: str = "white") -> Pixels:
    """The pixels of an encoded file, at its own size: upright, alpha on a background, 8-bit sRGB, (H, W, 3).

    Raises:
        InvalidInput: As for `prepare`; `network_pixels` is not checked.
    """
    data = checked_bytes(data, limits, field)
    with refusing(field):
        return np.array(upright(opened(data, limits, field), data, field, background))


# --- files


@contextmanager
def refusing(field: str) -> Iterator[None]:
    """Turns whatever a decoder raises into an InvalidInput. Hostile bytes make decoders raise nearly anything."""
    try:
        yield
    except InvalidInput:
        raise
    except Exception as error:
        raise InvalidInput(_reason(error), field=field) from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not a picture of a known format (JPEG, PNG, WebP, GIF, BMP, TIFF), or its header is broken"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return "far too many pixels: send a smaller picture"
    if "truncated" in str(error).lower():
        return "the file is cut short: part of the picture is missing"
    return f"the file is broken and cannot be decoded ({str(error) or type(error).__name__})"


def checked_bytes(data: object, limits: Limits, field: str) -> bytes:
    if not isinstance(data, bytes | bytearray | memoryview):
        raise InvalidInput(f"a picture is bytes or an array, not {type(data).__name__}", field=field)
    if len(data) > limits.picture_bytes:
        raise InvalidInput(
            f"the file has {len(data):,} bytes; a picture may have {limits.picture_bytes:,}: send it smaller",
            field=field,
        )
    if not data:
        raise InvalidInput("the file is empty", field=field)
    return bytes(data)


def opened(data: bytes, limits: Limits, field: str) -> Image.Image:
    """A file whose header was read and whose pixels are not too many; they are not decoded yet."""
    image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    width, height = image.size
    if width * height > limits.decoded_pixels:
        raise InvalidInput(
            f"{width} x {height} is {width * height:,} pixels; a picture may have {limits.decoded_pixels:,}: "
            "send it smaller",
            field=field,
        )
    return image


def upright(image: Image.Image, data: bytes, field: str, background: str = "white") -> Image.Image:
    """Decodes an opened file to sRGB, turned as its EXIF says."""
    key = _color_key(image)
    image.load()
    if image.format == "PNG" and not _has_all_rows(image, data):
        raise InvalidInput("the file is cut short: part of the picture is missing", field=field)
    turn = UPRIGHT.get(_orientation(image))  # Pillow has turned a TIFF by now, and taken the tag away
    rgb = _to_rgb(image, key, field, background)
    return rgb if turn is None else rgb.transpose(turn)


def _has_all_rows(image: Image.Image, data: bytes) -> bool:
    """Whether a PNG's compressed data, well-formed as they may be, hold every row. Pillow leaves missing rows at zero.

    They are counted only where the last rows are zero, or the picture is interlaced.
    """
    # PNG (ISO/IEC 15948) section 11.2.2: the header's chunk is the first, 13 bytes from byte 16 on.
    width, height, depth, color, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    if not interlaced and np.asarray(image.crop((0, height - 1, width, height))).any():
        return True
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    grids = ADAM7 if interlaced else ((0, 0, 1, 1),)
    expected = 0
    for left, top, right, down in grids:
        columns, rows = -((left - width) // right), -((top - height) // down)
        if columns > 0 and rows > 0:
            expected += rows * (1 + (columns * bits + 7) // 8)  # each row has a byte for its filter
    return _inflated_size(data, expected) >= expected


def _inflated_size(png: bytes, enough: int) -> int:
    """Size of a PNG's image data once inflated; the count stops at `enough`."""
    inflater, size, at = zlib.decompressobj(), 0, 8
    while at + 8 <= len(png) and size < enough:
        length, kind = struct.unpack_from(">I4s", png, at)
        pending = png[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        while pending and size < enough and not inflater.eof:
            size += len(inflater.decompress(pending, 1 << 20))
            pending = inflater.unconsumed_tail
        at += length + 12
    return size


def draft(image: Image.Image, resize: Resize) -> None:
    """Lets the JPEG decoder reduce the picture while it decodes, where it will be reduced much further."""
    if resize.mode is ResizeMode.KEEP or resize.size < 1:
        return
    sides = image.size
    side = max(sides) if resize.mode is ResizeMode.LONGEST_SIDE else min(sides)
    wanted = DRAFT_MARGIN * resize.size / side
    image.draft(None, (math.ceil(sides[0] * wanted), math.ceil(sides[1] * wanted)))


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where EXIF is absent or broken. The picture has been loaded."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # broken EXIF, in any of many ways, says nothing about the pixels
        return 1


Key = int | tuple[int, ...] | None


def _color_key(image: Image.Image) -> Key:
    """The color that a PNG declares transparent, in the levels that Pillow's decoder puts out; None if none.

    PNG gives it in the file's own levels: those of 1, 2 and 4 bits are spread over 0..255, those of 16-bit RGB are cut
    to their high byte.
    """
    key = image.info.get("transparency")
    if image.mode in ("P", "PA") or not isinstance(key, int | tuple):
        return None
    tiles = getattr(image, "tile", None)
    arguments = tiles[0].args if tiles else None
    layout = arguments[0] if isinstance(arguments, tuple) else arguments
    if isinstance(key, tuple):
        return tuple(level >> 8 for level in key) if layout == "RGB;16B" else key
    return key * {"1": 255, "L;2": 85, "L;4": 17}.get(str(layout), 1)


def _to_rgb(image: Image.Image, key: Key, field: str, background: str) -> Image.Image:
    """8-bit sRGB, of any mode that the decoders put out; what is transparent becomes background in proportion."""
    mode, profile = image.mode, image.info.get("icc_profile")
    level = 255 if background == "white" else 0
    if mode == "F":
        return to_srgb(Image.fromarray(_gray_of_floats(np.asarray(image), field)), profile)
    if mode.startswith("I;16") or (mode == "I" and image.format == "PNG"):
        deep = np.asarray(image).astype(np.uint32)
        rgb = to_srgb(Image.fromarray(((deep + 128) // 257).astype(np.uint8)), profile)
        return rgb if key is None else _painted(rgb, deep == key, level)
    if mode == "I":
        raise InvalidInput("32-bit integer pixels have no known range: save with 8 or 16 bits a channel", field=field)
    if key is not None:
        transparent = (np.asarray(image.convert("RGB")) == key).all(axis=2)
        return _painted(to_srgb(image, profile), transparent, level)
    if image.has_transparency_data:
        if mode == "LA":
            gray, alpha = image.split()
            straight = to_srgb(gray, profile)
            straight.putalpha(alpha)
        else:
            straight = to_srgb(image if mode == "RGBA" else image.convert("RGBA"), profile)
        return Image.alpha_composite(Image.new("RGBA", image.size, background), straight).convert("RGB")
    return to_srgb(image, profile)


def _painted(image: Image.Image, where: NDArray[np.bool_], level: int) -> Image.Image:
    pixels = np.array(image)
    pixels[where] = level
    return Image.fromarray(pixels)


def _gray_of_floats(values: NDArray[np.float32], field: str) -> Pixels:
    if not np.isfinite(values).all():
        raise InvalidInput("the picture has pixels that are not finite numbers", field=field)
    if values.min() < -0.01 or values.max() > 1.01:
        raise InvalidInput(
            f"floating-point pixels must be in 0..1; these are in {values.min():g}..{values.max():g}", field=field
        )
    levels: Pixels = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    return levels
