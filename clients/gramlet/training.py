"""What users give to `train` and `predict`, brought to what travels; a training run across lost connections. Pure."""

from __future__ import annotations

import dataclasses
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

from gramlet.channel import MESSAGE_BYTES
from gramlet.errors import GramletError, InvalidInput, NotFound
from gramlet.hashing import picture_hash
from gramlet.heads import (
    TRAIN,
    Accepted,
    ClassWeights,
    Configuration,
    Entry,
    Epoch,
    Event,
    Head,
    HeadKind,
    HeadRef,
    Metric,
    Optimizer,
    Prediction,
    Queued,
    Recipe,
    Result,
    Schedule,
    Skipped,
    Started,
    Strategy,
    TrainOrder,
    Unreadable,
    Upload,
)
from gramlet.inputs import PictureInput, choose, read_picture
from gramlet.layout import entry_of, is_layout_of_sets
from gramlet.messages.train import (
    decode_event,
    decode_predict_response,
    encode_order,
    encode_predict_request,
    encode_upload,
)
from gramlet.resumption import Resumption
from gramlet.train.v1 import train_pb2
from gramlet.types import Picture

PREDICT_PICTURES = 32
PREDICT_BYTES = MESSAGE_BYTES // 2


PicturesInput: TypeAlias = (
    "str | os.PathLike[str] | Mapping[str, Iterable[PictureInput]] "
    "| Iterable[tuple[PictureInput, str] | tuple[PictureInput, str, str]]"
)
"""A folder in ImageFolder layout; an s3:// URI that the server reads; pictures by class; or (picture, class[, set])."""

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


_ENUMERATIONS: dict[str, Any] = {
    "kind": HeadKind,
    "strategy": Strategy,
    "optimizer": Optimizer,
    "schedule": Schedule,
    "metric": Metric,
    "class_weights": ClassWeights,
}


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
    values = dict(options)
    for name, kind in _ENUMERATIONS.items():
        if name in values:
            values[name] = choose(kind, values[name], name)
    if "stages" in values:
        stages = values["stages"]
        values["stages"] = (stages,) if isinstance(stages, str) else tuple(stages)
    return Recipe(**values)


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
    if "unreadable" in values:
        values["unreadable"] = choose(Unreadable, values["unreadable"], "unreadable")
    local = LabelledPictures((), ())
    if on_server or (isinstance(pictures, str) and pictures.startswith("s3://")):
        if not isinstance(pictures, str | os.PathLike):
            raise InvalidInput("name the folder on the server", field="pictures")
        values["dataset"] = os.fspath(pictures)
    else:
        local = read_labelled(pictures)
        values["entries"] = local.entries
    return TrainOrder(Configuration(name, **values), run_id=run_id or new_run_id()), local


def new_run_id() -> str:
    """A name that no other run has."""
    return secrets.token_hex(8)


def read_labelled(pictures: PicturesInput) -> LabelledPictures:
    """Names, classes, sets and hashes of pictures. Files are read one at a time, and read again when they are sent.

    Raises:
        InvalidInput: No pictures, or something that is none.
        NotFound: There is no such folder.
    """
    if isinstance(pictures, str | os.PathLike):
        found = list(_folder(Path(pictures)))
    elif isinstance(pictures, Mapping):
        found = [_given(p, label, TRAIN, i) for label, items in pictures.items() for i, p in enumerate(items)]
    else:
        found = [_given(item[0], item[1], item[2] if len(item) > 2 else TRAIN, i) for i, item in enumerate(pictures)]
    return LabelledPictures(tuple(entry for entry, _ in found), tuple(reader for _, reader in found))


def _folder(root: Path) -> Iterator[tuple[Entry, Callable[[], Picture]]]:
    if not root.is_dir():
        raise NotFound(f"there is no folder {root}", field="pictures")
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    with_sets = is_layout_of_sets(names)
    found = False
    for name in names:
        entry = entry_of(name, with_sets)
        if entry is not None:
            found = True
            # Whatever is in the file travels: the server says what is wrong with it, and skips it or not.
            reader = (root / name).read_bytes
            yield dataclasses.replace(entry, sha256=picture_hash(reader())), reader
    if not found:
        raise InvalidInput(f"{root} has no pictures in the layout <class>/<picture>", field="pictures")


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
        InvalidInput: `name/version` with a version that is no number.
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


