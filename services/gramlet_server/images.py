"""Pictures: from whatever people send to what the network sees, and back to files.

Encoded pictures are hostile until shown otherwise. Only six formats are opened; sizes are checked before pixels are
decoded; whatever a decoder trips over becomes an InvalidInput that names the field.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from gramlet.errors import InvalidInput
from gramlet.types import Array, Limits, Picture, Pixels, Resize, ResizeMode
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from gramlet_server.icc import to_srgb

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

ASPECT_TOLERANCE = 0.01
"""How far a mask's aspect ratio may be from its picture's."""

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
        _check_array(picture, field)
        height, width = _shape(picture)
        target = _target(height, width, resize, limits, field)
        return _resampled_float(picture, resize, target)
    data = _checked_bytes(picture, limits, field)
    with _refusing(field):
        image = _opened(data, limits, field)
        target = _target(image.height, image.width, resize, limits, field)
        if image.format == "JPEG":
            _draft(image, resize)
        drafted = image.size
        image = _upright(image, data, field)
        if image.size != drafted:  # turned on its side
            target = target[::-1]
    return to_float(np.asarray(_resampled(image, resize, target)))


def stretch(picture: Picture, height: int, width: int, limits: Limits, field: str = "picture") -> Array:
    """A picture as the network takes it, stretched to a given shape: (3, height, width) float32, RGB in 0..1.

    Raises:
        InvalidInput: As for `prepare`; `network_pixels` is not checked: the shape is of a picture that was, or less.
    """
    if isinstance(picture, np.ndarray):
        _check_array(picture, field)
    pixels = picture if isinstance(picture, np.ndarray) else decode(picture, limits, field)
    return _resampled_float(pixels, Resize(ResizeMode.STRETCH), (height, width))


def decode(data: bytes, limits: Limits, field: str = "picture", background: str = "white") -> Pixels:
    """The pixels of an encoded file, at its own size: upright, alpha on a background, 8-bit sRGB, (H, W, 3).

    Raises:
        InvalidInput: As for `prepare`; `network_pixels` is not checked.
    """
    data = _checked_bytes(data, limits, field)
    with _refusing(field):
        return np.array(_upright(_opened(data, limits, field), data, field, background))


def region(mask: Picture, limits: Limits, field: str = "region") -> Array:
    """A mask at its own size: (H, W) float32, 1 inside, 0 outside.

    Args:
        mask: A picture of white inside, black outside and gray in between; what is transparent in it is outside. Or
            (H, W) uint8 or floating point in 0..1.
        limits: As for `prepare`; `network_pixels` is not checked.
        field: Where the mask is in the request, for errors.

    Raises:
        InvalidInput: As for `prepare`, or nothing is inside.
    """
    if isinstance(mask, np.ndarray) and mask.ndim == 2:
        found = mask.astype(np.float32) / np.float32(255) if mask.dtype == np.uint8 else mask.astype(np.float32)
    else:
        picture = decode(mask, limits, field, background="black") if isinstance(mask, bytes) else mask
        _check_array(picture, field)
        channels = _resampled_float(picture, Resize(), _shape(picture))
        found = np.tensordot(np.array(LUMA, np.float32), channels, 1)
    found = found.clip(0, 1)
    if not found.max(initial=0) > 0:  # a NaN fails as well
        raise InvalidInput("the mask is black everywhere: paint white what is inside", field=field)
    return found


def fit_region(region: Array, height: int, width: int, field: str = "region") -> Array:
    """A region brought to the size of its picture.

    Raises:
        InvalidInput: As for `check_aspect`.
    """
    check_aspect(region, height, width, field)
    return stretch_region(region, height, width)


def check_aspect(region: Array, height: int, width: int, field: str = "region") -> None:
    """Refuses a region that was not drawn over the whole of its picture.

    Raises:
        InvalidInput: The aspect ratios differ by more than 1 %, and by more than sizes in whole pixels explain.
    """
    rows, columns = region.shape
    if not _same_aspect(rows, columns, height, width):
        raise InvalidInput(
            f"the mask is {columns} x {rows} and its picture {width} x {height}: draw it over the whole picture, at "
            "any size of the same aspect ratio",
            field=field,
        )


def stretch_region(region: Array, height: int, width: int) -> Array:
    """A region (H, W) at another size: means over what a pixel covers, or straight lines where it is enlarged."""
    if region.shape == (height, width):
        return region
    image = Image.fromarray(np.ascontiguousarray(region, dtype=np.float32))
    smaller = region.size > height * width
    resized = image.resize((width, height), Image.Resampling.BOX if smaller else Image.Resampling.BILINEAR)
    return np.asarray(resized).clip(0, 1)


def shape(picture: Picture, limits: Limits, field: str = "picture") -> tuple[int, int]:
    """Height and width of a picture at its own size, upright.

    Raises:
        InvalidInput: As for `prepare`; `network_pixels` is not checked.
    """
    return _shape(decode(picture, limits, field) if isinstance(picture, bytes) else picture)


def resize_pixels(pixels: Pixels, resize: Resize) -> Pixels:
    """(H, W, 3) uint8 brought to size: Lanczos, antialiased.

    Raises:
        InvalidInput: The size is not positive.
    """
    target = target_size(pixels.shape[0], pixels.shape[1], resize)
    return np.array(_resampled(Image.fromarray(pixels), resize, target))


def target_size(height: int, width: int, resize: Resize, field: str = "resize.size") -> tuple[int, int]:
    """Height and width of a picture after resizing; no side is less than 1.

    Raises:
        InvalidInput: The size is not positive.
    """
    mode, size = resize.mode, resize.size
    if mode is ResizeMode.KEEP:
        return height, width
    if size < 1:
        raise InvalidInput(f"resize to {mode.value} needs a size of at least 1 pixel, not {size}", field=field)
    if mode in (ResizeMode.CENTER_CROP, ResizeMode.STRETCH):
        return size, size
    side = max(height, width) if mode is ResizeMode.LONGEST_SIDE else min(height, width)
    return max(1, round(height * size / side)), max(1, round(width * size / side))


def to_float(pixels: Pixels) -> Array:
    """(H, W, 3) uint8 to (3, H, W) float32 in 0..1."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32) / np.float32(255)


