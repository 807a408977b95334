"""What a call of TrainService remembers, so that it can go on after its server is lost. No gRPC, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from gramlet.errors import GramletError, InvalidInput, counted
from gramlet.inputs.pictures import PictureInput, read_picture
from gramlet.inputs.values import any_number, fill, flag, read_each, whole_number
from gramlet.train.configuration import TrainOrder, Upload
from gramlet.train.head_wire import decode_predict_response, encode_predict_request
from gramlet.train.inputs import HeadInput, LabelledPictures, head_ref
from gramlet.train.predictions import Prediction, PredictOptions
from gramlet.train.types import Accepted, Epoch, Event, Queued, Reconnecting, RemoteProgress, Result, Skipped, Started
from gramlet.train.wire import decode_event, encode_order, encode_upload
from gramlet.transport.channel import MESSAGE_BYTES
from gramlet.transport.rpc import Message
from gramlet.transport.run import Run
from gramlet.types import Picture

PREDICT_PICTURES = 32
PREDICT_BYTES = MESSAGE_BYTES // 2


class TrainRun(Run[Event]):
    """One training. The server asks only for pictures whose features it does not have."""

    remote = RemoteProgress

    def __init__(self, order: TrainOrder, pictures: LabelledPictures) -> None:
        order = fill(TrainOrder, vars(order), called={"resume_run_id": "run_id"})
        run_id = order.run_id or order.resume_run_id or order.watch_run_id
        super().__init__(run_id, ordered=order.configuration is not None, watching=bool(order.watch_run_id))
        self._order = order
        self._pictures = pictures
        self._wanted: list[Callable[[], Message]] | None = None
        self._accepted = False
        self._recipe = -1
        self._epoch = (-1, 0)
        self._follows = False  # the caller has seen an epoch
        self._skipped: set[str] = set()

    def request(self) -> Message:
        """The order, or the request to resume."""
        self._wanted = None
        if self.watching or not self.resuming:
            return encode_order(self._order)
        detached = self._order.detached
        return encode_order(TrainOrder(resume_run_id=self.run_id, detached=detached, take_over=self.take_over))

    def uploads(self) -> Iterable[Callable[[], Message]] | None:
        """The pictures that the server has just asked for, each to be read when it is sent."""
        wanted, self._wanted = self._wanted, None
        return wanted

    def _note(self, event: Event) -> None:
        if isinstance(event, Accepted):  # comes in every connection, with the pictures that are still missing
            super()._note(event)
            self._wanted = self._uploads_for(event)

    def _uploads_for(self, accepted: Accepted) -> list[Callable[[], Message]]:
        readers = {entry.name: read for entry, read in zip(self._pictures.entries, self._pictures.readers, strict=True)}
        missing = [name for name in accepted.names if name not in readers]
        if missing:
            raise InvalidInput(
                f"run {self.run_id} still needs {counted(len(missing), 'picture')}, such as {missing[0]}: "
                "resume it with its pictures",
                field="pictures",
            )
        return [
            partial(_read_upload, entry, readers[name])
            for entry, name in zip(accepted.wanted, accepted.names, strict=True)
        ]

    def _reconnecting(self, message: str) -> Event:
        return Reconnecting(message)

    def _decode(self, message: Message) -> Event | None:
        return decode_event(message)

    def _is_new(self, event: Event) -> bool:
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
            case Started():
                self._recipe = event.recipe
                if not (self._ordered or self._follows):  # what was before is reported again to earlier callers
                    self._epoch = (event.recipe, event.epoch)
            case Epoch():
                self._epoch, self._follows = (event.recipe, event.epoch), True
            case Skipped():
                self._skipped.add(event.name)
            case Result():
                self.done = True


def _read_upload(entry: int, read: Callable[[], Picture]) -> Message:
    try:
        return encode_upload(Upload(entry, read()))
    except GramletError as error:  # the other pictures go on
        return encode_upload(Upload(entry, b"", unread=error.message))


class PredictBatches:
    """Pictures to classify, in requests that fit a message. A picture that cannot be read never travels."""

    def __init__(
        self,
        head: HeadInput,
        pictures: Iterable[PictureInput],
        top_k: int,
        coverage: float,
        heat_maps: bool,
        weights_digest: str = "",
    ) -> None:
        self._head = head_ref(head)
        self._pictures = enumerate(read_each(pictures, "pictures"))
        self._options = PredictOptions(
            whole_number(top_k, "top_k", least=1),
            any_number(coverage, "coverage"),
            flag(heat_maps, "heat_maps"),
            weights_digest,
        )
        self._batch: list[Picture | GramletError] = []
        self._next: list[Picture | GramletError] = []

    def fill(self) -> bool:
        """Reads the next batch; False if there are no more pictures."""
        self._batch, self._next = self._next, []
        size = sum(map(_length, self._batch))
        for number, picture in self._pictures:
            read = _read_or_error(picture, f"pictures[{number}]")
            size += _length(read)
            if self._batch and (len(self._batch) == PREDICT_PICTURES or size > PREDICT_BYTES):
                self._next = [read]
                break
            self._batch.append(read)
        return bool(self._batch)

    @property
    def readable(self) -> list[Picture]:
        """The pictures of the batch that can be sent."""
        return [picture for picture in self._batch if not isinstance(picture, GramletError)]

    def request(self) -> Message:
        """The batch as a request."""
        return encode_predict_request(self._head, self.readable, self._options)

    def outcomes(self, reply: Message | None) -> Iterator[Prediction | GramletError]:
        """One outcome for each picture of the batch; None stands for the reply to a batch with nothing to send."""
        answered = iter(() if reply is None else decode_predict_response(reply))
        for picture in self._batch:
            yield picture if isinstance(picture, GramletError) else next(answered)


def _read_or_error(picture: PictureInput, field: str) -> Picture | GramletError:
    try:
        return read_picture(picture, field)
    except GramletError as error:
        return error


def _length(picture: Picture | GramletError) -> int:
    if isinstance(picture, GramletError):
        return 0
    return len(picture) if isinstance(picture, bytes) else picture.nbytes
