"""Codecs of gramlet.train.v1: what a run is asked to do, and its events. Heads and predictions: `head_wire`."""

from __future__ import annotations

from collections.abc import Iterator

from gramlet.errors import InvalidInput
from gramlet.run.wire import PROGRESS
from gramlet.tensor.codec import EnumCodec, EventCodec, Functions, Inner, MessageCodec, each
from gramlet.tensor.wire import decode_picture, encode_picture
from gramlet.train.configuration import Configuration, Entry, TrainOrder, Unreadable, Upload
from gramlet.train.head_wire import EPOCH, HEAD, OUTCOME, RECIPE, SKIPPED
from gramlet.train.types import Accepted, Event, Extracting, Queued, RemoteProgress, Result, Started, Step
from gramlet.train.v1 import train_pb2, train_pb2_grpc
from gramlet.transport.rpc import BEATING_SECONDS, Kind, Rpc

# --- requests of Train ---

TRAIN = Rpc(train_pb2_grpc.TrainServiceStub, "Train", Kind.STREAM, silence=BEATING_SECONDS)


def _encode_hash(sha256: str) -> bytes:
    return bytes.fromhex(sha256)


def _decode_hash(sha256: bytes, field: str) -> str:
    if len(sha256) != 32:
        raise InvalidInput(f"a SHA-256 has 32 bytes, not {len(sha256)}", field=field)
    return sha256.hex()


_UNREADABLE = EnumCodec({Unreadable.SKIP: train_pb2.UNREADABLE_SKIP, Unreadable.FAIL: train_pb2.UNREADABLE_FAIL})
_ENTRIES = each(MessageCodec(Entry, train_pb2.Entry, sha256=Functions(_encode_hash, _decode_hash)))
_CONFIGURATION = MessageCodec(
    Configuration,
    train_pb2.Configuration,
    beside=("run_id", "entries"),
    renamed={"dataset": "dataset_uri"},
    recipes=each(RECIPE),
    unreadable=_UNREADABLE,
)


def encode_order(order: TrainOrder) -> train_pb2.TrainRequest:
    """The first message of a run."""
    if order.watch_run_id:
        return train_pb2.TrainRequest(watch_run_id=order.watch_run_id)
    if order.configuration is None:
        run_id = order.resume_run_id
        return train_pb2.TrainRequest(resume_run_id=run_id, detached=order.detached, take_over=order.take_over)
    message = _CONFIGURATION.encode(order.configuration)
    message.run_id = order.run_id
    if not order.configuration.dataset:
        message.entries.entries.extend(_ENTRIES.encode(order.configuration.entries))
        message.entries.SetInParent()
    return train_pb2.TrainRequest(configuration=message, detached=order.detached, weights_digest=order.weights_digest)


def decode_order(requests: Iterator[train_pb2.TrainRequest]) -> TrainOrder:
    """The first message of a run.

    Raises:
        InvalidInput: There is none, or it is a picture, or something in it is wrong.
    """
    request = next(requests, train_pb2.TrainRequest())
    match request.WhichOneof("message"):
        case "configuration":
            configuration = _decode_configuration(request.configuration)
            return TrainOrder(
                configuration,
                run_id=request.configuration.run_id,
                detached=request.detached,
                weights_digest=request.weights_digest,
            )
        case "resume_run_id":
            run_id = request.resume_run_id
            return TrainOrder(resume_run_id=run_id, detached=request.detached, take_over=request.take_over)
        case "watch_run_id":
            return TrainOrder(watch_run_id=request.watch_run_id)
        case _:
            raise InvalidInput(
                "the first message must be `configuration`, `resume_run_id` or `watch_run_id`", field="message"
            )


def _decode_configuration(message: train_pb2.Configuration) -> Configuration:
    field = "configuration"
    if message.WhichOneof("data") is None:
        raise InvalidInput("set `entries` or `dataset_uri`", field=f"{field}.data")
    entries = _ENTRIES.decode(message.entries.entries, f"{field}.entries")
    return _CONFIGURATION.decode(message, field, entries=entries)


def encode_upload(upload: Upload) -> train_pb2.TrainRequest:
    """A picture that the server asked for."""
    picture = None if upload.unread else encode_picture(upload.picture)
    return train_pb2.TrainRequest(
        picture=train_pb2.LabelledPicture(entry=upload.entry, picture=picture, unread=upload.unread)
    )


def decode_uploads(requests: Iterator[train_pb2.TrainRequest]) -> Iterator[Upload]:
    """The pictures that follow.

    Raises:
        InvalidInput: Something else than a picture.
    """
    for request in requests:
        if request.WhichOneof("message") != "picture":
            raise InvalidInput("after the first message only pictures may follow", field="message")
        entry, unread = request.picture.entry, request.picture.unread
        picture = b"" if unread else decode_picture(request.picture.picture, f"picture.entry[{entry}]")
        yield Upload(entry, picture, unread)


# --- events of Train ---

_EVENTS: EventCodec[Event, train_pb2.TrainResponse] = EventCodec(
    train_pb2.TrainResponse,
    queued=MessageCodec(Queued, train_pb2.Queued),
    accepted=MessageCodec(Accepted, train_pb2.Accepted),
    extracting=MessageCodec(Extracting, train_pb2.Extracting),
    skipped=SKIPPED,
    started=MessageCodec(Started, train_pb2.Started),
    step=MessageCodec(Step, train_pb2.Step),
    epoch=EPOCH,
    result=MessageCodec(Result, train_pb2.Result, head=HEAD, outcomes=each(OUTCOME)),
    progress=Inner(RemoteProgress, "progress", PROGRESS),
)
decode_event = _EVENTS.decode


def encode_event(event: Event | None, run_id: str) -> train_pb2.TrainResponse:
    """An event of that run. None: a sign that the server works."""
    return _EVENTS.encode(event, run_id=run_id)
