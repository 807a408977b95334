"""Dataclasses and enumerations as messages and back, by tables.

A value travels in the message's field of the same name; a table says only what does not travel as it is.

A table is checked when its module is imported, so that a misspelled or forgotten field fails at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, Generic, Protocol, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from gramlet.errors import InvalidInput

T = TypeVar("T")
E = TypeVar("E", bound=Enum)
M = TypeVar("M", bound=Message)

_EMPTY_IS_UNSET = {FieldDescriptor.TYPE_ENUM, FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES}
_NEEDS_CONVERTER = {FieldDescriptor.TYPE_ENUM, FieldDescriptor.TYPE_MESSAGE}
_REQUIRED = dataclasses.MISSING


class Converter(Protocol):
    """Turns one value of a dataclass into what its field of the message holds, and back."""

    def encode(self, value: Any, /) -> Any:
        """What the field holds; None leaves it unset."""

    def decode(self, value: Any, field: str, /) -> Any:
        """The value. `field` is its place in the request, for errors."""


@dataclasses.dataclass(frozen=True)
class Functions:
    """A converter made of two functions."""

    encode: Callable[[Any], Any]
    decode: Callable[[Any, str], Any]


def checked(check: Callable[[Any, str], Any]) -> Functions:
    """A converter of values that travel as they are and are checked when they arrive."""
    return Functions(lambda value: value, check)


def each(converter: Converter) -> Functions:
    """A converter of repeated fields: the values are tuples."""

    def decode(values: Iterable[Any], field: str) -> tuple[Any, ...]:
        return tuple(converter.decode(value, f"{field}[{index}]") for index, value in enumerate(values))

    return Functions(lambda values: [converter.encode(value) for value in values], decode)


class EnumCodec(Generic[E]):
    """One enumeration: its members and their values on the wire.

    A reply of a newer server may have a value that this release does not know. It becomes a member of its own, whose
    name and value say so. Servers refuse such values in requests (`gramlet_server.runtime.bounds`).

    Args:
        members: The value of each member.
        default: The member that the unset value, 0, stands for; None: it must be set.
        closed: Refuse unknown values, where nothing can be done without knowing them.
    """

    def __init__(self, members: Mapping[E, int], default: E | None = None, *, closed: bool = False) -> None:
        self._kind = type(next(iter(members)))
        self._closed = closed
        self._to_wire = dict(members)
        self._from_wire = {value: member for member, value in members.items()}
        if default is not None:
            self._from_wire.setdefault(0, default)

    def encode(self, member: E) -> Any:  # the stubs' types of enumerations do not exist at run time
        """The value on the wire, an int."""
        return self._to_wire[member] if member in self._to_wire else vars(member)["number"]

    def decode(self, value: int, field: str) -> E:
        """The member.

        Raises:
            InvalidInput: Unset without a default, or an unknown value of a closed enumeration.
        """
        if value in self._from_wire:
            return self._from_wire[value]
        if self._closed or not value:
            raise InvalidInput(f"unknown value {value}" if value else "must be set", field=field)
        unknown = object.__new__(self._kind)  # as the enum module makes members of flags
        unknown._name_, unknown._value_ = f"UNKNOWN_{value}", f"unknown ({value})"
        vars(unknown)["number"] = value
        return unknown


class MessageCodec(Generic[T, M]):
    """One dataclass and its message.

    None is an unset field. A field that arrives unset takes the dataclass's default where there is one; so do strings,
    enumerations and repeated fields that arrive empty. Repeated fields are tuples, maps dictionaries.

    Args:
        kind: The dataclass. Fields that the message lacks are given to `decode` by the caller.
        message: The message.
        renamed: Fields of the dataclass whose field in the message has another name.
        beside: Fields of the message that the caller writes and reads.
        converters: For each field that does not travel as it is.
    """

    def __init__(
        self,
        kind: type[T],
        message: type[M],
        /,
        *,
        renamed: dict[str, str] | None = None,
        beside: tuple[str, ...] = (),
        **converters: Converter,
    ) -> None:
        self.kind = kind
        self._message = message
        own = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
        names = {wire: name for name, wire in (renamed or {}).items()}
        self._fields = [
            _Field(own.pop(names.get(wire.name, wire.name)), wire, converters.pop(wire.name, None))
            for wire in message.DESCRIPTOR.fields
            if wire.name not in beside
        ]
        self._given = frozenset(own)
        if converters:
            raise TypeError(f"{message.DESCRIPTOR.full_name} has no {', '.join(converters)}")

    def encode(self, value: T) -> M:
        """The message."""
        return self._message(
            **{field.wire: sent for field in self._fields if (sent := field.encode(value)) is not None}
        )

    def decode(self, message: M, field: str = "", /, **given: Any) -> T:
        """The dataclass.

        Args:
            message: The message.
            field: Its place in the request, for errors.
            given: Fields that the message lacks; others are ignored.

        Raises:
            InvalidInput: A converter refuses its field.
        """
        prefix = f"{field}." if field else ""
        values = {name: value for name, value in given.items() if name in self._given}
        for each_field in self._fields:
            if not each_field.takes_default(message):
                values[each_field.name] = each_field.decode(message, prefix)
        return self.kind(**values)


class _Field:
    """One row of a table."""

    def __init__(self, own: dataclasses.Field[Any], wire: Any, converter: Converter | None) -> None:
        self.name, self.wire = own.name, wire.name
        self._converter = converter
        self._has_default = own.default is not _REQUIRED or own.default_factory is not _REQUIRED
        self._has_presence = wire.has_presence
        self._is_repeated = wire.default_value == []
        self._is_map = wire.message_type is not None and wire.message_type.GetOptions().map_entry
        self._empty_is_unset = self._is_repeated or wire.type in _EMPTY_IS_UNSET
        # To set one member of a oneof clears the others: an empty value leaves it alone.
        self._is_alternative = wire.containing_oneof is not None and len(wire.containing_oneof.fields) > 1
        if converter is None and wire.type in _NEEDS_CONVERTER and not self._is_map:
            raise TypeError(f"{wire.full_name} needs a converter")

    def encode(self, value: Any) -> Any:
        """What the field holds; None leaves it unset."""
        sent = getattr(value, self.name)
        if sent is None or (self._is_alternative and not sent):
            return None
        return sent if self._converter is None else self._converter.encode(sent)

    def takes_default(self, message: Message) -> bool:
        """Whether the field is unset and the dataclass has a default."""
        if not self._has_default:
            return False
        if self._has_presence:
            return not message.HasField(self.wire)
        return self._empty_is_unset and not getattr(message, self.wire)

    def decode(self, message: Message, prefix: str) -> Any:
        """The value."""
        value = getattr(message, self.wire)
        if self._converter is not None:
            return self._converter.decode(value, prefix + self.wire)
        if self._is_map:
            return dict(sorted(value.items()))  # maps have no order on the wire
        return tuple(value) if self._is_repeated else value


class EventCodec(Generic[T, M]):
    """The events of a stream: each type in its own member of the oneof `event`, beside the fields that all share.

    Args:
        message: The message.
        cases: The codec of each member of the oneof; a codec has a `kind`, the type of its events.
    """

    def __init__(self, message: type[M], /, **cases: EventCase) -> None:
        self._message = message
        self._cases = cases
        self._names = {case.kind: name for name, case in cases.items()}
        fields = message.DESCRIPTOR.fields
        self._shared = [field.name for field in fields if field.containing_oneof is None]
        members = {field.name for field in fields if field.containing_oneof is not None}
        if members != cases.keys():
            raise TypeError(f"{message.DESCRIPTOR.full_name} has the events {sorted(members)}, not {sorted(cases)}")

    def encode(self, event: T | None, **shared: Any) -> M:
        """The message of an event; `shared` are the fields beside it. None: a message without an event.

        Raises:
            TypeError: Not an event of this stream.
        """
        if event is None:
            return self._message(**shared)
        name = self._names.get(type(event))
        if name is None:
            raise TypeError(f"not an event of {self._message.DESCRIPTOR.name}: {type(event).__name__}")
        return self._message(**shared, **{name: self._cases[name].encode(event)})

    def decode(self, message: M) -> T | None:
        """The event; None if there is none, or one that only a later release knows."""
        name = message.WhichOneof("event")
        if name is None:
            return None
        shared = {field: getattr(message, field) for field in self._shared}
        event: T = self._cases[name].decode(getattr(message, name), name, **shared)
        return event


class EventCase(Protocol):
    """What an `EventCodec` needs of the codec of one type of events."""

    @property
    def kind(self) -> type[Any]:
        """The type of event."""

    def encode(self, value: Any, /) -> Any:
        """The member of the oneof."""

    def decode(self, message: Any, field: str, /, **given: Any) -> Any:
        """The event."""


class Inner:
    """The case of an event with one field that holds the whole message.

    Args:
        kind: The type of event.
        name: Its field.
        converter: Of the field.
    """

    def __init__(self, kind: type[Any], name: str, converter: Converter) -> None:
        self.kind = kind
        self._name = name
        self._converter = converter
        self._given = {field.name for field in dataclasses.fields(kind)} - {name}

    def encode(self, event: Any) -> Any:
        """The member of the oneof."""
        return self._converter.encode(getattr(event, self._name))

    def decode(self, message: Any, field: str, /, **given: Any) -> Any:
        """The event."""
        shared = {name: value for name, value in given.items() if name in self._given}
        return self.kind(**{self._name: self._converter.decode(message, field)}, **shared)
