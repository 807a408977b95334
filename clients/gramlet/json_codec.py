"""Dataclasses as JSON, for what services keep in the store. Unknown keys are ignored, missing ones default."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar

T = TypeVar("T")


def to_json(value: Any) -> bytes:
    """A dataclass, or a list of dataclasses, as JSON. Enumerations are written as their values."""
    return json.dumps(value, default=_plain, ensure_ascii=False).encode()


def from_json(kind: type[T], data: bytes) -> T:
    """The dataclass that `to_json` wrote."""
    result: T = _build(kind, json.loads(data))
    return result


def list_from_json(kind: type[T], data: bytes) -> list[T]:
    """The list of dataclasses that `to_json` wrote."""
    return [_build(kind, item) for item in json.loads(data)]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        # bytes are drawings: they can be drawn again, and have no place in JSON.
        pairs = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {name: item for name, item in pairs if not isinstance(item, bytes)}
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"no JSON for {type(value).__name__}")


def _build(kind: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return tuple(_build(arguments[0], item) for item in value)
    if origin is Mapping:
        # JSON has only text for keys.
        return {arguments[0](key): _build(arguments[1], item) for key, item in value.items()}
    if origin is types.UnionType:
        return None if value is None else _build(next(a for a in arguments if a is not type(None)), value)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        names = [field.name for field in dataclasses.fields(kind) if field.name in value]
        return kind(**{name: _build(hints[name], value[name]) for name in names})  # type: ignore[operator]
    if isinstance(kind, type) and issubclass(kind, (Enum, float)):
        return kind(value)
    return value
