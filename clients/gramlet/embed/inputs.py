"""What users give to be mapped, and what a map's making must remember to survive the loss of its server. No gRPC."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias, TypedDict, cast

import numpy as np
from numpy.typing import ArrayLike

from gramlet.embed.settings import Descriptor, Exactness, Gradient, MapSettings, Method, Metric, Preset, Tsne
from gramlet.embed.types import Item, MapStart
from gramlet.errors import GramletError, InvalidInput, counted, shown
from gramlet.folders import Folder, read_folder
from gramlet.inputs.pictures import PictureInput, existing, is_one_picture, item_name, read_later, read_picture
from gramlet.inputs.values import as_resize, check_keywords, fill, label, several, warn_of_lookalikes
from gramlet.tensor.pixels import as_array, as_float32, is_array, is_encoded
from gramlet.types import Array, Resize, ResizeMode

_log = logging.getLogger(__name__)
_REASONS = 3
_SEVERAL = "a map needs several pictures: a folder, a list, or an array of vectors"

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
        InvalidInput: A value that no setting can have, or there is no such setting.
    """
    check_keywords(options, MapOptions.__annotations__)
    values: dict[str, Any] = {"descriptor": Descriptor.VECTOR if vectors else Descriptor.GRAM, **options}
    if "perplexity" in values:
        values["perplexities"] = values.pop("perplexity")
    if "resize" in values:
        values["resize"] = as_resize(values["resize"], ResizeMode.CENTER_CROP)
    of_tsne = {name: values.pop(name) for name in _OF_TSNE & values.keys()}
    tsne = fill(Tsne, of_tsne, called={"perplexities": "perplexity"})
    return fill(MapSettings, {**values, "tsne": tsne})


@dataclasses.dataclass(frozen=True)
class UnreadItem:
    """An item whose picture is read when it is sent. `error` is why it cannot be read, where that is known."""

    id: str
    label: str
    picture: PictureInput | None
    vector: Array | None = None
    error: GramletError | None = None

    def read(self, resize: Resize | None = None) -> Item:
        """The item as it travels. A picture too large for a message is reduced as far as the resizing allows.

        Raises:
            NotFound, InvalidInput: Its picture cannot be read, or is not a picture.
        """
        if self.error is not None:
            raise self.error
        picture = None if self.picture is None else read_picture(self.picture, "picture", resize)
        return Item(self.id, self.label, picture, self.vector)


def read_items(given: ItemsInput, labels: Iterable[object] | None = None) -> list[UnreadItem]:
    """The items in order; of a folder all pictures below it in natural order, labeled with their classes.

    Raises:
        NotFound: There is no such folder, or no picture below it.
        InvalidInput: Not as many labels as items.
    """
    if isinstance(given, str | os.PathLike):
        if os.path.isfile(given):
            raise InvalidInput(f"{shown(os.fsdecode(given))} is a file: {_SEVERAL}", field="items")
        given = read_folder(given, field="items")
    if isinstance(given, Folder):
        items = _of_folder(given)
    elif is_array(given) and (array := as_array(given, "items")).ndim <= 2 and not is_encoded(array):
        items = [_of_row(row, number) for number, row in enumerate(_vectors(array))]
    elif is_one_picture(given):
        raise InvalidInput(_SEVERAL, field="items")
    else:
        items = [_of_one(one, number) for number, one in enumerate(several(given, "items"))]
    _check_any_readable(items)
    if labels is None:
        return items
    names = [label(each, f"labels[{number}]") for number, each in enumerate(several(labels, "labels"))]
    if len(names) != len(items):
        raise InvalidInput(f"{counted(len(names), 'label')} for {counted(len(items), 'item')}", field="labels")
    warn_of_lookalikes(names, "labels")
    return [dataclasses.replace(item, label=name) for item, name in zip(items, names, strict=True)]


