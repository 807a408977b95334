"""What users give as a picture, brought to what travels: a path, bytes, a PIL picture, or an array.

Everything that can be wrong with an input is found here, before any network.
"""

from __future__ import annotations

import math
import os
import reprlib
from collections.abc import Collection, Mapping
from enum import Enum
from io import BytesIO
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from gramlet.errors import InvalidInput, NotFound
from gramlet.transport.channel import MESSAGE_BYTES
from gramlet.types import Picture, Resize, ResizeMode

if TYPE_CHECKING:
    from PIL import Image


PictureInput: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | NDArray[Any] | Image.Image"
"""A path, an encoded file, pixels (uint8 (H, W, 3), (H, W, 4) or (H, W); float (3, H, W) in 0..1), or a PIL picture."""

E = TypeVar("E", bound=Enum)
T = TypeVar("T")


# PNG keeps these as they are, so that the server sees what it would have seen in the file.
_PNG_MODES = {"1", "L", "LA", "I;16", "P", "RGB", "RGBA"}


def read_picture(value: PictureInput, field: str = "picture") -> Picture:
    """The picture as it travels: an encoded file, or pixels.

    Args:
        value: A path, bytes, a PIL picture, or an array (anything with `__array__`).
        field: What the caller calls it, for errors.

    Raises:
        NotFound: There is no such file.
        InvalidInput: Not a picture, an empty one, or an array of another shape or type.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return _checked_file(bytes(value), field, "the bytes")
    if isinstance(value, str | os.PathLike):
        return _checked_file(_read_file(value, field), field, os.fspath(value))
    if _is_pil(value):
        return _encode_pil(value, field)
    if hasattr(value, "__array__"):
        return _checked_array(np.asarray(value), field)
    kind = type(value).__name__
    raise InvalidInput(f"a picture is a path, bytes, a PIL picture or an array, not {kind}", field=field)


def read_mask(value: PictureInput, field: str = "mask") -> Picture:
    """A mask as it travels: like `read_picture`, but arrays may also be (H, W) of booleans or of floats in 0..1.

    Raises:
        NotFound: There is no such file.
        InvalidInput: Not a picture, an empty one, or an array of another shape or type.
    """
    if hasattr(value, "__array__") and not _is_pil(value) and (values := np.asarray(value)).ndim == 2:
        if values.dtype == np.bool_:
            return values.astype(np.uint8) * np.uint8(255)
        if values.size and np.issubdtype(values.dtype, np.floating):
            return _unit_floats(values, field)
    return read_picture(value, field)


def is_one_picture(value: object) -> bool:
    """Whether the value is one picture rather than several."""
    if isinstance(value, str | os.PathLike | bytes | bytearray | memoryview) or _is_pil(value):
        return True
    return hasattr(value, "__array__") and np.ndim(value) in (2, 3)


def _read_file(path: str | os.PathLike[str], field: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise NotFound(f"there is no file {os.fspath(path)}", field=field) from None
    except IsADirectoryError:
        raise InvalidInput(f"cannot read {os.fspath(path)}: a folder; give read_folder(...)", field=field) from None
    except OSError as error:
        raise InvalidInput(f"cannot read {os.fspath(path)}: {error.strerror}", field=field) from None


def _checked_file(data: bytes, field: str, name: str) -> bytes:
    if not data:
        raise InvalidInput(f"{name}: empty, not a picture", field=field)
    if len(data) >= MESSAGE_BYTES:
        raise InvalidInput(f"{name}: {len(data)} bytes do not fit a message of {MESSAGE_BYTES}", field=field)
    return data


def _is_pil(value: object) -> TypeGuard[Image.Image]:
    # Without importing PIL: a PIL picture can only come from a caller who has.
    return any(base.__module__ == "PIL.Image" and base.__name__ == "Image" for base in type(value).__mro__)


def _encode_pil(image: Image.Image, field: str) -> bytes:
    from PIL import ImageOps

    if not image.width or not image.height:
        raise InvalidInput("an empty picture", field=field)
    upright = ImageOps.exif_transpose(image)
    if upright.mode not in _PNG_MODES:
        # "I" is how older releases of PIL open 16-bit files.
        upright = upright.convert("I;16" if upright.mode == "I" else "RGB")
    file = BytesIO()
    upright.save(file, format="PNG", compress_level=1)
    return _checked_file(file.getvalue(), field, "the picture")


def _checked_array(values: NDArray[Any], field: str) -> Picture:
    if values.size == 0:
        raise InvalidInput(f"an empty array {values.shape}", field=field)
    if values.dtype == np.uint8 and (values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (3, 4))):
        return np.ascontiguousarray(values) if values.shape[2:] == (3,) else _encode_array(values, field)
    if np.issubdtype(values.dtype, np.floating) and values.ndim == 3 and values.shape[0] == 3:
        return _unit_floats(values, field)
    kind = f"{values.dtype} {values.shape}"
    raise InvalidInput(
        f"an array is uint8 (H, W, 3), (H, W, 4) or (H, W), or floating point (3, H, W), not {kind}", field=field
    )


def _unit_floats(values: NDArray[Any], field: str) -> NDArray[np.float32]:
    if not (values.min() >= 0 and values.max() <= 1):  # NaN fails as well
        raise InvalidInput("floating point pixels are in 0..1; for 0..255 give uint8", field=field)
    return np.ascontiguousarray(values, dtype=np.float32)


def _encode_array(values: NDArray[np.uint8], field: str) -> bytes:
    from PIL import Image

    return _encode_pil(Image.fromarray(values), field)


# --- settings ---


def choose(kind: type[E], value: E | str, field: str) -> E:
    """The member of an enumeration, given itself or its value such as `"lbfgs"`.

    Raises:
        InvalidInput: There is none of that value; the message lists them.
    """
    if isinstance(value, kind):
        return value
    for member in kind:
        if isinstance(value, str) and member.value == value:
            return member
    members = ", ".join(str(member.value) for member in kind)
    raise InvalidInput(f"{reprlib.repr(value)} is none of {members}", field=field)


def whole_number(value: Any, field: str, *, least: int = 0, most: int = 2**32 - 1) -> int:
    """A whole number in a range, given as any type of number: 64, 64.0, or a number of NumPy or torch.

    Raises:
        InvalidInput: Not a number, not whole, or out of the range.
    """
    number = _number_or_none(value)
    is_whole = number is not None and math.isfinite(number) and number == int(number)
    whole = int(value) if is_whole else -1  # of the value itself: floats round numbers above 2^53
    if not least <= whole <= most:
        kind = "a positive whole number" if least == 1 else f"a whole number, {least} or more"
        limit = f", at most {most}" if whole > most else ""
        raise InvalidInput(f"must be {kind}{limit}, not {reprlib.repr(value)}", field=field)
    return whole


def any_number(value: Any, field: str) -> float:
    """A number, given as any type of number. The service checks its range.

    Raises:
        InvalidInput: Not a number.
    """
    number = _number_or_none(value)
    if number is None:
        raise InvalidInput(f"must be a number, not {reprlib.repr(value)}", field=field)
    return number


def _number_or_none(value: Any) -> float | None:
    if isinstance(value, bool | str | bytes | bytearray | np.bool_):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None


def as_resize(value: Resize | Any, mode: ResizeMode, field: str = "resize") -> Resize:
    """How to resize, given itself or as a size in pixels, which the mode says the meaning of.

    Raises:
        InvalidInput: Neither.
    """
    return value if isinstance(value, Resize) else Resize(mode, whole_number(value, field, least=1))


def fill(kind: type[T], options: Mapping[str, Any], *, positive: Collection[str] = ()) -> T:
    """A dataclass of settings from keywords, each value brought to the type of its field.

    Enumerations may be given by their values, tuples as one value or any iterable, numbers as any type of number.

    Args:
        kind: The dataclass.
        options: The keywords; fields that they do not name keep their defaults.
        positive: Whole numbers that must not be 0.

    Raises:
        InvalidInput: A value that the field cannot have; the error names the keyword.
        TypeError: There is no such keyword.
    """
    hints = get_type_hints(kind)
    known = {name: value for name, value in options.items() if name in hints}
    values = {name: _as(hints[name], value, name, name in positive) for name, value in known.items()}
    return kind(**{**options, **values})


def _as(hint: Any, value: Any, field: str, positive: bool = False) -> Any:
    """The value as a field of that type holds it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is UnionType and value is not None:
        return _as(next(argument for argument in arguments if argument is not NoneType), value, field, positive)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return choose(hint, value, field)
    if hint is int:
        return whole_number(value, field, least=int(positive), most=2**64 - 1 if field == "seed" else 2**32 - 1)
    if hint is float:
        return any_number(value, field)
    if origin is tuple:
        return tuple(_as(arguments[0], item, field) for item in _several(value, field))
    if origin is Mapping:
        return _mapping(arguments[1], value, field)
    if hint in (str, bool) and not isinstance(value, (bool, np.bool_) if hint is bool else str):
        kinds = {str: "text", bool: "True or False"}
        raise InvalidInput(f"must be {kinds[hint]}, not {reprlib.repr(value)}", field=field)
    return bool(value) if hint is bool else value


def _several(value: Any, field: str) -> list[Any]:
    """The values, given as one of them or as an iterable."""
    if isinstance(value, str) or not hasattr(value, "__iter__") or np.ndim(value) == 0:
        return [value]
    return list(value)


def _mapping(hint: Any, value: Any, field: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidInput(f"must be a mapping from names, not {reprlib.repr(value)}", field=field)
    return {str(name): _as(hint, item, f"{field}[{name}]") for name, item in value.items()}
