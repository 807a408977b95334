"""Encoded files become upright 8-bit sRGB pictures.

The calls, in this order: `headers.open_file` reads the header and checks the sizes; `reduce_while_decoding` lets a
large JPEG be decoded at a fraction of its size; `read_pixels` decodes the pixels, converts them to sRGB on a
background, and turns them upright. They are made inside of `refuse_broken_files`, because hostile bytes make decoders
raise nearly any exception.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import simplejpeg
from gramlet.errors import GramletError, InvalidInput
from gramlet.folders.rules import NOT_A_PICTURE
from gramlet.types import Limits, Pixels, Resize, ResizeMode
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from gramlet_server.pictures.headers import UPRIGHT, decoding_bytes, open_file, orientation
from gramlet_server.pictures.icc import to_srgb
from gramlet_server.pictures.offload import HERE, Kind, Task, offloaded
from gramlet_server.process.memory_budget import PROCESS

DRAFT_MARGIN = 2
"""A large JPEG is decoded at 1/2, 1/4 or 1/8 of its size if the result is still this many times as large as wanted."""

ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
"""The passes of an interlaced PNG: first column, first row, step between columns, step between rows."""

TransparentColor = int | tuple[int, ...] | None
"""A gray level, or levels of red, green and blue; None if the file declares none."""


def decode(data: bytes, limits: Limits, field: str = "picture", background: str = "white") -> Pixels:
    """Decodes an encoded file at its own size.

    Args:
        data: The file.
        limits: `picture_bytes` and `decoded_pixels` are checked, before any pixel is decoded.
        field: Where the picture is in the request, for errors.
        background: The color under transparent pixels, `white` or `black`.

    Returns:
        (H, W, 3) uint8, sRGB, turned upright as its EXIF orientation says.

    Raises:
        InvalidInput: The file is broken, of an unknown format, or too large.
    """
    found = offloaded(data, Task(Kind.WHOLE, limits, background=background), field)
    if found is not HERE:
        whole: Pixels = found
        return whole
    with refuse_broken_files(field):
        image = open_file(data, limits, field)
        return PROCESS.make(decoding_bytes(image), lambda: read_pixels(image, data, field, background), field)


def opacity(data: bytes, limits: Limits, field: str = "picture") -> Pixels | None:
    """The alpha channel of an encoded file.

    Returns:
        (H, W) uint8, 255 where the picture is opaque, upright as `decode` returns the picture; None if all of it is.

    Raises:
        InvalidInput: As for `decode`.
    """
    found = offloaded(data, Task(Kind.OPACITY, limits), field)
    if found is not HERE:
        alpha: Pixels | None = found
        return alpha
    with refuse_broken_files(field):
        image = open_file(data, limits, field)
        if not image.has_transparency_data or image.mode.startswith("I"):
            return None
        levels = PROCESS.make(decoding_bytes(image), lambda: _opacity(image), field)
        return None if levels.min() == 255 else levels


def _opacity(image: Image.Image) -> Pixels:
    color = _transparent_color(image)
    image.load()
    if color is None:
        alpha = image.convert("RGBA").getchannel("A")
    else:
        is_opaque = (np.asarray(image.convert("RGB")) != color).any(axis=2)
        alpha = Image.fromarray(is_opaque * np.uint8(255))
    turn = UPRIGHT.get(orientation(image))
    return np.array(alpha if turn is None else alpha.transpose(turn))


@contextmanager
def refuse_broken_files(field: str) -> Iterator[None]:
    """Turns every exception of a decoder into an InvalidInput for `field`."""
    try:
        yield
    except GramletError:
        raise
    except Exception as error:
        raise InvalidInput(_reason(error), field=field) from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return NOT_A_PICTURE
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return "far too many pixels: send a smaller picture"
    if "truncated" in str(error).lower():
        return "the file is cut short: part of the picture is missing"
    return f"the file is broken and cannot be decoded ({str(error) or type(error).__name__})"


def reduction(height: int, width: int, resize: Resize) -> int:
    """By which factor a JPEG is reduced while it is decoded, 1, 2, 4 or 8: less than `resize` will reduce it."""
    if resize.mode is ResizeMode.KEEP or resize.size < 1:
        return 1
    side = max(width, height) if resize.mode is ResizeMode.LONGEST_SIDE else min(width, height)
    wanted = DRAFT_MARGIN * resize.size / side
    factor = min(width // math.ceil(width * wanted), height // math.ceil(height * wanted))
    return next((known for known in (8, 4, 2) if factor >= known), 1)


def reduce_while_decoding(image: Image.Image, resize: Resize) -> None:
    """Lets the decoder reduce an opened JPEG to 1/2, 1/4 or 1/8, if `resize` will reduce it much further."""
    if image.format == "JPEG":
        width, height = image.size
        factor = reduction(height, width, resize)
        image.draft(None, (width // factor, height // factor))


# --- decode


def read_pixels(image: Image.Image, data: bytes, field: str, background: str = "white") -> Pixels:
    """Decodes an opened file: (H, W, 3) uint8, sRGB on a background, turned upright.

    Args:
        image: The opened file.
        data: Its bytes.
        field: Where the picture is in the request, for errors.
        background: The color under transparent pixels, `white` or `black`.
    """
    is_color_jpeg = image.format == "JPEG" and image.mode == "RGB"
    # After `reduce_while_decoding`: the factors of both decoders round up.
    pixels = plain_pixels(data, image.height, image.width, 1) if is_color_jpeg else None
    profile = image.info.get("icc_profile")
    if pixels is not None and profile is None and orientation(image) not in UPRIGHT:
        return pixels  # nearly all pictures: nothing of Pillow's has to copy their pixels
    opened = None if pixels is None else Image.fromarray(pixels)
    rgb = _loaded(image, data, field, background) if opened is None else _in_srgb(opened, profile)
    turn = UPRIGHT.get(orientation(image))  # Pillow has turned a TIFF by now, and removed the tag
    return np.array(rgb if turn is None else rgb.transpose(turn))


def plain_pixels(data: bytes, height: int, width: int, factor: int) -> Pixels | None:
    """The pixels of a color JPEG, reduced by a factor; None for one with the slightest fault.

    Pillow's libjpeg-turbo gives the same bits. It copies them twice more, and answers for every other file.
    """
    height, width = -(-height // factor), -(-width // factor)
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, min_height=height, min_width=width, min_factor=1, strict=True)
    except ValueError:
        return None
    return pixels if pixels.shape == (height, width, 3) else None


def _loaded(image: Image.Image, data: bytes, field: str, background: str) -> Image.Image:
    """Decodes an opened file with Pillow: sRGB on a background, not yet turned."""
    transparent = _transparent_color(image)  # before the pixels: Pillow forgets the file's own levels as it decodes
    image.load()
    if image.format == "PNG" and not _has_all_rows(image, data):
        raise InvalidInput("the file is cut short: part of the picture is missing", field=field)
    return _to_rgb(image, transparent, field, background)


def _has_all_rows(image: Image.Image, data: bytes) -> bool:
    """Whether the compressed data of a PNG hold every row. Well-formed data may end early; Pillow then leaves zeros.

    Only a picture whose last row is zero, or one that is interlaced, is checked.
    """
    # PNG (ISO/IEC 15948) section 11.2.2: the header is the first chunk, 13 bytes from byte 16 on.
    width, height, depth, color, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    if not interlaced and np.asarray(image.crop((0, height - 1, width, height))).any():
        return True
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    expected = 0
    for left, top, right, down in ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -((left - width) // right), -((top - height) // down)
        if columns > 0 and rows > 0:
            expected += rows * (1 + (columns * bits + 7) // 8)  # each row begins with a byte for its filter
    return _inflated_size(data, expected) >= expected


def _inflated_size(png: bytes, enough: int) -> int:
    """The size of a PNG's image data once inflated; counting stops at `enough`."""
    inflater, size, start = zlib.decompressobj(), 0, 8
    while start + 8 <= len(png) and size < enough:
        length, kind = struct.unpack_from(">I4s", png, start)
        pending = png[start + 8 : start + 8 + length] if kind == b"IDAT" else b""
        while pending and size < enough and not inflater.eof:
            size += len(inflater.decompress(pending, 1 << 20))
            pending = inflater.unconsumed_tail
        start += length + 12
    return size


