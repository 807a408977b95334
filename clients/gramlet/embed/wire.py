"""Codecs of gramlet.embed.v1."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator

from gramlet.embed.types import (
    BadItem,
    Described,
    Descriptor,
    DrawingForm,
    Exactness,
    Gradient,
    Item,
    Layout,
    LayoutIteration,
    MapDrawing,
    MapEvent,
    MapSettings,
    MapStart,
    MapSummary,
    Measured,
    MeasuredItems,
    Method,
    Metric,
    Neighbor,
    Place,
    Position,
    Quality,
    Queued,
    Refused,
    RefusedItem,
    Started,
    StyleMap,
    Tsne,
)
from gramlet.embed.v1 import embed_pb2, embed_pb2_grpc
from gramlet.errors import GramletError, InvalidInput
from gramlet.tensor.arrays import decode_tensor, encode_tensor
from gramlet.tensor.enums import EnumCodec
from gramlet.tensor.v1 import picture_pb2, tensor_pb2
from gramlet.tensor.wire import (
    decode_picture,
    decode_picture_error,
    decode_resize,
    encode_picture,
    encode_picture_error,
    encode_resize,
)
from gramlet.transport.rpc import Kind, Rpc
from gramlet.types import Array

DESCRIPTOR = EnumCodec(
    {
        Descriptor.GRAM: embed_pb2.DESCRIPTOR_GRAM,
        Descriptor.POOLED: embed_pb2.DESCRIPTOR_POOLED,
        Descriptor.VECTOR: embed_pb2.DESCRIPTOR_VECTOR,
    },
    Descriptor.GRAM,
)
METRIC = EnumCodec(
    {
        Metric.EUCLIDEAN: embed_pb2.METRIC_EUCLIDEAN,
        Metric.COSINE: embed_pb2.METRIC_COSINE,
        Metric.CORRELATION: embed_pb2.METRIC_CORRELATION,
    },
    Metric.EUCLIDEAN,
)
EXACTNESS = EnumCodec(
    {
        Exactness.AUTO: embed_pb2.EXACTNESS_UNSPECIFIED,
        Exactness.EXACT: embed_pb2.EXACTNESS_EXACT,
        Exactness.SKETCH: embed_pb2.EXACTNESS_SKETCH,
    },
    Exactness.AUTO,
)
METHOD = EnumCodec(
    {
        Method.TSNE: embed_pb2.METHOD_TSNE,
        Method.PCA: embed_pb2.METHOD_PCA,
        Method.UMAP: embed_pb2.METHOD_UMAP,
        Method.ISOMAP: embed_pb2.METHOD_ISOMAP,
        Method.MDS: embed_pb2.METHOD_MDS,
        Method.LLE: embed_pb2.METHOD_LLE,
    },
    Method.TSNE,
)
GRADIENT = EnumCodec(
    {
        Gradient.AUTO: embed_pb2.GRADIENT_UNSPECIFIED,
        Gradient.EXACT: embed_pb2.GRADIENT_EXACT,
        Gradient.BARNES_HUT: embed_pb2.GRADIENT_BARNES_HUT,
        Gradient.INTERPOLATION: embed_pb2.GRADIENT_INTERPOLATION,
    },
    Gradient.AUTO,
)
FORM = EnumCodec(
    {
        DrawingForm.SCATTER: embed_pb2.DrawMapRequest.FORM_SCATTER,
        DrawingForm.GRID: embed_pb2.DrawMapRequest.FORM_GRID,
        DrawingForm.PAGE: embed_pb2.DrawMapRequest.FORM_PAGE,
    },
    DrawingForm.SCATTER,
)
_CHUNK_BYTES = 1024 * 1024
_MAP_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


# --- settings ---


def encode_settings(settings: MapSettings) -> embed_pb2.Settings:
    """What map to make."""
    tsne = settings.tsne
    return embed_pb2.Settings(
        descriptor=DESCRIPTOR.encode(settings.descriptor),
        stages=settings.stages,
        resize=encode_resize(settings.resize),
        balance_stages=settings.balance_stages,
        metric=METRIC.encode(settings.metric),
        exactness=EXACTNESS.encode(settings.exactness),
        sketch_size=settings.sketch_size,
        method=METHOD.encode(settings.method),
        dimensions=settings.dimensions,
        tsne=embed_pb2.Tsne(
            perplexities=tsne.perplexities,
            iterations=tsne.iterations,
            early_exaggeration=tsne.early_exaggeration,
            early_iterations=tsne.early_iterations,
            learning_rate=tsne.learning_rate,
            angle=tsne.angle,
            gradient=GRADIENT.encode(tsne.gradient),
        ),
        neighbors=settings.neighbors,
        seed=settings.seed,
        quality_neighbors=settings.quality_neighbors,
    )


def decode_settings(message: embed_pb2.Settings, field: str = "settings") -> MapSettings:
    """What map to make; what is unset takes its default. Ranges are the domain's business.

    Raises:
        InvalidInput: An unknown enumeration value, or a wrong way of resizing.
    """
    default = MapSettings()
    return MapSettings(
        descriptor=DESCRIPTOR.decode(message.descriptor, f"{field}.descriptor"),
        stages=tuple(message.stages),
        resize=decode_resize(message.resize, f"{field}.resize") if message.HasField("resize") else default.resize,
        balance_stages=message.balance_stages if message.HasField("balance_stages") else default.balance_stages,
        metric=METRIC.decode(message.metric, f"{field}.metric"),
        exactness=EXACTNESS.decode(message.exactness, f"{field}.exactness"),
        sketch_size=message.sketch_size if message.HasField("sketch_size") else default.sketch_size,
        method=METHOD.decode(message.method, f"{field}.method"),
        dimensions=message.dimensions if message.HasField("dimensions") else default.dimensions,
        tsne=_decode_tsne(message.tsne, f"{field}.tsne"),
        neighbors=message.neighbors if message.HasField("neighbors") else default.neighbors,
        seed=message.seed,
        quality_neighbors=(
            message.quality_neighbors if message.HasField("quality_neighbors") else default.quality_neighbors
        ),
    )


def _decode_tsne(message: embed_pb2.Tsne, field: str) -> Tsne:
    default = Tsne()
    for name in ("early_exaggeration", "learning_rate", "angle"):
        if message.HasField(name) and not math.isfinite(getattr(message, name)):
            raise InvalidInput("must be a finite number", field=f"{field}.{name}")
    return Tsne(
        perplexities=tuple(message.perplexities) or default.perplexities,
        iterations=message.iterations if message.HasField("iterations") else default.iterations,
        early_exaggeration=(
            message.early_exaggeration if message.HasField("early_exaggeration") else default.early_exaggeration
        ),
        early_iterations=message.early_iterations if message.HasField("early_iterations") else default.early_iterations,
        learning_rate=message.learning_rate if message.HasField("learning_rate") else None,
        angle=message.angle if message.HasField("angle") else default.angle,
        gradient=GRADIENT.decode(message.gradient, f"{field}.gradient"),
    )


# --- requests ---


def encode_start(start: MapStart) -> embed_pb2.EmbedRequest:
    """The first message of a map's making."""
    message = embed_pb2.EmbedRequest.Start(
        count=start.count,
        map_id=start.map_id,
        from_map_id=start.from_map_id,
        report_every=start.report_every,
        omit_coordinates=start.omit_coordinates,
    )
    if start.settings is not None:
        message.settings.CopyFrom(encode_settings(start.settings))
    else:
        message.resume_map_id = start.resume_map_id
    return embed_pb2.EmbedRequest(start=message)


