"""Codecs of gramlet.feature.v1: the messages of See."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gramlet.errors import GramletError, InternalError, InvalidInput
from gramlet.feature.see_types import (
    Box,
    Maximization,
    Patch,
    PatchField,
    Projection,
    SeeEvent,
    SeeFinished,
    SeeOptimized,
    SeePatches,
    SeePreview,
    SeeProgress,
    SeeQueued,
    SeeRefused,
    SeeStart,
    SeeStarted,
)
from gramlet.feature.v1 import feature_pb2, feature_pb2_grpc
from gramlet.tensor.codec import EnumCodec, EventCodec, Functions, MessageCodec, each
from gramlet.tensor.wire import (
    RESIZE,
    TIMING,
    decode_picture_error,
    decode_picture_or_error,
    encode_picture,
    encode_picture_error,
)
from gramlet.transport.rpc import Kind, Rpc
from gramlet.types import Picture

SEE = Rpc(feature_pb2_grpc.FeatureServiceStub, "See", Kind.STREAM)

Items = list[tuple[str, Picture | GramletError]]
"""The pictures of one message, with their ids."""

_PROJECTION = EnumCodec(
    {
        Projection.NONE: feature_pb2.PROJECTION_NONE,
        Projection.DECONVNET: feature_pb2.PROJECTION_DECONVNET,
        Projection.GUIDED: feature_pb2.PROJECTION_GUIDED,
    }
)
_PATCH_FIELD = EnumCodec(
    {
        PatchField.EFFECTIVE: feature_pb2.PATCH_FIELD_EFFECTIVE,
        PatchField.THEORETICAL: feature_pb2.PATCH_FIELD_THEORETICAL,
    }
)
_START = MessageCodec(
    SeeStart,
    feature_pb2.SeeRequest.Start,
    patch_field=_PATCH_FIELD,
    projection=_PROJECTION,
    maximization=MessageCodec(Maximization, feature_pb2.Maximization),
    resize=RESIZE,
)
_RESPONSE = feature_pb2.SeeResponse
_PATCH = MessageCodec(Patch, _RESPONSE.Patch, box=MessageCodec(Box, _RESPONSE.Box))
_ERROR = Functions(encode_picture_error, lambda message, _: decode_picture_error(message))
_EVENTS: EventCodec[SeeEvent | SeeFinished, feature_pb2.SeeResponse] = EventCodec(
    _RESPONSE,
    queued=MessageCodec(SeeQueued, _RESPONSE.Queued),
    started=MessageCodec(SeeStarted, _RESPONSE.Started),
    progress=MessageCodec(SeeProgress, _RESPONSE.Progress),
    refused=MessageCodec(SeeRefused, _RESPONSE.Refused, error=_ERROR),
    patches=MessageCodec(SeePatches, _RESPONSE.Patches, patches=each(_PATCH)),
    preview=MessageCodec(SeePreview, _RESPONSE.Preview),
    optimized=MessageCodec(SeeOptimized, _RESPONSE.Optimized, timing=TIMING),
    finished=MessageCodec(SeeFinished, _RESPONSE.Finished, timing=TIMING),
)
encode_see_event = _EVENTS.encode


def encode_see_start(start: SeeStart) -> feature_pb2.SeeRequest:
    """The first message: what to show."""
    return feature_pb2.SeeRequest(start=_START.encode(start))


def encode_see_items(items: Iterable[tuple[str, Picture]]) -> feature_pb2.SeeRequest:
    """Pictures, with their ids."""
    item = feature_pb2.SeeRequest.Item
    return feature_pb2.SeeRequest(items=[item(id=name, picture=encode_picture(picture)) for name, picture in items])


def decode_see(messages: Iterator[feature_pb2.SeeRequest]) -> tuple[SeeStart, Iterator[Items]]:
    """What to show, and the pictures of each message; one that cannot be decoded becomes an error.

    Raises:
        InvalidInput: The first message does not say what to show, or a channel is named twice; from the iterator, a
            later message has a start.
    """
    first = next(messages, feature_pb2.SeeRequest())
    if not first.HasField("start"):
        raise InvalidInput("the first message must say what to show", field="start")
    start = _START.decode(first.start, "start")
    for index, channel in enumerate(start.channels):
        if channel in start.channels[:index]:
            raise InvalidInput(f"channel {channel} is named twice", field=f"start.channels[{index}]")

    def pictures() -> Iterator[Items]:
        yield _decode_items(first)
        for message in messages:
            if message.HasField("start"):
                raise InvalidInput("only the first message may say what to show", field="start")
            yield _decode_items(message)

    return start, pictures()


def _decode_items(message: feature_pb2.SeeRequest) -> Items:
    return [
        (item.id, decode_picture_or_error(item.picture, f"items[{index}].picture"))
        for index, item in enumerate(message.items)
    ]


def decode_see_event(message: feature_pb2.SeeResponse) -> SeeEvent | SeeFinished | None:
    """The event; None for one that only a later release knows.

    Raises:
        InternalError: The server sent something that makes no sense.
    """
    try:
        return _EVENTS.decode(message)
    except InvalidInput as error:
        raise InternalError(f"the server sent {error.field}: {error.message}") from None