class TrainRun:
    """One training across any number of connections: no event is told twice, and none is missing.

    After a break the run is resumed by its id; the server asks only for pictures whose features it has not.
    """

    def __init__(self, order: TrainOrder, pictures: LabelledPictures) -> None:
        self._order = order
        self._pictures = pictures
        self.run_id = order.run_id or order.resume_run_id
        self.done = False
        self._resumption = Resumption(f"run {self.run_id}", ordered=order.configuration is not None)
        self._accepted = False
        self._recipe = -1
        self._epoch = (-1, 0)
        self._skipped: set[str] = set()
        self._unread: GramletError | None = None

    def request(self) -> train_pb2.TrainRequest:
        """What to send first: the order, or the wish to resume."""
        return encode_order(TrainOrder(resume_run_id=self.run_id) if self._resumption.resuming else self._order)

    def asked(self, message: train_pb2.TrainResponse) -> list[Callable[[], train_pb2.TrainRequest]] | None:
        """The pictures that the server wants, each to be read when it is about to be sent; None: it did not say yet.

        Raises:
            InvalidInput: A run that was resumed without its pictures needs some.
        """
        if message.WhichOneof("event") != "accepted":
            return None
        readers = {entry.name: read for entry, read in zip(self._pictures.entries, self._pictures.readers, strict=True)}
        accepted = message.accepted
        missing = [name for name in accepted.names if name not in readers]
        if missing:
            raise InvalidInput(
                f"run {self.run_id} still needs {len(missing)} pictures, such as {missing[0]}: resume it with them",
                field="pictures",
            )
        return [
            partial(self._read, position, readers[name])
            for position, name in zip(accepted.wanted, accepted.names, strict=True)
        ]

    def _read(self, position: int, read: Callable[[], Picture]) -> train_pb2.TrainRequest:
        try:
            return encode_upload(Upload(position, read()))
        except (GramletError, OSError) as error:
            # This may be gRPC's thread, which would say no more than that there was an exception.
            self._unread = error if isinstance(error, GramletError) else NotFound(str(error), field="pictures")
            raise

    def accept(self, message: train_pb2.TrainResponse) -> Event | None:
        """The event, or None for one that was told before."""
        event = decode_event(message)
        if event is None or not self._is_news(event):
            return None
        self._remember(event)
        return event

    def broken(self, error: GramletError) -> GramletError:
        """Takes note of a failure; returns what the retry policy should judge it by."""
        if self._unread is not None:
            return self._unread
        return self._resumption.broken(error)

    def _is_news(self, event: Event) -> bool:
        match event:
            case Queued() | Accepted():
                return not self._accepted
            case Started():
                return event.recipe > self._recipe
            case Epoch():
                return (event.recipe, event.epoch) > self._epoch
            case Skipped():
                return event.name not in self._skipped
            case _:
                return True

    def _remember(self, event: Event) -> None:
        match event:
            case Accepted():
                self._accepted = True
                self._resumption.arrived()
            case Started():
                self._recipe = event.recipe
            case Epoch():
                self._epoch = (event.recipe, event.epoch)
            case Skipped():
                self._skipped.add(event.name)
            case Result():
                self.done = True


class PredictBatches:
    """Pictures to classify, in requests that a message holds. A picture that cannot be read never travels."""

    def __init__(self, head: HeadInput, pictures: Iterable[PictureInput], top_k: int) -> None:
        self._head = head_ref(head)
        self._pictures = pictures
        self._top_k = top_k
        self._under_way: list[Picture | GramletError] = []

    def requests(self) -> Iterator[train_pb2.PredictRequest]:
        """One request after the other; `outcomes` must be asked before the next."""
        size = 0
        for number, picture in enumerate(self._pictures):
            read = _read_or_error(picture, f"pictures[{number}]")
            length = _length(read)
            if self._under_way and (len(self._under_way) == PREDICT_PICTURES or size + length > PREDICT_BYTES):
                yield self._request()
                self._under_way, size = [], 0
            self._under_way.append(read)
            size += length
        if self._under_way:
            yield self._request()

    def outcomes(self, message: train_pb2.PredictResponse | None) -> Iterator[Prediction | GramletError]:
        """One outcome for each picture of the last request; None answers a request without pictures, never sent."""
        answered = iter(decode_predict_response(message) if message is not None else ())
        for picture in self._under_way:
            yield picture if isinstance(picture, GramletError) else next(answered)

    def _request(self) -> train_pb2.PredictRequest:
        sent = [picture for picture in self._under_way if not isinstance(picture, GramletError)]
        return encode_predict_request(self._head, sent, self._top_k)


def _read_or_error(picture: PictureInput, field: str) -> Picture | GramletError:
    try:
        return read_picture(picture, field)
    except GramletError as error:
        return error


def _length(picture: Picture | GramletError) -> int:
    if isinstance(picture, GramletError):
        return 0
    return len(picture) if isinstance(picture, bytes) else picture.nbytes


def resume_order(run_id: str, pictures: PicturesInput | None) -> tuple[TrainOrder, LabelledPictures]:
    """A run to go on with, and its pictures in case the server still needs some."""
    local = read_labelled(pictures) if pictures is not None else LabelledPictures((), ())
    return TrainOrder(resume_run_id=run_id), local
