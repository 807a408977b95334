"""Enumerations on the wire, as tables in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Generic, TypeVar

from gramlet.errors import InvalidInput

T = TypeVar("T", bound=Enum)


class EnumCodec(Generic[T]):
    """One enumeration: the Python members and their wire values. 0, the unset value, stands for `default`."""

    def __init__(self, members: Mapping[T, int], default: T | None = None) -> None:
        self._to_wire = dict(members)
        self._from_wire: dict[int, T | None] = {0: default} | {value: member for member, value in members.items()}

    def encode(self, member: T | None) -> Any:  # the stubs' types of enumerations do not exist at run time
        """The wire value, an int; None is the unset value."""
        return 0 if member is None else self._to_wire[member]

    def decode_optional(self, value: int, field: str) -> T | None:
        """The member; the default, or None without one, if unset.

        Raises:
            InvalidInput: A value that this release does not know.
        """
        if value not in self._from_wire:
            raise InvalidInput(f"unknown value {value}", field=field)
        return self._from_wire[value]

    def decode(self, value: int, field: str) -> T:
        """The member.

        Raises:
            InvalidInput: Unset without a default, or a value that this release does not know.
        """
        member = self.decode_optional(value, field)
        if member is None:
            raise InvalidInput("must be set", field=field)
        return member
