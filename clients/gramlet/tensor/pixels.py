"""Pixels as people have them, arrays, tensors and PIL pictures of any kind, brought to what travels.

Nothing here imports torch or PIL before somebody hands in a value of theirs.
"""

from __future__ import annotations

import logging
import math
from io import BytesIO
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import numpy as np
from numpy.typing import NDArray

from gramlet.errors import InvalidInput, shown
from gramlet.folders.rules import PEEK_BYTES, is_picture
from gramlet.types import Array, Limits, Picture, Pixels, Resize, ResizeMode

if TYPE_CHECKING:
    from PIL import Image

P = TypeVar("P", bound=Picture | None)

_log = logging.getLogger("gramlet")
_LARGEST = Limits.message_bytes - 2**20  # the rest of a message is for everything but pictures

MESSAGE_MEGABYTES = _LARGEST / 1e6
"""What the pictures of one message may have together."""

_MARGIN = 2
"""A picture is reduced on its way to at least this many times the size that the service will reduce it to."""

_OVERSHOOT = 0.25
"""Cubic and Lanczos filters overshoot: pixels may leave 0..1 by so much, and so large a share of them may."""

# PNG keeps these as they are, so that the server sees what it would have seen in the file.
_PNG_MODES = {"1", "L", "LA", "I;16", "P", "RGB", "RGBA"}

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""What the services read. For some other formats Pillow starts other programs."""


def is_pil(value: object) -> TypeGuard[Image.Image]:
    """Whether the value is a picture of PIL."""
    return any(base.__module__ == "PIL.Image" and base.__name__ == "Image" for base in type(value).__mro__)


def is_array(value: object) -> bool:
    """Whether the value is an array, or a tensor, which becomes one."""
    # Text and bytes of NumPy are text and bytes.
    return not isinstance(value, type | str | bytes) and hasattr(value, "__array__") and not is_pil(value)


def as_array(value: Any, field: str) -> NDArray[Any]:
    """An array of NumPy from anything like one, such as a tensor that requires a gradient or is on a GPU.

    Raises:
        InvalidInput: It cannot be read.
    """
    try:
        for step in ("detach", "cpu"):
            value = getattr(value, step)() if callable(getattr(value, step, None)) else value
        try:
            array = np.asarray(value)
        except TypeError:
            array = np.asarray(value.float())  # NumPy has no bfloat16
        is_small_float = array.dtype.name.startswith(("bfloat16", "float8"))  # of ml_dtypes, as jax has them
        return array.astype(np.float32) if is_small_float else array
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise InvalidInput(f"cannot be read as an array: {shown(reason)}", field=field) from None


def is_encoded(values: NDArray[Any]) -> bool:
    """Whether an array holds the bytes of a file: one axis, or one column as `cv2.imencode` returns it."""
    if values.dtype != np.uint8 or values.size == 0:
        return False
    is_column = values.ndim == 2 and 1 in values.shape
    return values.ndim == 1 or (is_column and is_picture(values.ravel()[:PEEK_BYTES].tobytes()))


def read_array(values: NDArray[Any], field: str, resize: Resize | None = None) -> Picture:
    """The picture in an array: levels 0..255 of integers, 0..65535 of uint16, 0..1 of floating point numbers.

    Its shape is (H, W), or has 1, 3 or 4 channels first or last. Where both could be meant, they are last in integers
    and first in floating point numbers.

    Raises:
        InvalidInput: Another shape, type or range; or too large.
    """
    planes = _channels_last(values, field)
    _check_pixels(planes.shape[1], planes.shape[0], field)
    if planes.dtype.kind == "f" or planes.dtype == np.uint16:
        return _fitting_floats(_unit_planes(planes, field), resize, field)
    levels = _levels(planes, field)
    if levels.shape[2] == 3 and levels.nbytes <= _LARGEST:
        return np.ascontiguousarray(levels)
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(levels[:, :, 0] if levels.shape[2] == 1 else levels))
    return fitting(_encode(image), resize, field, "the array")


def read_mask_array(values: NDArray[Any], field: str) -> Picture:
    """The mask in an array: as `read_array`, but of one channel. 0 and 1 of any type are outside and inside.

    Raises:
        InvalidInput: Another shape, type or range; or too large.
    """
    planes = _channels_last(values, field)
    if planes.shape[2] != 1:
        return read_array(values, field)
    _check_pixels(planes.shape[1], planes.shape[0], field)
    if planes.dtype.kind == "f" or planes.dtype == np.uint16:
        return np.ascontiguousarray(_unit_planes(planes, field)[0])
    levels = _levels(planes, field)[:, :, 0]
    return np.ascontiguousarray(levels if levels.max() > 1 else levels * np.uint8(255))


def read_pil(image: Image.Image, field: str, resize: Resize | None = None) -> Picture:
    """A picture of PIL as a PNG file, turned upright.

    Raises:
        InvalidInput: Its file is closed, cut short or broken, or it is too large.
    """
    from PIL import ImageOps

    try:
        _check_pixels(image.width, image.height, field)
        upright = ImageOps.exif_transpose(image)
        if upright.mode in ("F", "I"):  # "I" is how older releases of PIL open 16-bit files
            return read_array(_of_deep(np.asarray(upright), field), field, resize)
        if upright.mode in _PNG_MODES:
            data = _encode(upright)
        else:
            data = _encode(upright.convert("RGBA" if upright.has_transparency_data else "RGB"), icc_profile=None)
    except InvalidInput:
        raise
    except Exception as error:  # broken files make decoders raise nearly anything
        raise InvalidInput(f"the picture of PIL cannot be read: {_reason(error)}", field=field) from None
    return fitting(data, resize, field, "the picture")


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
    if len(data) > _LARGEST:
        raise InvalidInput(
            f"{name} has {len(data) / 1e6:.1f} MB and does not fit a message, which holds {MESSAGE_MEGABYTES:.0f}: "
            "send it smaller",
            field=field,
        )
    return data


def decoded_size(picture: Picture, field: str) -> tuple[int, int]:
    """Width and height of a picture that travels, which is decoded in full.

    Raises:
        InvalidInput: The file is cut short or broken, or has too many pixels.
    """
    if not isinstance(picture, bytes):
        height, width = picture.shape[:2] if picture.dtype == np.uint8 else picture.shape[-2:]
        return width, height
    from PIL import Image

    try:
        with Image.open(BytesIO(picture), formats=_FORMATS) as image:
            _check_pixels(image.width, image.height, field)
            image.load()
            return image.size
    except InvalidInput:
        raise
    except Exception as error:  # broken files make decoders raise nearly anything
        raise InvalidInput(f"the file cannot be decoded: {_reason(error)}", field=field) from None


def _size_of(data: bytes) -> str:
    from PIL import Image

    with Image.open(BytesIO(data), formats=_FORMATS) as image:
        return f"{image.width} x {image.height}"


def reduced(picture: P, resize: Resize | None) -> P | bytes:
    """A picture that travels, smaller if the service would reduce it anyway."""
    if picture is None or (isinstance(picture, np.ndarray) and picture.dtype != np.uint8):
        return picture
    from PIL import Image

    data = picture if isinstance(picture, bytes) else _encode(Image.fromarray(picture))
    smaller = _reduce_file(data, resize)
    return picture if smaller is None or len(smaller) >= picture_bytes(picture) else smaller


def picture_bytes(picture: Picture | None) -> int:
    """The bytes of a picture that travels."""
    return 0 if picture is None else len(picture) if isinstance(picture, bytes) else picture.nbytes


# --- arrays


def _channels_last(values: NDArray[Any], field: str) -> NDArray[Any]:
    """A view (H, W, channels)."""
    if values.size == 0:
        raise InvalidInput(f"an empty array {values.shape}", field=field)
    if values.dtype.kind in "buif":
        if values.ndim == 2:
            return values[:, :, None]
        if values.ndim == 3:
            is_first = values.shape[0] in (1, 3) or (values.shape[0] == 4 and min(values.shape[1:]) > 4)
            is_last = values.shape[2] in (1, 3, 4)
            if is_last and not (is_first and values.dtype.kind == "f"):
                return values
            if is_first:
                return np.moveaxis(values, 0, 2)
    raise InvalidInput(
        f"an array of pixels is (H, W), or has 1, 3 or 4 channels first or last, and holds numbers; not "
        f"{shown(values.dtype)} {values.shape}",
        field=field,
    )


def _check_pixels(width: int, height: int, field: str) -> None:
    if not width or not height:
        raise InvalidInput("an empty picture", field=field)
    if width * height > Limits.decoded_pixels:
        raise InvalidInput(
            f"{width} x {height} is {width * height:,} pixels; a picture may have {Limits.decoded_pixels:,}: send it "
            "smaller",
            field=field,
        )


def _levels(planes: NDArray[Any], field: str) -> Pixels:
    if planes.dtype == np.uint8:
        return planes
    if planes.dtype == np.bool_:
        return planes.astype(np.uint8) * np.uint8(255)
    low, high = planes.min(), planes.max()
    if low < 0 or high > 255:
        raise InvalidInput(f"whole numbers as pixels are in 0..255, these are in {low}..{high}", field=field)
    return planes.astype(np.uint8)


def _unit_planes(planes: NDArray[Any], field: str) -> Array:
    """(3, H, W) or (1, H, W) in 0..1; what is transparent is white, as the service lays it on white."""
    floats = _unit_floats(planes / np.float32(65535) if planes.dtype == np.uint16 else planes, field)
    if floats.shape[2] == 4:
        alpha = floats[:, :, 3:]
        floats = floats[:, :, :3] * alpha + (1 - alpha)
    return np.ascontiguousarray(np.moveaxis(floats, 2, 0))


def _unit_floats(values: NDArray[Any], field: str) -> Array:
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InvalidInput("pixels that are not finite numbers", field=field)
    if low < 0 or high > 1:
        outside = float(np.mean((values < 0) | (values > 1)))
        if low < -_OVERSHOOT or high > 1 + _OVERSHOOT or outside > _OVERSHOOT:
            raise InvalidInput(
                f"floating point pixels are in 0..1, these are in {low:.4g}..{high:.4g}: scale them, or give uint8",
                field=field,
            )
        values = values.clip(0, 1)
    return np.asarray(values, dtype=np.float32)


def _fitting_floats(floats: Array, resize: Resize | None, field: str) -> Array:
    floats = np.repeat(floats, 3, axis=0) if len(floats) == 1 else floats
    if floats.nbytes <= _LARGEST:
        return floats
    factor = _factor(floats.shape[2], floats.shape[1], resize)
    if floats.nbytes // factor**2 > _LARGEST:
        megabytes = f"{floats.nbytes / 1e6:.1f} MB do not fit a message, which holds {_LARGEST / 1e6:.0f}"
        raise InvalidInput(f"the array has {megabytes}: send it smaller, or as uint8", field=field)
    from PIL import Image

    return np.stack([np.asarray(Image.fromarray(plane).reduce(factor)) for plane in floats])


def _of_deep(values: NDArray[Any], field: str) -> NDArray[Any]:
    """16 bits of PIL's 32-bit mode; floating point numbers as they are."""
    if values.dtype.kind == "f":
        return values
    if values.min() < 0 or values.max() > 65535:
        raise InvalidInput("whole numbers of more than 16 bits have no known range", field=field)
    return values.astype(np.uint16)


