"""What a call of TrainService remembers so that it can go on after its server is lost. No gRPC, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from gramlet.errors import GramletError, InvalidInput, NotFound
from gramlet.inputs import PictureInput, read_picture
from gramlet.train.configuration import TrainOrder, Upload
from gramlet.train.head_wire import decode_predict_response, encode_predict_request
from gramlet.train.inputs import HeadInput, LabelledPictures, head_ref
from gramlet.train.types import Accepted, Epoch, Event, Prediction, Queued, Result, Skipped, Started
from gramlet.train.v1 import train_pb2
from gramlet.train.wire import decode_event, encode_order, encode_upload
from gramlet.transport.channel import MESSAGE_BYTES
from gramlet.transport.resumption import Resumption
from gramlet.types import Picture

PREDICT_PICTURES = 32
PREDICT_BYTES = MESSAGE_BYTES // 2


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
