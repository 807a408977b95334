"""New items on a stored map, which stays as it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from gramlet.embed.settings import Descriptor, Method
from gramlet.embed.types import BadItem, Item, Neighbor, Position, StyleMap
from gramlet.errors import FailedPrecondition, GramletError, InvalidInput
from gramlet.types import Array

from gramlet_server.embed import stored
from gramlet_server.embed.descriptors import Describer, Sketcher, squared_distances_to
from gramlet_server.embed.making import describe
from gramlet_server.embed.tsne import Floats, mean_place, place
from gramlet_server.feature_source import FeatureSource
from gramlet_server.runs.store import Store

_PERPLEXITY = 5.0  # openTSNE's for placing: a new item belongs among few
_TOLD = 5


def placed(
    map_id: str, items: Iterable[Item | BadItem], features: FeatureSource, store: Store
) -> Iterator[tuple[str, Position | GramletError]]:
    """Each item's id with its position, or with its error, in order. Closing the iterator stops within one item.

    Raises:
        NotFound: There is no such finished map.
        FailedPrecondition: The map was made with another network.
    """
    style_map = stored.get_map(store, map_id)
    settings = style_map.settings
    if settings.descriptor is not Descriptor.VECTOR and features.model().weights_digest != style_map.weights_digest:
        raise FailedPrecondition(f"map {map_id} was made with other weights", field="start.map_id")
    placer = _Placer(style_map, stored.get_sketches(stored.open_run(store, map_id)))
    for item, descriptor, _ in describe(items, settings, Describer(settings), features):
        if isinstance(descriptor, GramletError):
            yield item.id, descriptor
        else:
            yield item.id, placer.position(item.id, descriptor)


class _Placer:
    def __init__(self, style_map: StyleMap, sketches: Array) -> None:
        settings = style_map.settings
        self._map = style_map
        self._sketches = sketches
        self._sketcher = Sketcher(style_map.measured.descriptor_size, settings.sketch_size, settings.seed)
        self._layouts = [layout.coordinates.astype(np.float64) for layout in style_map.layouts]

    def position(self, identifier: str, descriptor: Array) -> Position | GramletError:
        if descriptor.size != self._map.measured.descriptor_size:
            expected = self._map.measured.descriptor_size
            return InvalidInput(f"it has {descriptor.size} elements, the map's items {expected}", field="item.vector")
        squared = squared_distances_to(self._sketcher(descriptor), self._sketches)
        k = min(len(squared), int(3 * _PERPLEXITY))
        order = np.argsort(squared, kind="stable")[: max(k, _TOLD)]
        distances = np.sqrt(squared[order])
        near = tuple(
            Neighbor(int(index), self._map.places[index].id, float(distance))
            for index, distance in zip(order[:_TOLD], distances, strict=False)
        )
        rows = [self._row(order[:k], distances[:k], layout) for layout in self._layouts]
        return Position(identifier, np.stack(rows).astype(np.float32), near)

    def _row(self, order: np.ndarray[tuple[int], np.dtype[np.intp]], distances: Floats, layout: Floats) -> Floats:
        if self._map.settings.method is Method.TSNE and len(order) > 3:
            return place(order, distances, layout, min(_PERPLEXITY, (len(order) - 1) / 3))
        return mean_place(order, distances, layout)
