"""Numbers, names, labels and settings as users hand them in, brought to the types that travel.

Where the meaning is clear, a value of another type is taken. Everything else is InvalidInput with the field.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import unicodedata
import warnings
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from datetime import timedelta
from enum import Enum
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

import numpy as np

from gramlet.errors import GramletError, InvalidCall, InvalidInput, as_utf8, did_you_mean, plain, quoted, shown
from gramlet.tensor.pixels import as_array, is_array
from gramlet.types import Resize, ResizeMode, new_name

E = TypeVar("E", bound=Enum)
T = TypeVar("T")
_ALIKE_SHOWN = 5


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
    members = [str(member.value) for member in kind]
    raise InvalidInput(f"{_quoted(value)} is none of {', '.join(members)}{did_you_mean(value, members)}", field=field)


def whole_number(value: Any, field: str, *, least: int = 0, most: int = 2**32 - 1) -> int:
    """A whole number in a range, given as any type of number: 64, 64.0, or a number of NumPy or torch.

    Raises:
        InvalidInput: Not a number, not whole, or out of the range.
    """
    number = _number_or_none(value)
    is_whole = number is not None and math.isfinite(number) and number == int(number)
    whole = int(value) if is_whole else least - 1  # of the value itself: floats round numbers above 2^53
    if not least <= whole <= most:
        kind = "a positive whole number" if least == 1 else f"a whole number, {least} or more"
        limit = f", at most {most}" if whole > most else ""
        raise InvalidInput(f"must be {kind}{limit}, not {_quoted(value)}", field=field)
    return whole


def any_number(value: Any, field: str) -> float:
    """A number, given as any type of number. The service checks its range.

    Raises:
        InvalidInput: Not a number.
    """
    number = _number_or_none(value)
    if number is None:
        raise InvalidInput(f"must be a number, not {_quoted(value)}", field=field)
    return number


def _number_or_none(value: Any) -> float | None:
    if isinstance(value, bool | str | bytes | bytearray | memoryview | np.bool_) or getattr(value, "ndim", 0) != 0:
        return None
    try:
        return float(value)
    except Exception:  # whatever the value's own conversion raises
        return None


def _quoted(value: Any) -> str:
    """A value of the wrong type, for a message: text is in quotes, so that '64' does not look like 64."""
    return quoted(value) if isinstance(value, str) else shown(value)


def seconds(value: Any, field: str) -> float | None:
    """A time in seconds, as a number or a timedelta; None and infinity are no limit.

    Raises:
        InvalidInput: Not a number, or less than 0.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    number = math.inf if value is None else any_number(value, field)
    if not number >= 0:  # NaN fails as well
        raise InvalidInput(f"must be a number of seconds, 0 or more, not {_quoted(value)}", field=field)
    return None if number == math.inf else number


def text(value: Any, field: str) -> str:
    """A name, or another text.

    Raises:
        InvalidInput: Not text.
    """
    if not isinstance(value, str):
        raise InvalidInput(f"must be text, not {shown(value)}", field=field)
    return as_utf8(str(value))


def name_or_new(value: Any, field: str) -> str:
    """The name that a caller gives to a run or a map, or a random one.

    Raises:
        InvalidInput: Not text, or empty.
    """
    name = new_name() if value is None else text(value, field)
    if not name:
        raise InvalidInput("an empty name: leave it out for a random one", field=field)
    return name


def digest_or_any(value: Any, field: str) -> str:
    """The digest of a network's weights; empty for any network, which None stands for as well.

    Raises:
        InvalidInput: Not 64 hexadecimal digits, nor such digits with `+` and a name of how pictures are decoded.
    """
    digest = "" if value is None else text(value, field).strip().lower()
    if digest and not re.fullmatch(r"[0-9a-f]{64}(\+[a-z0-9]{1,15})?", digest):
        raise InvalidInput(
            f"must be the digest that `gramlet status` shows, of 64 hexadecimal digits, not {shown(value)}", field=field
        )
    return digest


def label(value: Any, field: str) -> str:
    """A label, given as text or any other plain value: a number, a member of an enumeration, a path.

    None is no label, and neither is NaN.

    Raises:
        InvalidInput: A value of another type.
    """
    value = value.value if isinstance(value, Enum) else value
    if isinstance(value, bytes | os.PathLike):
        return plain(os.fsdecode(value))
    if is_array(value) and (array := as_array(value, field)).ndim == 0:
        value = array.item()
    if value is None or (isinstance(value, float) and math.isnan(value)):  # an empty cell of a table
        return ""
    if isinstance(value, str | bool | int | float):
        return plain(value if isinstance(value, str) else shown(value))
    raise InvalidInput(f"a label is text or a number, not {shown(value)}", field=field)


def lookalikes(labels: Iterable[str]) -> list[str]:
    """A sentence for classes that people take for one: their names differ in case, spaces, or how letters are composed.

    File systems differ in all of these, so that copies of one folder come to differ in them.
    """
    by_look: dict[str, list[str]] = {}
    for name in dict.fromkeys(labels):
        by_look.setdefault("".join(unicodedata.normalize("NFKC", name).casefold().split()), []).append(name)
    several = [", ".join(map(_in_ascii, alike[:_ALIKE_SHOWN])) for alike in by_look.values() if len(alike) > 1]
    return [f"the classes {names} look alike: are they one?" for names in several]


def _in_ascii(name: str) -> str:
    return quoted(name).encode("ascii", "backslashreplace").decode()