# --- color


def _transparent_color(image: Image.Image) -> TransparentColor:
    """The color that a PNG declares transparent, in the levels that Pillow's decoder returns.

    The file declares it in its own levels. The decoder scales levels of 1, 2 and 4 bits to 0..255, and cuts levels of
    16-bit RGB to their high byte.
    """
    color = image.info.get("transparency")
    if image.mode in ("P", "PA") or not isinstance(color, int | tuple):
        return None
    tiles = getattr(image, "tile", None)
    arguments = tiles[0].args if tiles else None
    raw_mode = arguments[0] if isinstance(arguments, tuple) else arguments
    if isinstance(color, tuple):
        return tuple(level >> 8 for level in color) if raw_mode == "RGB;16B" else color
    return color * {"1": 255, "L;2": 85, "L;4": 17}.get(str(raw_mode), 1)


def _to_rgb(image: Image.Image, transparent: TransparentColor, field: str, background: str) -> Image.Image:
    """8-bit sRGB of a loaded picture in any mode, laid on the background where it is transparent."""
    mode, profile = image.mode, image.info.get("icc_profile")
    level = 255 if background == "white" else 0
    if mode == "F":
        return _in_srgb(Image.fromarray(_levels_of_floats(np.asarray(image), field)), profile)
    if mode.startswith("I;16") or (mode == "I" and image.format == "PNG"):
        deep = np.asarray(image).astype(np.uint32)
        rgb = _in_srgb(Image.fromarray(((deep + 128) // 257).astype(np.uint8)), profile)
        return rgb if transparent is None else _filled(rgb, deep == transparent, level)
    if mode == "I":
        raise InvalidInput("32-bit integer pixels have no known range: save with 8 or 16 bits a channel", field=field)
    if transparent is not None:
        where = (np.asarray(image.convert("RGB")) == transparent).all(axis=2)
        return _filled(_in_srgb(image, profile), where, level)
    if image.has_transparency_data:
        return _flattened(image, profile, background)
    return _in_srgb(image, profile)


def _in_srgb(image: Image.Image, profile: object) -> Image.Image:
    """RGBA of RGBA, RGB of any other mode; converted by the ICC profile if it can be used, else as Pillow converts."""
    if isinstance(profile, bytes):  # in a TIFF it may be of any type
        converted = to_srgb(image, profile)
        if converted is not None:
            return converted
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _flattened(image: Image.Image, profile: object, background: str) -> Image.Image:
    """A picture with an alpha channel, or a palette with transparent colors, laid on the background in proportion."""
    if image.mode == "LA":
        gray, alpha = image.split()
        straight = _in_srgb(gray, profile)
        straight.putalpha(alpha)
    else:
        straight = _in_srgb(image if image.mode == "RGBA" else image.convert("RGBA"), profile)
    return Image.alpha_composite(Image.new("RGBA", image.size, background), straight).convert("RGB")


def _filled(image: Image.Image, where: NDArray[np.bool_], level: int) -> Image.Image:
    pixels = np.array(image)
    pixels[where] = level
    return Image.fromarray(pixels)


def _levels_of_floats(values: NDArray[np.float32], field: str) -> Pixels:
    if not np.isfinite(values).all():
        raise InvalidInput("the picture has pixels that are not finite numbers", field=field)
    if values.min() < -0.01 or values.max() > 1.01:
        raise InvalidInput(
            f"floating-point pixels must be in 0..1; these are in {values.min():g}..{values.max():g}", field=field
        )
    levels: Pixels = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    return levels
