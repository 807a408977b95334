"""Pixels as people have them, arrays, tensors and PIL pictures of any kind, brought to what travels.

Nothing here imports torch or PIL before somebody hands in a value of theirs.
"""

from __future__ import annotations

import math
import warnings
from io import BytesIO
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from gramlet.errors import InvalidInput, shown
from gramlet.folders.rules import PEEK_BYTES, is_picture
from gramlet.tensor.fitting import FORMATS, LARGEST, encode_png, fitting, reduction
from gramlet.types import Array, Limits, Picture, Pixels, Resize

if TYPE_CHECKING:
    from PIL import Image

_OVERSHOOT = 0.25
"""Cubic and Lanczos filters overshoot: pixels may leave 0..1 by so much, and so large a share of them may."""

_DEEP = 2**16 - 1
_EIGHT_BITS, _TWELVE_BITS = 2**8 - 1, 2**12 - 1

# PNG keeps these as they are, so that the server sees what it would have seen in the file.
_PNG_MODES = {"1", "L", "LA", "I;16", "P", "RGB", "RGBA"}


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
        array = array.astype(np.float32 if is_small_float else array.dtype.newbyteorder("="), copy=False)
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise InvalidInput(f"cannot be read as an array: {shown(reason)}", field=field) from None
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        # NumPy hands out what is below the mask, which nobody is meant to see.
        raise InvalidInput("a masked array: say what is in its gaps, array.filled(0)", field=field)
    return array


