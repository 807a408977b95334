"""The ImageFolder layout: `<class>/<picture>`, or `<set>/<class>/<picture>` with a set `train`. Paths only."""

from __future__ import annotations

from collections.abc import Iterable

from gramlet.train.configuration import TRAIN, Entry

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


def is_layout_of_sets(names: Iterable[str]) -> bool:
    """Whether these paths, relative to the data set and with slashes, lie in sets: some below `train/<class>/`."""
    return any(len(parts) >= 3 and parts[0] == TRAIN for parts in (name.split("/") for name in names))


def entry_of(name: str, with_sets: bool) -> Entry | None:
    """The entry of a path; None for what is no picture of a class. Pictures may lie deeper than their class."""
    parts = name.split("/")
    if not name.lower().endswith(SUFFIXES) or any(part.startswith(".") for part in parts):
        return None
    if with_sets:
        return Entry(name, label=parts[1], set=parts[0]) if len(parts) >= 3 else None
    return Entry(name, label=parts[0]) if len(parts) >= 2 else None
