"""Dataclasses as JSON: one codec for what the services keep in the store and for what `--json` prints.

Enumerations are written as their values, tuples and arrays as lists, keys as text. Bytes are left out: they are
pictures and drawings, which are kept as files of their own. `from_json` ignores unknown keys; missing ones take the
dataclass's default.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Hashable, Mapping
from enum import Enum
from functools import lru_cache
from typing import Any, TypeVar, cast

import numpy as np

from gramlet.errors import as_utf8

T = TypeVar("T")


def to_json(value: Any) -> bytes:
    """A dataclass for the store. Python reads its NaN and Infinity; other programs may not."""
    return json.dumps(plain(value), ensure_ascii=False).encode()


def to_line(event: str, /, **values: Any) -> str:
    """An event as `--json` prints it, `{"event": event, ...}`; numbers that are not finite are null.

    Bytes of file names that are not UTF-8 become escapes such as \\xe9.
    """
    return json.dumps({"event": event, **_finite(plain(values))})


def plain(value: Any, *, keep_none: bool = True, digits: int | None = None) -> Any:
    """The value as `json.dumps` takes it.

    Args:
        value: Dataclasses, enumerations, mappings, lists, tuples, arrays, numbers, text.
        keep_none: Whether fields of dataclasses that are None are written.
        digits: Decimal places of the numbers in arrays; None: all.
    """

    def of(item: Any) -> Any:
        return plain(item, keep_none=keep_none, digits=digits)

    if dataclasses.is_dataclass(value):
        pairs = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        kept = (pair for pair in pairs if not isinstance(pair[1], bytes) and (keep_none or pair[1] is not None))
        return {name: of(item) for name, item in kept}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): of(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [of(item) for item in value]
    if isinstance(value, np.ndarray):
        # Rounded as float64: rounded float32 numbers would be written with digits of noise.
        return (value if digits is None else np.round(value.astype(np.float64), digits)).tolist()
    return value.item() if isinstance(value, np.generic) else value


def from_json(kind: type[T], data: bytes) -> T:
    """The dataclass that `to_json` wrote.

    Raises:
        ValueError, TypeError: Something else wrote the data.
    """
    result: T = _build(kind, json.loads(data))
    return result


def _finite(value: Any) -> Any:
    if isinstance(value, str):
        return as_utf8(value)
    if isinstance(value, dict):
        return {as_utf8(name): _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _build(kind: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return tuple(_build(arguments[0], item) for item in value)
    if origin is Mapping:
        return {arguments[0](key): _build(arguments[1], item) for key, item in value.items()}
    if origin is types.UnionType:
        return None if value is None else _build(next(a for a in arguments if a is not type(None)), value)
    if dataclasses.is_dataclass(kind):
        hints = _hints(cast(Hashable, kind))
        names = [field.name for field in dataclasses.fields(kind) if field.name in value]
        return kind(**{name: _build(hints[name], value[name]) for name in names})  # type: ignore[operator]
    if isinstance(kind, type) and issubclass(kind, (Enum, float)):
        return kind(value)
    if kind in (bool, int, str) and type(value) is not kind:
        raise TypeError(f"{type(value).__name__} in place of {kind.__name__}")
    return value


@lru_cache(maxsize=256)
def _hints(kind: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(cast(Any, kind))