def warn_of_lookalikes(labels: Iterable[str], field: str) -> None:
    """Warns of classes that people take for one."""
    for sentence in lookalikes(labels):
        warnings.warn(f"{field}: {sentence}", stacklevel=2)


def unreadable(error: Exception, field: str) -> InvalidInput:
    """The error of an input that raised `error` while it was read. Raise it from that one."""
    return InvalidInput(f"cannot be read: {shown(str(error) or type(error).__name__)}", field=field)


def read_each(values: Iterable[T], field: str) -> Iterator[T]:
    """The values of a caller's iterable, one by one. The caller may go on with an iterator that is not read to its end.

    Raises:
        InvalidInput: The iterable raised an error that is not gramlet's: a closed file, or an error of a generator.
    """
    try:
        for value in values:  # noqa: UP028  # `yield from` would close the caller's generator together with this one
            yield value
    except GramletError:
        raise
    except Exception as error:
        raise unreadable(error, field) from error


def several(value: Any, field: str) -> list[Any]:
    """The values of a list or any other iterable.

    Raises:
        InvalidInput: Not an iterable, or one that cannot be read; or text, whose letters are not meant.
    """
    if isinstance(value, Mapping):
        raise InvalidInput("must be a list, not a mapping, whose values would be lost", field=field)
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | bytearray | type):
        return list(read_each(value, field))  # an array without axes calls itself iterable, and fails here
    raise InvalidInput(f"must be a list, not {_quoted(value)}", field=field)


def flag(value: Any, field: str) -> bool:
    """True or False.

    Raises:
        InvalidInput: Neither.
    """
    if not isinstance(value, bool | np.bool_):
        raise InvalidInput(f"must be True or False, not {_quoted(value)}", field=field)
    return bool(value)


def as_resize(value: Resize | Any, mode: ResizeMode, field: str = "resize") -> Resize:
    """How to resize, given itself or as a size in pixels, which the mode says the meaning of.

    Raises:
        InvalidInput: Neither.
    """
    if isinstance(value, Resize):
        return checked(Resize, value, field)
    return Resize(mode, whole_number(value, field, least=1))


def checked(kind: type[T], value: Any, field: str) -> T:
    """A dataclass that a caller made, with its values brought to the types of their fields.

    Raises:
        InvalidInput: Not that dataclass, or a value that a field cannot have.
    """
    if not isinstance(value, kind):
        raise InvalidInput(f"must be {kind.__name__}, not {shown(value)}", field=field)
    return fill(kind, {each.name: getattr(value, each.name) for each in dataclasses.fields(kind)}, at=f"{field}.")  # type: ignore[arg-type]


def check_keywords(options: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuses keywords that do not exist.

    Raises:
        InvalidCall: There is one; the error names the one that may be meant.
    """
    for name in options:
        if name not in known:
            raise InvalidCall(f"there is no such option{did_you_mean(name, known)}", field=name)


def fill(
    kind: type[T],
    options: Mapping[str, Any],
    *,
    positive: Collection[str] = (),
    at: str = "",
    called: Mapping[str, str] = {},  # never changed
) -> T:
    """A dataclass of settings from keywords, each value brought to the type of its field.

    Enumerations may be given by their values, tuples as one value or any iterable, numbers as any type of number.

    Args:
        kind: The dataclass.
        options: The keywords; fields that they do not name keep their defaults.
        positive: Whole numbers that must not be 0.
        at: Where the settings are, for errors: a prefix of the keyword.
        called: What callers call a field by another name, for errors.

    Raises:
        InvalidInput: There is no such keyword, or a value that the field cannot have; the error names the keyword.
    """
    hints = _hints(cast(Hashable, kind))
    check_keywords(options, hints)
    values = {
        name: _as(hints[name], value, at + called.get(name, name), name in positive) for name, value in options.items()
    }
    return kind(**values)


@lru_cache(maxsize=64)
def _hints(kind: Hashable) -> dict[str, Any]:
    return get_type_hints(cast(Any, kind))


def _as(hint: Any, value: Any, field: str, positive: bool = False) -> Any:
    """The value as a field of that type holds it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is UnionType:
        kinds = [argument for argument in arguments if argument is not NoneType]
        return _as(kinds[0], value, field, positive) if value is not None and len(kinds) == 1 else value
    if hint is int:
        most = 2**64 - 1 if field.endswith("seed") else 2**31 - 1
        return whole_number(value, field, least=int(positive), most=most)
    if origin is tuple:
        return tuple(_as(arguments[0], item, field) for item in _one_or_several(value, field))
    if origin is Mapping:
        return _mapping(arguments[1], value, field)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return choose(hint, value, field)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return checked(hint, value, field)
    read: Any = {float: any_number, str: text, bool: flag, bytes: _bytes}.get(hint)
    return value if read is None else read(value, field)


def _bytes(value: Any, field: str) -> bytes:
    if not isinstance(value, bytes | bytearray):
        raise InvalidInput(f"must be bytes, not {shown(value)}", field=field)
    return bytes(value)


def _one_or_several(value: Any, field: str) -> list[Any]:
    """The values, given as one of them or as an iterable."""
    if isinstance(value, str | bytes | memoryview | type) or not isinstance(value, Iterable):
        return [value]
    return [value] if getattr(value, "ndim", 1) == 0 else several(value, field)


def _mapping(hint: Any, value: Any, field: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidInput(f"must be a mapping from names, not {shown(value)}", field=field)
    return {
        text(name, field): _as(hint, item, f"{field}[{shown(name)}]") for name, item in read_each(value.items(), field)
    }
