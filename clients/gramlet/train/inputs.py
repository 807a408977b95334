"""What users give to `train` and `predict`, brought to what travels; a training run across lost connections. Pure."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias, TypedDict

from gramlet.errors import GramletError, InvalidInput, as_utf8, quoted, shown
from gramlet.folders import Folder, for_training, read_folder, set_of
from gramlet.inputs.pictures import PictureInput, item_name, read_picture, several_pictures
from gramlet.inputs.values import (
    check_keywords,
    checked,
    fill,
    flag,
    label,
    name_or_new,
    read_each,
    several,
    text,
    warn_of_lookalikes,
)
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
from gramlet.types import Picture, Resize, ResizeMode

PicturesInput: TypeAlias = (
    "str | os.PathLike[str] | Folder | Mapping[Any, Iterable[PictureInput] | PictureInput] "
    "| Iterable[tuple[PictureInput, Any] | tuple[PictureInput, Any, str]]"
)
"""A folder, as a path or read; an s3:// URI that the server reads; pictures, or a folder, by class; or
(picture, class[, set]). A class is text, a number or any other plain value."""

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
    epochs: int | None
    stage_epochs: int
    batch_size: int
    weight_decay: float
    schedule: Schedule | str
    warmup_epochs: int | None
    metric: Metric | str
    patience: int
    class_weights: ClassWeights | str
    label_smoothing: float
    update_batch_norm: bool
    calibrate: bool
    seed: int


class DataOptions(TypedDict, total=False):
    """The fields of a `Configuration` about the data, as keywords; `fold_seed` is its `seed`."""

    size: int
    views: int
    folds: int
    unreadable: Unreadable | str
    keep_on_cancel: bool
    fold_seed: int


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
        InvalidInput: A value that no setting can have, or a keyword that does not exist.
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
        InvalidInput: No pictures, a value that no setting can have, a keyword that does not exist, or recipes and
            keywords of one are both given.
        NotFound: There is no such folder.
    """
    check_keywords(options, TrainOptions.__annotations__)
    values: dict[str, Any] = {key: value for key, value in options.items() if key in DataOptions.__annotations__}
    about_recipe = {key: value for key, value in options.items() if key not in values}
    if recipes is not None and about_recipe:
        raise InvalidInput(f"give recipes, or {', '.join(about_recipe)} for one", field="recipes")
    if recipes is not None:
        values["recipes"] = recipes
    elif about_recipe:
        values["recipes"] = (make_recipe(about_recipe),)
    if "fold_seed" in values:
        values["seed"] = values.pop("fold_seed")
    configuration = fill(Configuration, {"name": name, **values}, called={"seed": "fold_seed"})
    local = LabelledPictures((), ())
    if flag(on_server, "on_server") or (isinstance(pictures, str) and pictures.startswith("s3://")):
        if not isinstance(pictures, str | os.PathLike):
            raise InvalidInput("name the folder on the server", field="pictures")
        configuration = dataclasses.replace(configuration, dataset=as_utf8(os.fsdecode(pictures)))
    else:
        local = read_labelled(pictures, configuration.size, configuration.unreadable)
        configuration = dataclasses.replace(configuration, entries=local.entries)
    return TrainOrder(configuration, run_id=name_or_new(run_id, "run_id")), local


def read_labelled(
    pictures: PicturesInput, size: int | None = None, unreadable: Unreadable = Unreadable.SKIP
) -> LabelledPictures:
    """Names, classes, sets and hashes of pictures. Files are read one at a time, and read again when they are sent.

    Args:
        pictures: As of `train`.
        size: Side of the square that the network sees. Larger pictures are reduced if they do not fit a message.
        unreadable: What a picture does that cannot be read here.

    Raises:
        InvalidInput: No pictures, or a label that is none.
        NotFound: There is no such folder.
    """
    resize = None if size is None else Resize(ResizeMode.CENTER_CROP, size)
    listed = _listed(pictures)
    _check_unique(listed)
    warn_of_lookalikes((picture.label for picture in listed), "pictures")
    found = [_read(picture, resize, unreadable) for picture in listed]
    return LabelledPictures(tuple(entry for entry, _ in found), tuple(reader for _, reader in found))


