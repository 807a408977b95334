"""What users give to `train` and `predict`, brought to what travels; a training run across lost connections. Pure."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

from gramlet.errors import InvalidInput
from gramlet.folders import Folder, FolderPicture, for_training, read_folder
from gramlet.inputs import PictureInput, fill, read_picture
from gramlet.tensor.hashing import picture_hash
from gramlet.train.configuration import (
    TRAIN,
    ClassWeights,
    Configuration,
    Entry,
    HeadKind,
    Metric,
    Optimizer,
    Recipe,
    Schedule,
    Strategy,
    TrainOrder,
    Unreadable,
)
from gramlet.train.types import Head, HeadRef, Result
from gramlet.types import Picture, new_name

PicturesInput: TypeAlias = (
    "str | os.PathLike[str] | Folder | Mapping[str, Iterable[PictureInput]] "
    "| Iterable[tuple[PictureInput, str] | tuple[PictureInput, str, str]]"
)
"""A folder, as a path or read; an s3:// URI that the server reads; pictures by class; or (picture, class[, set])."""

_log = logging.getLogger(__name__)

HeadInput: TypeAlias = "str | HeadRef | Head | Result"
"""A head: `"bees"`, `"bees/3"`, or what `train` and `heads` gave."""


class RecipeOptions(TypedDict, total=False):
    """The fields of a `Recipe` as keywords, enumerations also by their values."""

    kind: HeadKind | str
    strategy: Strategy | str
    stages: Sequence[str]
    stage_rates: Mapping[str, float]
    stage_learning_rate: float
    optimizer: Optimizer | str
    learning_rate: float | None
    head_rate_factor: float
    epochs: int
    stage_epochs: int
    batch_size: int
    weight_decay: float
    schedule: Schedule | str
    warmup_epochs: int
    metric: Metric | str
    patience: int
    class_weights: ClassWeights | str
    label_smoothing: float
    update_batch_norm: bool
    calibrate: bool
    seed: int


class DataOptions(TypedDict, total=False):
    """The fields of a `Configuration` about the data, as keywords; `split_seed` is its `seed`."""

    size: int
    views: int
    validation_fraction: float
    unreadable: Unreadable | str
    keep_on_cancel: bool
    split_seed: int


class TrainOptions(RecipeOptions, DataOptions, total=False):
    """Everything that `train` takes as a keyword: one recipe, and how the data are used."""


@dataclasses.dataclass(frozen=True)
class LabelledPictures:
    """A data set as the client has it: its entries, and how to read each picture when the server asks for it."""

    entries: tuple[Entry, ...]
    readers: tuple[Callable[[], Picture], ...]


def make_recipe(options: Mapping[str, Any]) -> Recipe:
    """A recipe from keywords.

    Raises:
        InvalidInput: An unknown value of an enumeration.
        TypeError: There is no such keyword.
    """
    return fill(Recipe, options)


def make_order(
    pictures: PicturesInput,
    name: str,
    recipes: Sequence[Recipe] | None,
    options: TrainOptions,
    *,
    on_server: bool,
    run_id: str | None,
) -> tuple[TrainOrder, LabelledPictures]:
    """A run, with the pictures that the server may ask for.

    Raises:
        InvalidInput: No pictures, or an unknown value of an enumeration.
        NotFound: There is no such folder.
        TypeError: There is no such keyword, or recipes and keywords of one are both given.
    """
    about_data = {key: value for key, value in options.items() if key in DataOptions.__annotations__}
    about_recipe = {key: value for key, value in options.items() if key not in about_data}
    if recipes is not None and about_recipe:
        raise TypeError(f"give recipes, or {', '.join(about_recipe)} for one")
    values: dict[str, Any] = about_data
    values["recipes"] = (make_recipe(about_recipe),) if recipes is None else tuple(recipes)
    if "split_seed" in values:
        values["seed"] = values.pop("split_seed")
    local = LabelledPictures((), ())
    if on_server or (isinstance(pictures, str) and pictures.startswith("s3://")):
        if not isinstance(pictures, str | os.PathLike):
            raise InvalidInput("name the folder on the server", field="pictures")
        values["dataset"] = os.fspath(pictures)
    else:
        local = read_labelled(pictures)
        values["entries"] = local.entries
    return TrainOrder(fill(Configuration, {"name": name, **values}), run_id=run_id or new_name()), local


def read_labelled(pictures: PicturesInput) -> LabelledPictures:
    """Names, classes, sets and hashes of pictures. Files are read one at a time, and read again when they are sent.

    Raises:
        InvalidInput: No pictures, or something that is not a picture.
        NotFound: There is no such folder.
    """
    if isinstance(pictures, str | os.PathLike):
        pictures = read_folder(pictures)
    if isinstance(pictures, Folder):
        found = _of_folder(for_training(pictures))
    elif isinstance(pictures, Mapping):
        found = [_given(p, label, TRAIN, i) for label, items in pictures.items() for i, p in enumerate(items)]
    else:
        found = [_given(item[0], item[1], item[2] if len(item) > 2 else TRAIN, i) for i, item in enumerate(pictures)]
    return LabelledPictures(tuple(entry for entry, _ in found), tuple(reader for _, reader in found))


def _of_folder(folder: Folder) -> list[tuple[Entry, Callable[[], Picture]]]:
    for remark in folder.remarks():
        _log.info("%s", remark)
    return [_of_file(picture) for picture in folder.pictures]


def _of_file(picture: FolderPicture) -> tuple[Entry, Callable[[], Picture]]:
    # What the file holds travels as it is: the server says what is wrong with it, and skips it or not.
    read = Path(picture.source).read_bytes
    return Entry(picture.name, picture.label, picture.set, picture_hash(read())), read


def _given(picture: PictureInput, label: str, set_name: str, number: int) -> tuple[Entry, Callable[[], Picture]]:
    field = f"pictures[{number}]"
    is_path = isinstance(picture, str | os.PathLike)
    name = os.fspath(picture) if is_path else f"{set_name}/{label}/{number}"  # type: ignore[arg-type]
    if not is_path:
        picture = read_picture(picture, field)
    digest = picture_hash(read_picture(picture, field))
    return Entry(str(name), label, set_name, digest), lambda: read_picture(picture, field)


def head_ref(head: HeadInput) -> HeadRef:
    """A head by name and version.

    Raises:
        InvalidInput: `name/version` with a version that is not a number.
    """
    if isinstance(head, Result):
        head = head.head
    if isinstance(head, Head):
        return HeadRef(head.name, head.version)
    if isinstance(head, HeadRef):
        return head
    name, slash, version = head.partition("/")
    if slash and not (version.isdecimal() and int(version)):
        raise InvalidInput(f"{head!r} is neither a name nor name/version", field="head")
    return HeadRef(name, int(version) if slash else 0)


def resume_order(run_id: str, pictures: PicturesInput | None) -> tuple[TrainOrder, LabelledPictures]:
    """A run to go on with, and its pictures in case the server still needs some."""
    local = read_labelled(pictures) if pictures is not None else LabelledPictures((), ())
    return TrainOrder(resume_run_id=run_id), local