def decode_start(requests: Iterator[embed_pb2.EmbedRequest]) -> MapStart:
    """Takes the first message.

    Raises:
        InvalidInput: It is no start, or a start of nothing.
    """
    message = next(requests, embed_pb2.EmbedRequest())
    if message.WhichOneof("message") != "start":
        raise InvalidInput("the first message must say what to make", field="start")
    start = message.start
    which = start.WhichOneof("start")
    if which is None:
        raise InvalidInput("set `settings` or `resume_map_id`", field="start")
    _check_map_id(start.map_id, "start.map_id")
    return MapStart(
        settings=decode_settings(start.settings, "start.settings") if which == "settings" else None,
        resume_map_id=start.resume_map_id,
        count=start.count,
        map_id=start.map_id,
        from_map_id=start.from_map_id,
        report_every=start.report_every if start.HasField("report_every") else 10,
        omit_coordinates=start.omit_coordinates,
    )


def _check_map_id(map_id: str, field: str) -> None:
    if map_id and not _MAP_ID.fullmatch(map_id):
        raise InvalidInput(f"{map_id!r} is not 1 to 64 letters, digits, '-' or '_'", field=field)


def encode_item(item: Item) -> embed_pb2.EmbedRequest:
    """An item to be mapped."""
    return embed_pb2.EmbedRequest(item=_encode_item(item))


