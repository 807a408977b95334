"""Messages that cross the wire, made by the product's encoders: what the golden bytes are taken of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from google.protobuf.message import Message


@dataclass(frozen=True)
class Case:
    """One message.

    Attributes:
        name: Unique among the cases of a service.
        message: As the encoder makes it; or built by hand where the product has no encoder.
        decode: The product's decoder of such messages; None where it has none.
        value: What the decoder must return.
    """

    name: str
    message: Message
    decode: Callable[[Any], Any] | None = None
    value: Any = None


PIXELS = np.array([[[0, 64], [128, 255]], [[1, 2], [3, 4]], [[250, 251], [252, 253]]], np.uint8).transpose(1, 2, 0)
"""A picture (2, 2, 3) of bytes."""
PICTURE = np.array([[[0.0, 0.25]], [[0.5, 0.75]], [[1.0, 0.125]]], np.float32)
"""A picture (3, 1, 2) of floats."""
MASK = np.array([[0.0, 1.0]], np.float32)
"""A mask (1, 2) of it."""
FILE = b"\xff\xd8 a file"
"""An encoded picture, as far as the wire is concerned."""
DIGEST = "0123456789abcdef"


def with_each(value: Any, field: str, members: type[Enum]) -> Iterator[tuple[str, Any]]:
    """The dataclass with the field set to each member of an enumeration in turn, and the member's name."""
    for member in members:
        yield f"{field} {member.name.lower()}", dataclasses.replace(value, **{field: member})


def plain(value: Any) -> Any:
    """A value that `==` can compare: arrays by type, shape and bytes, errors by class and contents, NaN as itself."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return type(value).__name__, {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, Exception):
        return type(value).__name__, plain(vars(value))
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return "NaN" if isinstance(value, float) and value != value else value
