"""EmbedService: decodes, starts the work, encodes what it yields."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
from gramlet.embed import map_wire
from gramlet.embed import wire as messages
from gramlet.embed.v1 import embed_pb2, embed_pb2_grpc

from gramlet_server.embed import stored
from gramlet_server.embed.drawing import draw
from gramlet_server.embed.runs import Maps
from gramlet_server.embed.transform import transform
from gramlet_server.feature_source import FeatureSource
from gramlet_server.runs.store import Store
from gramlet_server.runtime.calls import until_caller_leaves
from gramlet_server.runtime.incoming import hurry


class EmbedServicer(embed_pb2_grpc.EmbedServiceServicer):
    """EmbedService over gRPC."""

    def __init__(self, maps: Maps, features: FeatureSource, store: Store) -> None:
        self._maps = maps
        self._features = features
        self._store = store

    def Embed(
        self, request_iterator: Iterator[embed_pb2.EmbedRequest], context: grpc.ServicerContext
    ) -> Iterator[embed_pb2.EmbedResponse]:
        """Computes a map, or resumes it."""
        start = messages.decode_start(request_iterator)
        hurry(request_iterator, lambda: self._maps.lifecycle.queue.queued > 0)
        making = self._maps.start(start, messages.decode_items(until_caller_leaves(request_iterator)))
        making.cancel_with_call(context.add_callback)
        for event in making.beating():
            yield messages.encode_event(event, making.run_id)

    def Transform(
        self, request_iterator: Iterator[embed_pb2.TransformRequest], context: grpc.ServicerContext
    ) -> Iterator[embed_pb2.TransformResponse]:
        """The positions of new items on a map."""
        map_id, weights_digest = messages.decode_transform_start(request_iterator)
        items = messages.decode_items(request_iterator)
        for identifier, outcome in transform(map_id, items, self._features, self._store, weights_digest):
            yield map_wire.encode_position(identifier, outcome)

    def DrawMap(
        self, request: embed_pb2.DrawMapRequest, context: grpc.ServicerContext
    ) -> Iterator[embed_pb2.DrawMapResponse]:
        """A drawing of a map, in chunks."""
        drawing = draw(self._store, map_wire.decode_drawing(request))
        yield from map_wire.encode_chunks(drawing.content_type, drawing.data)

    def GetMap(self, request: embed_pb2.GetMapRequest, context: grpc.ServicerContext) -> embed_pb2.GetMapResponse:
        """A finished map."""
        return embed_pb2.GetMapResponse(map=map_wire.encode_map(stored.get_map(self._store, request.map_id)))

    def ListMaps(self, request: embed_pb2.ListMapsRequest, context: grpc.ServicerContext) -> embed_pb2.ListMapsResponse:
        """A summary of every map."""
        return map_wire.encode_summaries(stored.list_maps(self._store))

    def DeleteMap(
        self, request: embed_pb2.DeleteMapRequest, context: grpc.ServicerContext
    ) -> embed_pb2.DeleteMapResponse:
        """Removes a map."""
        stored.delete_map(self._store, request.map_id)
        return embed_pb2.DeleteMapResponse()
