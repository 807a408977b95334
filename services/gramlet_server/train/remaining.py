"""What is left of a data set once unreadable pictures and copies are out, and why a part of it is empty."""

from __future__ import annotations

from collections import defaultdict
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
    first = {each.name: each.first for each in copies}
    groups: dict[str, list[Entry]] = defaultdict(list)
    for each in copies:
        groups[each.first].append(by_name[each.name])
    found = []
    for entry in lost:
        root = first.get(entry.name, entry.name)
        others = [other for other in (by_name[root], *groups[root]) if other is not entry]
        if entry.name in unreadable:
            found.append(f"{entry.name} cannot be read: {unreadable[entry.name]}")
        elif others:
            # With two labels, none of them takes part: then the one with the other label is the reason.
            other = next((other for other in others if other.label != entry.label), others[0])
            found.append(
                f"{entry.name} is the same picture as {other.name} (class {quoted(other.label)}, set {other.set!r})"
            )
    more = f"; and {len(found) - _REASONS} more" if len(found) > _REASONS else ""
    return "; ".join(found[:_REASONS]) + more
