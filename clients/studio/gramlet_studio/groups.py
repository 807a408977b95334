"""Regions of a map as classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from gramlet.errors import InvalidInput
from gramlet.folders import Folder
from gramlet.folders.rules import TRAIN
from gramlet_studio.folder_of_uploads import UploadedFolder


def training_folder(uploaded: UploadedFolder, groups: Mapping[str, Any]) -> Folder:
    """The pictures of the groups, with the groups' names as classes.

    Args:
        uploaded: The folder of the map.
        groups: Positions in the folder's pictures, by name.

    Raises:
        InvalidInput: Fewer than two groups of two pictures, or positions that are none.
    """
    names: dict[int, str] = {}
    for name, indices in groups.items():
        if not name.strip() or not isinstance(indices, list) or len(indices) < 2:
            raise InvalidInput(f"{name!r} needs a name and two pictures at least", field="groups")
        for index in indices:
            if not isinstance(index, int) or not 0 <= index < len(uploaded.pictures):
                raise InvalidInput("must be positions of pictures", field="groups")
            names[index] = name
    if len(set(names.values())) < 2:
        raise InvalidInput("name two regions at least: a classifier tells them apart", field="groups")
    pictures = uploaded.folder.pictures
    chosen = tuple(replace(pictures[index], label=name, set=TRAIN) for index, name in sorted(names.items()))
    return Folder(uploaded.name, chosen)


def named(names: Sequence[Any], count: int) -> list[str | None]:
    """The names of `count` pictures: None where there is none."""
    known = [name if isinstance(name, str) and name else None for name in names[:count]]
    return known + [None] * (count - len(known))