def as_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """The numbers as they travel. Those too large become infinite, which the service refuses by name."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, dtype=np.float32)


def is_encoded(values: NDArray[Any]) -> bool:
    """Whether an array holds the bytes of a file: one axis, or one column as `cv2.imencode` returns it."""
    if values.dtype != np.uint8 or values.size == 0:
        return False
    is_column = values.ndim == 2 and 1 in values.shape
    return values.ndim == 1 or (is_column and is_picture(values.ravel()[:PEEK_BYTES].tobytes()))


def read_array(values: NDArray[Any], field: str, resize: Resize | None = None) -> Picture:
    """The picture in an array: levels 0..255 of integers, 0..65535 of uint16, 0..1 of floating point numbers.

    The type alone says which scale is meant. Values that hardly use it are refused or warned about: see `_check_scale`.
    Its shape is (H, W), or has 1, 3 or 4 channels first or last. Where both could be meant, they are last in integers
    and first in floating point numbers.

    Raises:
        InvalidInput: Another shape, type or range; or too large.
    """
    planes = _channels_last(values, field)
    _check_pixels(planes.shape[1], planes.shape[0], field)
    _check_scale(planes, field)
    if planes.dtype.kind == "f" or planes.dtype == np.uint16:
        return _fitting_floats(_unit_planes(planes, field), resize, field)
    levels = _levels(planes, field)
    if levels.shape[2] == 3 and levels.nbytes <= LARGEST:
        return np.ascontiguousarray(levels)
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(levels[:, :, 0] if levels.shape[2] == 1 else levels))
    return fitting(encode_png(image), resize, field, "the array")


def read_mask_array(values: NDArray[Any], field: str) -> Picture:
    """The mask in an array: as `read_array`, but of one channel. 0 and 1 of any type are outside and inside.

    Raises:
        InvalidInput: Another shape, type or range; or too large.
    """
    planes = _channels_last(values, field)
    if planes.shape[2] != 1:
        return read_array(values, field)
    _check_pixels(planes.shape[1], planes.shape[0], field)
    if planes.dtype.kind in "ui" and planes.min() >= 0 and planes.max() <= 1:
        planes = planes.astype(np.bool_)
    _check_scale(planes, field)
    if planes.dtype.kind == "f" or planes.dtype == np.uint16:
        return np.ascontiguousarray(_unit_planes(planes, field)[0])
    return np.ascontiguousarray(_levels(planes, field)[:, :, 0])


def read_pil(image: Image.Image, field: str, resize: Resize | None = None) -> Picture:
    """A picture of PIL as a PNG file, turned upright.

    Raises:
        InvalidInput: Its file is closed, cut short or broken, or it is too large.
    """
    from PIL import Image, ImageOps

    try:
        _check_pixels(image.width, image.height, field)
        upright = ImageOps.exif_transpose(image)
        if upright.mode == "F" or upright.mode.startswith("I"):  # "I" is how older releases of PIL open 16-bit files
            array = _of_deep(np.asarray(upright), field)
            if array.dtype.kind == "f":
                return read_array(array, field, resize)
            _check_scale(array, field)
            upright = upright if upright.mode == "I;16" else Image.fromarray(array)
        if upright.mode in _PNG_MODES:
            data = encode_png(upright)
        else:
            data = encode_png(upright.convert("RGBA" if upright.has_transparency_data else "RGB"), icc_profile=None)
    except InvalidInput:
        raise
    except Exception as error:  # broken files make decoders raise nearly anything
        raise InvalidInput(f"the picture of PIL cannot be read: {_reason(error)}", field=field) from None
    return fitting(data, resize, field, "the picture")


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
        with Image.open(BytesIO(picture), formats=FORMATS) as image:
            _check_pixels(image.width, image.height, field)
            image.load()
            return image.size
    except InvalidInput:
        raise
    except Exception as error:  # broken files make decoders raise nearly anything
        raise InvalidInput(f"the file cannot be decoded: {_reason(error)}", field=field) from None


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
    if low < 0 or high > _EIGHT_BITS:
        fix = "scale them to it" if low < 0 or high > _DEEP else "give 16 bits as uint16, array.astype('uint16')"
        raise InvalidInput(f"whole numbers as pixels are in 0..255, these are in {low}..{high}: {fix}", field=field)
    return planes.astype(np.uint8)


def _check_scale(values: NDArray[Any], field: str) -> None:
    """Refuses 16-bit levels that are 8-bit levels: they would be black. Warns of others that are nearly black.

    Raises:
        InvalidInput: Levels of uint16 that are not all 0, and none above 255.
    """
    if values.dtype.kind not in "ui" or not (high := int(values.max(initial=0))) > 0:
        return
    if values.dtype == np.uint16 and high <= _EIGHT_BITS:
        raise InvalidInput(
            f"uint16 levels go from 0 to {_DEEP}, and these end at {high}, which is black: give 8-bit levels as uint8, "
            "array.astype('uint8')",
            field=field,
        )
    if values.dtype == np.uint16 and high <= _TWELVE_BITS:
        what = f"uint16 levels go from 0 to {_DEEP}, and these end at {high}"
        warnings.warn(f"{field}: {what}: a dark picture. Of 12 bits, give array * 16", stacklevel=2)
    elif high == 1:
        warnings.warn(f"{field}: levels go from 0 to 255, and these are 0 and 1: black. Give bool", stacklevel=2)


def _unit_planes(planes: NDArray[Any], field: str) -> Array:
    """(3, H, W) or (1, H, W) in 0..1; what is transparent is white, as the service lays it on white."""
    floats = _unit_floats(planes / np.float32(_DEEP) if planes.dtype == np.uint16 else planes, field)
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
    if floats.nbytes <= LARGEST:
        return floats
    factor = reduction(floats.shape[2], floats.shape[1], resize)
    if floats.nbytes // factor**2 > LARGEST:
        megabytes = f"{floats.nbytes / 1e6:.1f} MB do not fit a message, which holds {LARGEST / 1e6:.0f}"
        raise InvalidInput(f"the array has {megabytes}: send it smaller, or as uint8", field=field)
    from PIL import Image

    return np.stack([np.asarray(Image.fromarray(plane).reduce(factor)) for plane in floats])


def _of_deep(values: NDArray[Any], field: str) -> NDArray[Any]:
    """16 bits of PIL's 32-bit mode; floating point numbers as they are."""
    if values.dtype.kind == "f":
        return values
    if values.min() < 0 or values.max() > _DEEP:
        raise InvalidInput("whole numbers of more than 16 bits have no known range: scale them to 16", field=field)
    return values.astype(np.uint16)


def _reason(error: Exception) -> str:
    text = shown(str(error) or type(error).__name__)
    if "closed" in text or "NoneType" in text:
        return "its file is closed: call load() before, or give the path"
    return "its file is cut short" if "truncated" in text else text