def to_uint8(picture: Array) -> Pixels:
    """(3, H, W) float32 to (H, W, 3) uint8; what is outside of 0..1 is clipped."""
    levels = np.rint(np.clip(picture, 0, 1) * np.float32(255))
    return np.ascontiguousarray(levels.astype(np.uint8).transpose(1, 2, 0))


def encode_png(picture: Array | Pixels) -> bytes:
    """A PNG file of a picture, (3, H, W) float or (H, W, 3) uint8. It holds pixels and nothing else."""
    return _encoded(picture, format="PNG")


def encode_jpeg(picture: Array | Pixels, quality: int = 90) -> bytes:
    """A JPEG file of a picture, (3, H, W) float or (H, W, 3) uint8. It holds pixels and nothing else."""
    return _encoded(picture, format="JPEG", quality=quality)


def _encoded(picture: Array | Pixels, **options: Any) -> bytes:
    pixels = picture if picture.dtype == np.uint8 else to_uint8(picture.astype(np.float32, copy=False))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, **options)
    return file.getvalue()


# --- files


@contextmanager
def _refusing(field: str) -> Iterator[None]:
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


def _checked_bytes(data: object, limits: Limits, field: str) -> bytes:
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


def _opened(data: bytes, limits: Limits, field: str) -> Image.Image:
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


def _upright(image: Image.Image, data: bytes, field: str, background: str = "white") -> Image.Image:
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


def _draft(image: Image.Image, resize: Resize) -> None:
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


# --- arrays and sizes


def _check_array(picture: NDArray[Any], field: str) -> None:
    pixels = picture.dtype == np.uint8
    if not pixels and not np.issubdtype(picture.dtype, np.floating):
        raise InvalidInput(f"pixels are uint8 or floating point, not {picture.dtype}", field=field)
    channels = picture.shape[2 if pixels else 0] if picture.ndim == 3 else 0
    if channels != 3 or picture.size == 0:
        wanted = "uint8 pixels are (height, width, 3)" if pixels else "floating-point pixels are (3, height, width)"
        raise InvalidInput(f"{wanted}, not {picture.shape}", field=field)
    if pixels:
        return
    lowest, highest = float(picture.min()), float(picture.max())
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise InvalidInput("the picture has pixels that are not finite numbers", field=field)
    if lowest < -1 or highest > 2:
        raise InvalidInput(
            f"floating-point pixels are in 0..1; these are in {lowest:g}..{highest:g}: divide by their white",
            field=field,
        )


def _shape(picture: NDArray[Any]) -> tuple[int, int]:
    height, width = picture.shape[:2] if picture.dtype == np.uint8 else picture.shape[1:]
    return height, width


def _target(height: int, width: int, resize: Resize, limits: Limits, field: str) -> tuple[int, int]:
    """The size after resizing, if the network takes so many pixels."""
    rows, columns = target_size(height, width, resize, field)
    if rows * columns > limits.network_pixels:
        longest = int(math.sqrt(limits.network_pixels * max(rows, columns) / min(rows, columns)))
        raise InvalidInput(
            f"{columns} x {rows} is {rows * columns:,} pixels; the network takes {limits.network_pixels:,}: "
            f"resize to a longest side of at most {longest}",
            field=field,
        )
    return rows, columns


def _same_aspect(rows: int, columns: int, height: int, width: int) -> bool:
    if abs(columns * height - rows * width) <= ASPECT_TOLERANCE * rows * width:
        return True
    # One of the two sizes may be the other's, with a side rounded to whole pixels.
    sides = ((rows, height * columns / width), (columns, width * rows / height))
    scaled = ((height, rows * width / columns), (width, columns * height / rows))
    return any(abs(side - exact) < 1 for side, exact in (*sides, *scaled))


def _box(width: int, height: int, resize: Resize) -> tuple[float, float, float, float]:
    """The part of a picture that is kept: left, top, right, bottom."""
    if resize.mode is not ResizeMode.CENTER_CROP:
        return 0, 0, width, height
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def _resampled(image: Image.Image, resize: Resize, target: tuple[int, int]) -> Image.Image:
    size = (target[1], target[0])
    box = _box(*image.size, resize)
    if image.size == size and box == (0, 0, *size):
        return image
    return image.resize(size, Image.Resampling.LANCZOS, box=box)


def _resampled_float(picture: NDArray[Any], resize: Resize, target: tuple[int, int]) -> Array:
    if picture.dtype == np.uint8:
        return to_float(np.asarray(_resampled(Image.fromarray(picture), resize, target)))
    exact = np.ascontiguousarray(picture, dtype=np.float32)
    if exact.shape[1:] == target:
        return exact
    channels = [np.asarray(_resampled(Image.fromarray(channel), resize, target)) for channel in exact]
    # Lanczos overshoots at edges; the picture's own range is kept.
    return np.stack(channels).clip(exact.min(), exact.max())