def encode_transform_start(map_id: str) -> embed_pb2.TransformRequest:
    """The first message of a placing."""
    return embed_pb2.TransformRequest(start=embed_pb2.TransformRequest.Start(map_id=map_id))


def encode_transform_item(item: Item) -> embed_pb2.TransformRequest:
    """An item to be placed."""
    return embed_pb2.TransformRequest(item=_encode_item(item))


def _encode_item(item: Item) -> embed_pb2.Item:
    return embed_pb2.Item(
        id=item.id,
        label=item.label,
        picture=None if item.picture is None else encode_picture(item.picture),
        vector=None if item.vector is None else encode_tensor(item.vector),
    )


def decode_transform_start(requests: Iterator[embed_pb2.TransformRequest]) -> str:
    """Takes the first message: the map's name.

    Raises:
        InvalidInput: It is no start.
    """
    message = next(requests, embed_pb2.TransformRequest())
    if message.WhichOneof("message") != "start":
        raise InvalidInput("the first message must name the map", field="start")
    return message.start.map_id


def decode_items(
    requests: Iterator[embed_pb2.EmbedRequest] | Iterator[embed_pb2.TransformRequest],
) -> Iterator[Item | BadItem]:
    """Takes the messages after the first. An item that cannot be decoded fails alone.

    Raises:
        InvalidInput: A message is no item.
    """
    for request in requests:
        if request.WhichOneof("message") != "item":
            raise InvalidInput("after the first message, only items", field="item")
        yield _item_or_error(request.item)


def _item_or_error(message: embed_pb2.Item) -> Item | BadItem:
    try:
        return Item(
            id=message.id,
            label=message.label,
            picture=decode_picture(message.picture, "item.picture") if message.HasField("picture") else None,
            vector=decode_tensor(message.vector, "item.vector") if message.HasField("vector") else None,
        )
    except InvalidInput as error:
        return BadItem(message.id, error)


def encode_drawing(drawing: MapDrawing) -> embed_pb2.DrawMapRequest:
    """What to draw."""
    return embed_pb2.DrawMapRequest(
        map_id=drawing.map_id,
        form=FORM.encode(drawing.form),
        layout=drawing.layout,
        width=drawing.width,
        title=drawing.title,
    )


def decode_drawing(message: embed_pb2.DrawMapRequest) -> MapDrawing:
    """What to draw.

    Raises:
        InvalidInput: An unknown form.
    """
    return MapDrawing(
        map_id=message.map_id,
        form=FORM.decode(message.form, "form"),
        layout=message.layout if message.HasField("layout") else None,
        width=message.width if message.HasField("width") else 1600,
        title=message.title,
    )


# --- events ---


def encode_event(event: MapEvent) -> embed_pb2.EmbedResponse:
    """An event of a map's making."""
    response = embed_pb2.EmbedResponse(map_id=event.map_id)
    match event:
        case Queued():
            response.queued.position = event.position
        case Started():
            response.started.CopyFrom(
                embed_pb2.Started(
                    settings=encode_settings(event.settings),
                    memory_bound_bytes=event.memory_bound,
                    resumed=event.resumed,
                )
            )
        case Described():
            response.described.CopyFrom(
                embed_pb2.Described(described=event.described, refused=event.refused, count=event.count)
            )
        case RefusedItem():
            response.refused.CopyFrom(_encode_refused(event.refused))
        case MeasuredItems():
            response.measured.CopyFrom(_encode_measured(event.measured))
        case LayoutIteration():
            response.iteration.CopyFrom(_encode_iteration(event))
        case StyleMap():
            response.result.CopyFrom(encode_map(event))
    return response


