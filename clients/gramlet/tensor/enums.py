"""Enumerations on the wire, as tables in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Generic, TypeVar

from gramlet.errors import InvalidInput

E = TypeVar("E", bound=Enum)


class EnumCodec(Generic[E]):
    """One enumeration: its members and their values on the wire.

    Args:
        members: The value of each member.
        default: The member that the unset value, 0, stands for; None: it must be set.
    """

    def __init__(self, members: Mapping[E, int], default: E | None = None) -> None:
        self._to_wire = dict(members)
        self._from_wire = {value: member for member, value in members.items()}
        if default is not None:
            self._from_wire.setdefault(0, default)

    def encode(self, member: E) -> Any:  # the stubs' types of enumerations do not exist at run time
        """The value on the wire, an int."""
        return self._to_wire[member]

    def decode(self, value: int, field: str) -> E:
        """The member.

        Raises:
            InvalidInput: Unset without a default, or a value that this release does not know.
        """
        if value in self._from_wire:
            return self._from_wire[value]
        raise InvalidInput(f"unknown value {value}" if value else "must be set", field=field)
