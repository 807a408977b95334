"""What is left of a data set once unreadable pictures and copies are out, and why a part of it is empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gramlet.errors import InvalidInput, quoted
from gramlet.folders import natural_key
from gramlet.train.configuration import TRAIN, VALIDATION, Entry
from gramlet.train.types import Duplicate

_REASONS = 3


def check_remaining(
    entries: Sequence[Entry], kept: Sequence[Entry], copies: Sequence[Duplicate], unreadable: Mapping[str, str]
) -> None:
    """Checks that every class has a training picture left, and the validation set a picture.

    Args:
        entries: The data set.
        kept: Those that take part.
        copies: Pictures that are there twice.
        unreadable: By name, why a picture cannot be read.

    Raises:
        InvalidInput: All pictures of a class or of the validation set are unreadable or copies; the message says which.
    """
    left = {entry.label for entry in kept if entry.set == TRAIN}
    for label in sorted({entry.label for entry in entries if entry.set == TRAIN} - left, key=natural_key):
        of_class = [entry for entry in entries if (entry.set, entry.label) == (TRAIN, label)]
        reasons = _reasons(of_class, entries, copies, unreadable)
        raise InvalidInput(f"class {quoted(label)} has no training picture left: {reasons}", field="entries")
    validation = [entry for entry in entries if entry.set == VALIDATION]
    if validation and not any(entry.set == VALIDATION for entry in kept):
        reasons = _reasons(validation, entries, copies, unreadable)
        raise InvalidInput(f"the validation set has no picture left: {reasons}", field="entries")


def _reasons(
    lost: Sequence[Entry], entries: Sequence[Entry], copies: Sequence[Duplicate], unreadable: Mapping[str, str]
) -> str:
    by_name = {entry.name: entry for entry in entries}
    twin = {each.first: each.name for each in reversed(copies) if each.conflicting}
    twin |= {each.name: each.first for each in copies}
    found = []
    for entry in lost:
        if entry.name in unreadable:
            found.append(f"{entry.name} cannot be read: {unreadable[entry.name]}")
        elif entry.name in twin:
            other = by_name[twin[entry.name]]
            found.append(
                f"{entry.name} is the same picture as {other.name} (class {quoted(other.label)}, set {other.set!r})"
            )
    more = f"; and {len(found) - _REASONS} more" if len(found) > _REASONS else ""
    return "; ".join(found[:_REASONS]) + more