def decode_event(message: embed_pb2.EmbedResponse) -> MapEvent | None:
    """An event of a map's making; None for one that this release does not know."""
    match message.WhichOneof("event"):
        case "queued":
            return Queued(message.map_id, message.queued.position)
        case "started":
            started = message.started
            return Started(
                message.map_id, decode_settings(started.settings), started.memory_bound_bytes, started.resumed
            )
        case "described":
            described = message.described
            return Described(message.map_id, described.described, described.refused, described.count)
        case "refused":
            return RefusedItem(message.map_id, _decode_refused(message.refused))
        case "measured":
            return MeasuredItems(message.map_id, _decode_measured(message.measured))
        case "iteration":
            return _decode_iteration(message.iteration, message.map_id)
        case "result":
            return decode_map(message.result)
    return None


def _encode_iteration(event: LayoutIteration) -> embed_pb2.Iteration:
    return embed_pb2.Iteration(
        layout=event.layout,
        perplexity=event.perplexity,
        iteration=event.iteration,
        iterations=event.iterations,
        kl_divergence=event.kl_divergence,
        coordinates=None if event.coordinates is None else encode_tensor(event.coordinates),
    )


def _decode_iteration(message: embed_pb2.Iteration, map_id: str) -> LayoutIteration:
    return LayoutIteration(
        map_id=map_id,
        layout=message.layout,
        perplexity=message.perplexity,
        iteration=message.iteration,
        iterations=message.iterations,
        kl_divergence=message.kl_divergence,
        coordinates=_decode_coordinates(message.coordinates, "coordinates")
        if message.HasField("coordinates")
        else None,
    )


def _encode_refused(refused: Refused) -> embed_pb2.Refused:
    error = picture_pb2.PictureError(code=refused.code, message=refused.message, field=refused.field)
    return embed_pb2.Refused(index=refused.index, id=refused.id, error=error)


def _decode_refused(message: embed_pb2.Refused) -> Refused:
    return Refused(message.index, message.id, message.error.code, message.error.message, message.error.field)


def _encode_measured(measured: Measured) -> embed_pb2.Measured:
    return embed_pb2.Measured(
        exactness=EXACTNESS.encode(measured.exactness),
        descriptor_size=measured.descriptor_size,
        largest_error=measured.largest_error,
        rms_error=measured.rms_error,
        pairs_checked=measured.pairs_checked,
        duplicates=measured.duplicates,
    )


def _decode_measured(message: embed_pb2.Measured) -> Measured:
    return Measured(
        exactness=EXACTNESS.decode(message.exactness, "measured.exactness"),
        descriptor_size=message.descriptor_size,
        largest_error=message.largest_error,
        rms_error=message.rms_error,
        pairs_checked=message.pairs_checked,
        duplicates=message.duplicates,
    )


def _decode_coordinates(message: tensor_pb2.Tensor, field: str) -> Array:
    coordinates = decode_tensor(message, field)
    if coordinates.ndim != 2:
        raise InvalidInput(f"coordinates have shape (items, dimensions), not {coordinates.shape}", field=field)
    return coordinates


# --- maps ---


def encode_map(style_map: StyleMap) -> embed_pb2.StyleMap:
    """A finished map."""
    return embed_pb2.StyleMap(
        map_id=style_map.map_id,
        created=style_map.created,
        settings=encode_settings(style_map.settings),
        backbone=style_map.backbone,
        weights_digest=style_map.weights_digest,
        places=[embed_pb2.Place(id=place.id, label=place.label) for place in style_map.places],
        layouts=[_encode_layout(layout) for layout in style_map.layouts],
        measured=_encode_measured(style_map.measured),
        refused=[_encode_refused(refused) for refused in style_map.refused],
        notes=style_map.notes,
        seconds=style_map.seconds,
    )


def decode_map(message: embed_pb2.StyleMap) -> StyleMap:
    """A finished map."""
    return StyleMap(
        map_id=message.map_id,
        created=message.created,
        settings=decode_settings(message.settings),
        backbone=message.backbone,
        weights_digest=message.weights_digest,
        places=tuple(Place(place.id, place.label) for place in message.places),
        layouts=tuple(_decode_layout(layout) for layout in message.layouts),
        measured=_decode_measured(message.measured),
        refused=tuple(_decode_refused(refused) for refused in message.refused),
        notes=tuple(message.notes),
        seconds=message.seconds,
    )


