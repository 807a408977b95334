"""The bytes of every message stay what they are, and say what they said.

The goldens hold one message of every type, with every oneof case, every field and every enumeration value in one of
them. Encoders and decoders are held to the same bytes, so that a client and a server of different days understand each
other. GRAMLET_UPDATE_GOLDENS=1 rewrites the goldens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message

from tests.guards import wire_embed, wire_feature, wire_run, wire_stylize, wire_train
from tests.guards.goldens import HINT, golden_json
from tests.guards.product import ROOT
from tests.guards.wire_cases import Case, plain

CASES: dict[str, list[Case]] = {
    "feature": list(wire_feature.cases()),
    "stylize": list(wire_stylize.cases()),
    "train": list(wire_train.cases()),
    "embed": list(wire_embed.cases()),
    "run": list(wire_run.cases()),
}
EACH = [pytest.param(service, case, id=f"{service}: {case.name}") for service in CASES for case in CASES[service]]


@pytest.fixture(scope="module")
def goldens() -> dict[str, dict[str, list[str]]]:
    """Type and hexadecimal bytes of each message, by service and name of the case."""
    return {
        service: golden_json(f"wire/{service}.json", {case.name: _as_golden(case.message) for case in cases})
        for service, cases in CASES.items()
    }


@pytest.mark.parametrize(("service", "case"), EACH)
def test_a_message_has_the_bytes_it_had(service: str, case: Case, goldens: Any) -> None:
    assert goldens[service].get(case.name) == _as_golden(case.message), HINT


@pytest.mark.parametrize(("service", "case"), [each for each in EACH if each.values[1].decode])  # type: ignore[union-attr]
def test_those_bytes_say_what_they_said(service: str, case: Case, goldens: Any) -> None:
    assert case.decode is not None
    _, data = goldens[service][case.name]
    message = type(case.message).FromString(bytes.fromhex(data))
    assert plain(case.decode(message)) == plain(case.value)


@pytest.mark.parametrize("service", CASES)
def test_no_golden_is_left_over(service: str, goldens: Any) -> None:
    names = [case.name for case in CASES[service]]
    assert len(set(names)) == len(names)
    assert set(goldens[service]) == set(names), HINT


def test_every_message_type_field_and_enumeration_value_is_in_a_golden() -> None:
    seen: set[str] = set()
    for case in (case for cases in CASES.values() for case in cases):
        _visit(case.message, seen)
    wanted = {name for file in _files() for name in _names(file)}
    assert sorted(wanted - seen) == []


def test_every_request_and_reply_is_a_golden_of_its_own() -> None:
    whole = {case.message.DESCRIPTOR.full_name for cases in CASES.values() for case in cases}
    methods = [m for file in _files() for s in file.services_by_name.values() for m in s.methods]
    assert methods
    assert {t.full_name for m in methods for t in (m.input_type, m.output_type)} - whole == set()


def _as_golden(message: Message) -> list[str]:
    return [message.DESCRIPTOR.full_name, message.SerializeToString(deterministic=True).hex()]


def _files() -> Iterator[FileDescriptor]:
    """Every .proto of the project. One whose generated code nothing has imported is an error."""
    protos = ROOT / "protos"
    for path in sorted(protos.rglob("*.proto")):
        yield Default().FindFileByName(str(path.relative_to(protos)))


def _names(file: FileDescriptor) -> Iterator[str]:
    """Full names of message types, fields and enumeration values, the unspecified ones left out."""
    for enum in file.enum_types_by_name.values():
        yield from _values(enum)
    for message in file.message_types_by_name.values():
        yield from _names_in(message)


def _names_in(message: Descriptor) -> Iterator[str]:
    if message.GetOptions().map_entry:
        return
    yield message.full_name
    yield from (field.full_name for field in message.fields)
    for enum in message.enum_types:
        yield from _values(enum)
    for nested in message.nested_types:
        yield from _names_in(nested)


def _values(enum: Any) -> Iterator[str]:
    yield from (f"{enum.full_name}.{value.name}" for value in enum.values if value.number)


def _visit(message: Message, seen: set[str]) -> None:
    """Notes the types, the fields that are set, and the enumeration values in a message and all that it holds."""
    seen.add(message.DESCRIPTOR.full_name)
    for field, value in message.ListFields():
        seen.add(field.full_name)
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        for each in [] if is_map else _each(value):  # maps hold numbers only
            if isinstance(each, Message):
                _visit(each, seen)
            elif field.type == FieldDescriptor.TYPE_ENUM:
                seen.add(f"{field.enum_type.full_name}.{field.enum_type.values_by_number[each].name}")


def _each(value: Any) -> list[Any]:
    """The values of a repeated field, or the one value."""
    return [value] if isinstance(value, (Message, str, bytes)) or not hasattr(value, "__len__") else list(value)
