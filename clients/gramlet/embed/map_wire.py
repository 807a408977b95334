"""Codecs of gramlet.embed.v1: settings, maps, positions, drawings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gramlet.embed.drawings import DrawingForm, MapDrawing
from gramlet.embed.settings import Descriptor, Exactness, Gradient, MapSettings, Method, Metric, Preset, Tsne
from gramlet.embed.types import (
    Comparison,
    Layout,
    MapSummary,
    Measured,
    Neighbor,
    Place,
    Position,
    Quality,
    Refused,
    StyleMap,
)
from gramlet.embed.v1 import embed_pb2, embed_pb2_grpc
from gramlet.errors import GramletError, InvalidInput
from gramlet.tensor.arrays import decode_tensor, encode_tensor
from gramlet.tensor.codec import EnumCodec, Functions, MessageCodec, each
from gramlet.tensor.v1 import picture_pb2, tensor_pb2
from gramlet.tensor.wire import RESIZE, decode_picture_error, encode_picture_error
from gramlet.transport.rpc import Kind, Rpc
from gramlet.types import Array

_CHUNK_BYTES = 1024 * 1024

# --- settings ---

_DESCRIPTOR = EnumCodec(
    {
        Descriptor.GRAM: embed_pb2.DESCRIPTOR_GRAM,
        Descriptor.POOLED: embed_pb2.DESCRIPTOR_POOLED,
        Descriptor.VECTOR: embed_pb2.DESCRIPTOR_VECTOR,
    }
)
_METRIC = EnumCodec(
    {
        Metric.EUCLIDEAN: embed_pb2.METRIC_EUCLIDEAN,
        Metric.COSINE: embed_pb2.METRIC_COSINE,
        Metric.CORRELATION: embed_pb2.METRIC_CORRELATION,
    }
)
_EXACTNESS = EnumCodec(
    {
        Exactness.AUTO: embed_pb2.EXACTNESS_UNSPECIFIED,
        Exactness.EXACT: embed_pb2.EXACTNESS_EXACT,
        Exactness.SKETCH: embed_pb2.EXACTNESS_SKETCH,
    }
)
_METHOD = EnumCodec(
    {
        Method.TSNE: embed_pb2.METHOD_TSNE,
        Method.PCA: embed_pb2.METHOD_PCA,
        Method.UMAP: embed_pb2.METHOD_UMAP,
        Method.ISOMAP: embed_pb2.METHOD_ISOMAP,
        Method.MDS: embed_pb2.METHOD_MDS,
        Method.LLE: embed_pb2.METHOD_LLE,
    }
)
_GRADIENT = EnumCodec(
    {
        Gradient.AUTO: embed_pb2.GRADIENT_UNSPECIFIED,
        Gradient.EXACT: embed_pb2.GRADIENT_EXACT,
        Gradient.BARNES_HUT: embed_pb2.GRADIENT_BARNES_HUT,
        Gradient.INTERPOLATION: embed_pb2.GRADIENT_INTERPOLATION,
    }
)
_PRESET = EnumCodec({Preset.NONE: embed_pb2.PRESET_UNSPECIFIED, Preset.CLASSIC: embed_pb2.PRESET_CLASSIC})
_TSNE = MessageCodec(Tsne, embed_pb2.Tsne, gradient=_GRADIENT)
SETTINGS = MessageCodec(
    MapSettings,
    embed_pb2.Settings,
    descriptor=_DESCRIPTOR,
    resize=RESIZE,
    metric=_METRIC,
    exactness=_EXACTNESS,
    method=_METHOD,
    tsne=_TSNE,
    preset=_PRESET,
)
encode_settings = SETTINGS.encode


def decode_settings(message: embed_pb2.Settings, field: str = "settings") -> MapSettings:
    """What map to make; what is unset takes its default. The service checks ranges.

    Raises:
        InvalidInput: An unknown enumeration value, or a wrong way of resizing.
    """
    return SETTINGS.decode(message, field)


# --- maps ---


def _encode_refused(refused: Refused) -> embed_pb2.Refused:
    error = picture_pb2.PictureError(code=refused.code, message=refused.message, field=refused.field)
    return embed_pb2.Refused(index=refused.index, id=refused.id, error=error)


def _decode_refused(message: embed_pb2.Refused, field: str) -> Refused:
    return Refused(message.index, message.id, message.error.code, message.error.message, message.error.field)


def _decode_coordinates(message: tensor_pb2.Tensor, field: str) -> Array:
    coordinates = decode_tensor(message, field)
    if coordinates.ndim != 2:
        raise InvalidInput(f"coordinates have shape (items, dimensions), not {coordinates.shape}", field=field)
    return coordinates


COORDINATES = Functions(encode_tensor, _decode_coordinates)
REFUSED = Functions(_encode_refused, _decode_refused)
MEASURED = MessageCodec(Measured, embed_pb2.Measured, exactness=_EXACTNESS)
_LAYOUT = MessageCodec(
    Layout, embed_pb2.Layout, coordinates=COORDINATES, quality=MessageCodec(Quality, embed_pb2.Quality)
)
MAP = MessageCodec(
    StyleMap,
    embed_pb2.StyleMap,
    settings=SETTINGS,
    places=each(MessageCodec(Place, embed_pb2.Place)),
    layouts=each(_LAYOUT),
    measured=MEASURED,
    refused=each(REFUSED),
    comparison=each(MessageCodec(Comparison, embed_pb2.Comparison, descriptor=_DESCRIPTOR)),
)
_SUMMARIES = each(MessageCodec(MapSummary, embed_pb2.ListMapsResponse.Entry, method=_METHOD))
_POSITION = MessageCodec(
    Position,
    embed_pb2.Position,
    coordinates=COORDINATES,
    neighbors=each(MessageCodec(Neighbor, embed_pb2.Neighbor)),
)
encode_map, decode_map = MAP.encode, MAP.decode


def encode_summaries(summaries: Iterable[MapSummary]) -> embed_pb2.ListMapsResponse:
    """The stored maps."""
    return embed_pb2.ListMapsResponse(maps=_SUMMARIES.encode(summaries))


def decode_summaries(message: embed_pb2.ListMapsResponse) -> list[MapSummary]:
    """The stored maps."""
    return list(_SUMMARIES.decode(message.maps, "maps"))


def encode_position(identifier: str, outcome: Position | GramletError) -> embed_pb2.TransformResponse:
    """The outcome for one item."""
    if isinstance(outcome, GramletError):
        return embed_pb2.TransformResponse(id=identifier, error=encode_picture_error(outcome))
    return embed_pb2.TransformResponse(id=identifier, position=_POSITION.encode(outcome))


def decode_position(message: embed_pb2.TransformResponse) -> Position | GramletError:
    """The outcome for one item."""
    if message.WhichOneof("outcome") != "position":
        return decode_picture_error(message.error)
    return _POSITION.decode(message.position, "position", id=message.id)


# --- drawings ---

_FORM = EnumCodec(
    {
        DrawingForm.SCATTER: embed_pb2.DrawMapRequest.FORM_SCATTER,
        DrawingForm.GRID: embed_pb2.DrawMapRequest.FORM_GRID,
        DrawingForm.PAGE: embed_pb2.DrawMapRequest.FORM_PAGE,
    }
)
_DRAWING = MessageCodec(MapDrawing, embed_pb2.DrawMapRequest, form=_FORM)
encode_drawing, decode_drawing = _DRAWING.encode, _DRAWING.decode


def encode_chunks(content_type: str, data: bytes) -> Iterator[embed_pb2.DrawMapResponse]:
    """A file in pieces."""
    yield embed_pb2.DrawMapResponse(content_type=content_type, total_bytes=len(data), chunk=data[:_CHUNK_BYTES])
    for start in range(_CHUNK_BYTES, len(data), _CHUNK_BYTES):
        yield embed_pb2.DrawMapResponse(chunk=data[start : start + _CHUNK_BYTES])


# --- what the client calls, sends and reads ---

DRAW_MAP = Rpc(embed_pb2_grpc.EmbedServiceStub, "DrawMap", Kind.SERVER_STREAM)
GET_MAP = Rpc(embed_pb2_grpc.EmbedServiceStub, "GetMap")
LIST_MAPS = Rpc(embed_pb2_grpc.EmbedServiceStub, "ListMaps")
DELETE_MAP = Rpc(embed_pb2_grpc.EmbedServiceStub, "DeleteMap")


def decode_drawing_chunk(message: embed_pb2.DrawMapResponse) -> bytes:
    """The next piece of the file."""
    return message.chunk


def encode_get_map(map_id: str) -> embed_pb2.GetMapRequest:
    """Asks for a stored map."""
    return embed_pb2.GetMapRequest(map_id=map_id)


def decode_get_map(message: embed_pb2.GetMapResponse) -> StyleMap:
    """A stored map."""
    return decode_map(message.map)


def encode_list_maps() -> embed_pb2.ListMapsRequest:
    """Asks for the stored maps in short."""
    return embed_pb2.ListMapsRequest()


def encode_delete_map(map_id: str) -> embed_pb2.DeleteMapRequest:
    """Asks to remove a map."""
    return embed_pb2.DeleteMapRequest(map_id=map_id)