def _encode_layout(layout: Layout) -> embed_pb2.Layout:
    quality = layout.quality
    return embed_pb2.Layout(
        perplexity=layout.perplexity,
        coordinates=encode_tensor(layout.coordinates),
        kl_divergence=layout.kl_divergence,
        quality=embed_pb2.Quality(
            neighbors=quality.neighbors,
            trustworthiness=quality.trustworthiness,
            continuity=quality.continuity,
            neighbor_preservation=quality.neighbor_preservation,
            label_accuracy=quality.label_accuracy,
            descriptor_label_accuracy=quality.descriptor_label_accuracy,
            silhouette=quality.silhouette,
            descriptor_silhouette=quality.descriptor_silhouette,
        ),
    )


def _decode_layout(message: embed_pb2.Layout) -> Layout:
    quality = message.quality

    def optional(name: str) -> float | None:
        return getattr(quality, name) if quality.HasField(name) else None

    return Layout(
        coordinates=_decode_coordinates(message.coordinates, "layouts.coordinates"),
        quality=Quality(
            neighbors=quality.neighbors,
            trustworthiness=quality.trustworthiness,
            continuity=quality.continuity,
            neighbor_preservation=quality.neighbor_preservation,
            label_accuracy=optional("label_accuracy"),
            descriptor_label_accuracy=optional("descriptor_label_accuracy"),
            silhouette=optional("silhouette"),
            descriptor_silhouette=optional("descriptor_silhouette"),
        ),
        perplexity=message.perplexity,
        kl_divergence=message.kl_divergence,
    )


def encode_summaries(summaries: Iterable[MapSummary]) -> embed_pb2.ListMapsResponse:
    """The stored maps."""
    return embed_pb2.ListMapsResponse(
        maps=[
            embed_pb2.ListMapsResponse.Entry(
                map_id=summary.map_id,
                created=summary.created,
                method=METHOD.encode(summary.method),
                items=summary.items,
                layouts=summary.layouts,
                finished=summary.finished,
            )
            for summary in summaries
        ]
    )


def decode_summaries(message: embed_pb2.ListMapsResponse) -> list[MapSummary]:
    """The stored maps."""
    return [
        MapSummary(
            map_id=entry.map_id,
            created=entry.created,
            method=METHOD.decode(entry.method, "maps.method"),
            items=entry.items,
            layouts=entry.layouts,
            finished=entry.finished,
        )
        for entry in message.maps
    ]


def encode_position(identifier: str, outcome: Position | GramletError) -> embed_pb2.TransformResponse:
    """The outcome for one item."""
    if isinstance(outcome, GramletError):
        return embed_pb2.TransformResponse(id=identifier, error=encode_picture_error(outcome))
    near = [embed_pb2.Neighbor(index=n.index, id=n.id, distance=n.distance) for n in outcome.neighbors]
    position = embed_pb2.Position(coordinates=encode_tensor(outcome.coordinates), neighbors=near)
    return embed_pb2.TransformResponse(id=identifier, position=position)


def decode_position(message: embed_pb2.TransformResponse) -> Position | GramletError:
    """The outcome for one item."""
    if message.WhichOneof("outcome") != "position":
        return decode_picture_error(message.error)
    near = tuple(Neighbor(n.index, n.id, n.distance) for n in message.position.neighbors)
    return Position(message.id, _decode_coordinates(message.position.coordinates, "position.coordinates"), near)


# --- drawings ---


def encode_chunks(content_type: str, data: bytes) -> Iterator[embed_pb2.DrawMapResponse]:
    """A file in pieces."""
    yield embed_pb2.DrawMapResponse(content_type=content_type, total_bytes=len(data), chunk=data[:_CHUNK_BYTES])
    for start in range(_CHUNK_BYTES, len(data), _CHUNK_BYTES):
        yield embed_pb2.DrawMapResponse(chunk=data[start : start + _CHUNK_BYTES])


# --- what the client calls, sends and reads ---

EMBED = Rpc(embed_pb2_grpc.EmbedServiceStub, "Embed", Kind.STREAM)
TRANSFORM = Rpc(embed_pb2_grpc.EmbedServiceStub, "Transform", Kind.STREAM)
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
