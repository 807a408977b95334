"""Messages too large for one message: serialized, and sent in parts. A picture of 4000 x 3000 floats has 144 MB."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from google.protobuf.message import DecodeError

from gramlet.errors import InvalidInput

Message = TypeVar("Message", bound=Any)
"""One with a oneof `message` that has a `part`."""

WHOLE_BYTES = 32 * 2**20
"""The most bytes of a message that travels whole."""
PART_BYTES = 3 * 2**20
"""Bytes of each part: below gRPC's own default limit of 4 MiB, so that every server and client accepts it."""
MOST_BYTES = 2**30
"""The most bytes of a message that is joined from parts."""


def split(message: Message) -> Iterator[Message]:
    """The message itself, or its parts if it is large."""
    if message.ByteSize() <= WHOLE_BYTES:
        yield message
        return
    data = memoryview(message.SerializeToString())
    for start in range(0, len(data), PART_BYTES):
        carrier = type(message)()
        carrier.part.data = bytes(data[start : start + PART_BYTES])
        carrier.part.last = start + PART_BYTES >= len(data)
        yield carrier


class Joiner(Generic[Message]):
    """Joins the parts of messages."""

    def __init__(self, reserve: Callable[[int], None] = lambda size: None) -> None:
        self._data = bytearray()
        self._reserve = reserve

    def clear(self) -> None:
        """Drops the parts that are held."""
        self._data = bytearray()

    def add(self, message: Message) -> Message | None:
        """The message that is complete with this one; None if parts are missing.

        Raises:
            InvalidInput: Something else between two parts, too much, or parts that are no message.
        """
        if message.WhichOneof("message") != "part":
            if self._data:
                raise InvalidInput("the last part is missing", field="part")
            return message
        size = len(self._data) + len(message.part.data)
        if size > MOST_BYTES:
            raise InvalidInput(f"a message of more than {MOST_BYTES:,} bytes: send less at once", field="part")
        self._reserve(3 * size)  # while the last part is joined: as they came, as bytes, and as a message
        self._data += message.part.data
        if not message.part.last:
            return None
        data, self._data = bytes(self._data), bytearray()
        try:
            whole: Message = type(message).FromString(data)
        except DecodeError:
            raise InvalidInput("the parts make no message", field="part") from None
        self._reserve(len(data))
        return whole