def _check_any_readable(items: Sequence[UnreadItem]) -> None:
    if not items:
        raise InvalidInput("there are no items: give pictures, or an array of vectors (N, n)", field="items")
    if all(item.error is not None for item in items):
        reasons = [f"{item.id}: {item.error.message}" for item in items[:_REASONS] if item.error]
        more = f"; and {len(items) - _REASONS} more" if len(items) > _REASONS else ""
        raise InvalidInput(f"no item can be read: {'; '.join(reasons)}{more}", field="items")


def read_new_items(given: PictureInput | ItemsInput) -> list[UnreadItem]:
    """The items to transform onto a map: as `read_items`, or one picture.

    Raises:
        NotFound: There is no such folder.
    """
    folder = isinstance(given, str | os.PathLike) and os.path.isdir(given)
    vectors = is_array(given) and (array := as_array(given, "pictures")).ndim == 2 and array.dtype.kind == "f"
    if is_one_picture(given) and not folder and not vectors:
        return [_of_one(given, 0)]
    return read_items(cast(ItemsInput, given))


def order_of_items(order: MapStart, items: Sequence[UnreadItem], options: MapOptions) -> MapStart:
    """The order of a map of these items: with its settings, and with how many items, and how large vectors, will come.

    Raises:
        InvalidInput: As of `make_settings`.
    """
    return dataclasses.replace(
        order,
        settings=make_settings(options, vectors=_have_vectors(items)),
        count=len(items),
        vector_size=next((item.vector.size for item in items if item.vector is not None), 0),
    )


def _have_vectors(items: Sequence[UnreadItem]) -> bool:
    """Whether the items bring their own descriptors."""
    return any(item.vector is not None for item in items) and all(item.picture is None or item.error for item in items)


def _of_folder(folder: Folder) -> list[UnreadItem]:
    for remark in folder.remarks():
        _log.info("%s", remark)
    warn_of_lookalikes((picture.label for picture in folder.pictures), folder.where)
    return [UnreadItem(picture.name, picture.label, picture.source) for picture in folder.pictures]


def _of_one(one: Any, number: int) -> UnreadItem:
    """An item of a list: a picture, an `Item`, or a vector. What is wrong with it is its own outcome."""
    name = item_name(one, str(number))
    try:
        if isinstance(one, Item):
            vector = None if one.vector is None else _vector(one.vector)
            picture = None if one.picture is None else existing(read_later(one.picture, "picture"), "picture")
            return UnreadItem(label(one.id, "id"), label(one.label, "label"), picture, vector)
        if isinstance(one, list | tuple) or (is_array(one) and not is_one_picture(one)):
            return UnreadItem(name, "", None, _vector(one))
        return UnreadItem(name, "", existing(read_later(one, "picture"), "picture"))
    except GramletError as error:
        return UnreadItem(name, "", b"", error=error)


def _of_row(row: Any, number: int) -> UnreadItem:
    try:
        return UnreadItem(str(number), "", None, _narrowed(row))
    except GramletError as error:
        return UnreadItem(str(number), "", None, error=error)


def _vector(given: Any) -> Array:
    return _narrowed(_vectors(as_array(given, "vector")[None], "vector")[0])


def _narrowed(vector: Any) -> Array:
    """The vector as it travels.

    Raises:
        InvalidInput: It has numbers that float32 does not hold. The service would call them infinite.
    """
    narrow = as_float32(vector)
    if np.isinf(narrow).any() and np.isfinite(vector).all():
        raise InvalidInput("its numbers are beyond 3.4e38, the largest of float32: scale them", field="vector")
    return narrow


def _vectors(array: Any, field: str = "items") -> Any:
    if array.ndim != 2 or array.dtype.kind not in "buif":
        fix = ": for N vectors of one number, array[:, None]" if array.ndim == 1 and array.dtype.kind in "buif" else ""
        raise InvalidInput(f"vectors are numbers (N, n), not {shown(array.dtype)} {array.shape}{fix}", field=field)
    return array
