"""What users give to be mapped, and what a map's making must remember to survive the loss of its server. No gRPC."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypedDict, cast

import numpy as np
from numpy.typing import ArrayLike

from gramlet.embed.settings import Descriptor, Exactness, Gradient, MapSettings, Method, Metric, Preset, Tsne
from gramlet.embed.types import Item
from gramlet.errors import InvalidInput
from gramlet.folders import Folder, read_folder
from gramlet.inputs import PictureInput, as_resize, fill, is_one_picture, read_picture
from gramlet.types import Array, Resize, ResizeMode

_log = logging.getLogger(__name__)

ItemsInput: TypeAlias = "str | os.PathLike[str] | Folder | Iterable[PictureInput | Item] | ArrayLike"
"""A folder of pictures (classes are labels), as a path or read; pictures or `Item`s; or vectors, an array (N, n)."""


class MapOptions(TypedDict, total=False):
    """The settings of a map as keywords: those of `MapSettings` and `Tsne`, enumerations also by their values.

    `resize` may be a number, the side in pixels of the central square; `perplexity` one number or several.
    """

    descriptor: Descriptor | str
    stages: str | Sequence[str]
    resize: Resize | int
    balance_stages: bool
    metric: Metric | str
    exactness: Exactness | str
    sketch_size: int
    method: Method | str
    dimensions: int
    perplexity: float | Sequence[float]
    iterations: int
    early_exaggeration: float
    early_iterations: int
    learning_rate: float | None
    angle: float
    gradient: Gradient | str
    neighbors: int
    seed: int
    quality_neighbors: int
    preset: Preset | str
    compare: bool


_OF_TSNE = {field.name for field in dataclasses.fields(Tsne)}


def make_settings(options: MapOptions, vectors: bool = False) -> MapSettings:
    """The settings of a map. `vectors` says what the default descriptor is.

    Raises:
        InvalidInput: A value that no setting can have.
        TypeError: There is no such setting.
    """
    values: dict[str, Any] = {"descriptor": Descriptor.VECTOR if vectors else Descriptor.GRAM, **options}
    if "perplexity" in values:
        values["perplexities"] = values.pop("perplexity")
    if "resize" in values:
        values["resize"] = as_resize(values["resize"], ResizeMode.CENTER_CROP)
    tsne = fill(Tsne, {name: values.pop(name) for name in _OF_TSNE & values.keys()})
    return fill(MapSettings, {**values, "tsne": tsne})


@dataclasses.dataclass(frozen=True)
class UnreadItem:
    """An item whose picture is read when it is sent."""

    id: str
    label: str
    picture: PictureInput | None
    vector: Array | None = None

    def read(self) -> Item:
        """The item as it travels.

        Raises:
            NotFound, InvalidInput: Its picture cannot be read, or is not a picture.
        """
        picture = None if self.picture is None else read_picture(self.picture, "picture")
        return Item(self.id, self.label, picture, self.vector)


def read_items(given: ItemsInput, labels: Sequence[str] | None = None) -> list[UnreadItem]:
    """The items in order; of a folder all pictures below it in natural order, labelled with their classes.

    Raises:
        NotFound: There is no such folder, or no picture below it.
        InvalidInput: Not as many labels as items.
    """
    if isinstance(given, str | os.PathLike):
        given = read_folder(given, field="items")
    if isinstance(given, Folder):
        items = _of_folder(given)
    elif hasattr(given, "__array__") and np.ndim(cast(Any, given)) == 2:
        rows = np.ascontiguousarray(cast(Any, given), np.float32)
        items = [UnreadItem(str(number), "", None, row) for number, row in enumerate(rows)]
    elif is_one_picture(given) or not isinstance(given, Iterable):
        raise InvalidInput("a map needs several pictures: a folder, a list, or an array of vectors", field="items")
    else:
        items = [_of_one(cast("PictureInput | Item", one), number) for number, one in enumerate(given)]
    if labels is None:
        return items
    if len(labels) != len(items):
        raise InvalidInput(f"{len(labels)} labels for {len(items)} items", field="labels")
    return [dataclasses.replace(item, label=label) for item, label in zip(items, labels, strict=True)]


def read_new_items(given: PictureInput | ItemsInput) -> list[UnreadItem]:
    """The items to transform onto a map: as `read_items`, or one picture.

    Raises:
        NotFound: There is no such folder.
    """
    folder = isinstance(given, str | os.PathLike) and Path(given).is_dir()
    vectors = isinstance(given, np.ndarray) and given.ndim == 2 and np.issubdtype(given.dtype, np.floating)
    if is_one_picture(given) and not folder and not vectors:
        return [_of_one(cast(PictureInput, given), 0)]
    return read_items(cast(ItemsInput, given))


def has_vectors(items: Sequence[UnreadItem]) -> bool:
    """Whether the items bring their own descriptors."""
    return bool(items) and all(item.vector is not None for item in items)


def vector_size(items: Sequence[UnreadItem]) -> int:
    """The elements of the items' vectors; 0 if they bring none."""
    first = items[0].vector if items else None
    return 0 if first is None else int(np.size(first))


def _of_folder(folder: Folder) -> list[UnreadItem]:
    for remark in folder.remarks():
        _log.info("%s", remark)
    return [UnreadItem(picture.name, picture.label, picture.source) for picture in folder.pictures]


def _of_one(one: PictureInput | Item, number: int) -> UnreadItem:
    if isinstance(one, Item):
        return UnreadItem(one.id, one.label, cast("PictureInput | None", one.picture), one.vector)
    name = os.fspath(one) if isinstance(one, str | os.PathLike) else str(number)
    return UnreadItem(name, "", one)
