"""Codecs of gramlet.embed.v1: what is asked, and the events of a map's making. Settings and maps: `map_wire`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from gramlet.embed.map_wire import COORDINATES, MAP, MEASURED, REFUSED, SETTINGS
from gramlet.embed.types import (
    BadItem,
    Described,
    Item,
    LayoutIteration,
    MapEvent,
    MapStart,
    MeasuredItems,
    Queued,
    RefusedItem,
    RemoteProgress,
    Started,
    Task,
    Working,
)
from gramlet.embed.v1 import embed_pb2, embed_pb2_grpc
from gramlet.errors import InvalidInput
from gramlet.run.wire import PROGRESS
from gramlet.tensor.arrays import TENSOR
from gramlet.tensor.codec import EnumCodec, EventCodec, Inner, MessageCodec, checked
from gramlet.tensor.wire import PICTURE, decode_picture_error, encode_picture_error
from gramlet.transport.rpc import BEATING_SECONDS, Kind, Rpc
from gramlet.types import check_name

# --- requests ---

EMBED = Rpc(embed_pb2_grpc.EmbedServiceStub, "Embed", Kind.STREAM, silence=BEATING_SECONDS)
TRANSFORM = Rpc(embed_pb2_grpc.EmbedServiceStub, "Transform", Kind.STREAM)

_ITEM = MessageCodec(Item, embed_pb2.Item, picture=PICTURE, vector=TENSOR)
_START = MessageCodec(
    MapStart,
    embed_pb2.EmbedRequest.Start,
    settings=SETTINGS,
    map_id=checked(check_name),
)


def encode_start(start: MapStart) -> embed_pb2.EmbedRequest:
    """The first message of a map's making."""
    return embed_pb2.EmbedRequest(start=_START.encode(start))


def decode_start(requests: Iterator[embed_pb2.EmbedRequest]) -> MapStart:
    """Takes the first message.

    Raises:
        InvalidInput: It is not a start, or a start of nothing.
    """
    message = next(requests, embed_pb2.EmbedRequest())
    if message.WhichOneof("message") != "start":
        raise InvalidInput("the first message must say what to make", field="start")
    if message.start.WhichOneof("start") is None:
        raise InvalidInput("set `settings`, `resume_map_id` or `watch_map_id`", field="start")
    start = _START.decode(message.start, "start")
    return start if message.start.HasField("settings") else dataclasses.replace(start, settings=None)


def encode_item(item: Item) -> embed_pb2.EmbedRequest:
    """An item to be mapped."""
    return embed_pb2.EmbedRequest(item=_ITEM.encode(item))


def encode_unread(item: BadItem) -> embed_pb2.EmbedRequest:
    """An item that could not be read, and why."""
    unread = embed_pb2.UnreadItem(id=item.id, error=encode_picture_error(item.error))
    return embed_pb2.EmbedRequest(unread=unread)


def encode_transform_start(map_id: str, weights_digest: str = "") -> embed_pb2.TransformRequest:
    """The first message of a Transform."""
    start = embed_pb2.TransformRequest.Start(map_id=map_id, weights_digest=weights_digest)
    return embed_pb2.TransformRequest(start=start)


def encode_transform_item(item: Item) -> embed_pb2.TransformRequest:
    """An item to transform."""
    return embed_pb2.TransformRequest(item=_ITEM.encode(item))


def decode_transform_start(requests: Iterator[embed_pb2.TransformRequest]) -> tuple[str, str]:
    """Takes the first message: the map's name, and the weights digest of the only network to use.

    Raises:
        InvalidInput: It is not a start.
    """
    message = next(requests, embed_pb2.TransformRequest())
    if message.WhichOneof("message") != "start":
        raise InvalidInput("the first message must name the map", field="start")
    return message.start.map_id, message.start.weights_digest


def decode_items(
    requests: Iterator[embed_pb2.EmbedRequest] | Iterator[embed_pb2.TransformRequest],
) -> Iterator[Item | BadItem]:
    """Takes the messages after the first. An item that cannot be decoded fails alone.

    Raises:
        InvalidInput: A message is not an item.
    """
    for request in requests:
        kind = request.WhichOneof("message")
        if isinstance(request, embed_pb2.EmbedRequest) and kind == "unread":
            yield BadItem(request.unread.id, decode_picture_error(request.unread.error))
            continue
        if kind != "item":
            raise InvalidInput("after the first message, only items", field="item")
        yield _item_or_error(request.item)


def _item_or_error(message: embed_pb2.Item) -> Item | BadItem:
    try:
        return _ITEM.decode(message, "item")
    except InvalidInput as error:
        return BadItem(message.id, error)


# --- events ---

_TASK = EnumCodec(
    {
        Task.COMPARISON: embed_pb2.Working.TASK_COMPARISON,
        Task.DISTANCES: embed_pb2.Working.TASK_DISTANCES,
        Task.QUALITY: embed_pb2.Working.TASK_QUALITY,
    }
)
_EVENTS: EventCodec[MapEvent, embed_pb2.EmbedResponse] = EventCodec(
    embed_pb2.EmbedResponse,
    queued=MessageCodec(Queued, embed_pb2.Queued),
    started=MessageCodec(Started, embed_pb2.Started, renamed={"memory_bound": "memory_bound_bytes"}, settings=SETTINGS),
    described=MessageCodec(Described, embed_pb2.Described),
    refused=Inner(RefusedItem, "refused", REFUSED),
    measured=Inner(MeasuredItems, "measured", MEASURED),
    iteration=MessageCodec(LayoutIteration, embed_pb2.Iteration, coordinates=COORDINATES),
    working=MessageCodec(Working, embed_pb2.Working, task=_TASK),
    result=MAP,
    progress=Inner(RemoteProgress, "progress", PROGRESS),
)
decode_event = _EVENTS.decode


def encode_event(event: MapEvent | None, map_id: str = "") -> embed_pb2.EmbedResponse:
    """An event of a map's making. None: a sign that the server works."""
    return _EVENTS.encode(event, map_id=map_id if event is None else event.map_id)