# --- files


def _encode(image: Image.Image, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, format="PNG", compress_level=1, **options)
    return file.getvalue()


def _reduce_file(data: bytes, resize: Resize | None) -> bytes | None:
    """The picture as a PNG file, as small as the service's resizing allows; None if it cannot be read."""
    from PIL import Image, ImageOps

    try:
        image: Image.Image = Image.open(BytesIO(data), formats=_FORMATS)
        if image.width * image.height > Limits.decoded_pixels:
            return None
        upright = ImageOps.exif_transpose(image)
        if upright.mode not in ("L", "LA", "RGB", "RGBA"):
            upright = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
        factor = _factor(upright.width, upright.height, resize)
        return _encode(upright.reduce(factor) if factor > 1 else upright)
    except Exception:  # the service says what is wrong with it
        return None


def _factor(width: int, height: int, resize: Resize | None) -> int:
    """By which whole number a picture can be reduced, so that the service still has _MARGIN times what it needs."""
    if resize is None or resize.mode is ResizeMode.KEEP or resize.size < 1:
        return 1
    side = max(width, height) if resize.mode is ResizeMode.LONGEST_SIDE else min(width, height)
    return max(1, side // (_MARGIN * resize.size))


def _reason(error: Exception) -> str:
    text = shown(str(error) or type(error).__name__)
    if "closed" in text or "NoneType" in text:
        return "its file is closed: call load() before, or give the path"
    return "its file is cut short" if "truncated" in text else text