def _check_unique(listed: Sequence[_Listed]) -> None:
    first: dict[str, _Listed] = {}
    for picture in listed:
        earlier = first.setdefault(picture.name, picture)
        if earlier is not picture:
            labels = (
                f" as {quoted(earlier.label)} and {quoted(picture.label)}" if earlier.label != picture.label else ""
            )
            message = f"{shown(picture.name)} is given twice{labels}: leave it or {earlier.field} out"
            raise InvalidInput(message, field=picture.field)


class _Listed(NamedTuple):
    """A picture of a data set, and what the caller calls it in errors."""

    picture: PictureInput
    name: str
    label: str
    set: str
    field: str


def _listed(pictures: PicturesInput) -> list[_Listed]:
    if isinstance(pictures, str | os.PathLike):
        pictures = read_folder(pictures)
    if isinstance(pictures, Folder):
        folder = for_training(pictures)
        for remark in folder.remarks():
            _log.info("%s", remark)
        return [_Listed(each.source, each.name, each.label, each.set, each.name) for each in folder.pictures]
    if isinstance(pictures, Mapping):
        classes = read_each(pictures.items(), "pictures")
        labelled = [(one, name) for name, items in classes for one in _of_class(items, shown(name))]
        return [_of_item(item, number) for number, item in enumerate(labelled)]
    return [_of_item(item, number) for number, item in enumerate(several(pictures, "pictures"))]


def _of_class(items: Any, name: str) -> Iterable[PictureInput]:
    """The pictures of a class: a folder, one picture, or several."""
    if isinstance(items, str | os.PathLike) and os.path.isdir(items):
        return read_folder(items, labels=False)
    field = f"pictures[{name}]"
    return read_each(several_pictures(items, Iterable, field), field)


def _of_item(item: Any, number: int) -> _Listed:
    field = f"pictures[{number}]"
    if not isinstance(item, tuple | list) or len(item) not in (2, 3):
        raise InvalidInput(f"give (picture, class) or (picture, class, set), not {shown(item)}", field=field)
    name, set_name = label(item[1], f"{field}.label"), TRAIN
    if len(item) == 3:
        set_name = set_of(text(item[2], f"{field}.set"), f"{field}.set")
    return _Listed(item[0], item_name(item[0], f"{set_name}/{name}/{number}"), name, set_name, field)


def _read(listed: _Listed, resize: Resize | None, unreadable: Unreadable) -> tuple[Entry, Callable[[], Picture]]:
    entry = Entry(listed.name, listed.label, listed.set)
    read = partial(read_picture, listed.picture, listed.field, resize)
    try:
        picture = read()
    except GramletError:
        if unreadable is Unreadable.FAIL:
            raise
        return entry, read  # when the server asks for it, it gets the reason why there is none
    is_path = isinstance(listed.picture, str | os.PathLike)
    return dataclasses.replace(entry, sha256=picture_hash(picture)), read if is_path else lambda: picture


def head_ref(head: HeadInput) -> HeadRef:
    """A head by name and version.

    Raises:
        InvalidInput: Not a head, or `name/version` with a version that is not a number.
    """
    if isinstance(head, Result):
        head = head.head
    if isinstance(head, Head):
        return HeadRef(head.name, head.version)
    if isinstance(head, HeadRef):
        return checked(HeadRef, head, "head")
    name, slash, version = text(head, "head").partition("/")
    if slash and not (version.isdecimal() and version.isascii() and len(version) < 10 and int(version)):
        raise InvalidInput(f"{shown(head)} is neither a name nor name/version", field="head")
    return HeadRef(name, int(version) if slash else 0)


def resume_order(run_id: str, pictures: PicturesInput | None) -> tuple[TrainOrder, LabelledPictures]:
    """A run to go on with, and its pictures in case the server still needs some."""
    local = read_labelled(pictures) if pictures is not None else LabelledPictures((), ())
    return TrainOrder(resume_run_id=text(run_id, "run_id")), local
