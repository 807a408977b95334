"""New items on a stored map, which stays as it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from gramlet.embed.settings import Descriptor, Method
from gramlet.embed.types import BadItem, Item, Neighbor, Position, StyleMap
from gramlet.errors import FailedPrecondition, GramletError, InvalidInput
from gramlet.types import Array
from numpy.typing import NDArray

from gramlet_server.embed import stored, tsne
from gramlet_server.embed.descriptors import Describer, describe
from gramlet_server.embed.distances import Sketcher, squared_distances_to
from gramlet_server.embed.tsne import Floats
from gramlet_server.feature_source import FeatureSource
from gramlet_server.runs.store import Store

_PERPLEXITY = 5.0  # openTSNE's for new items: only a few neighbors decide
_NEIGHBORS_REPORTED = 5


def transform(
    map_id: str, items: Iterable[Item | BadItem], features: FeatureSource, store: Store
) -> Iterator[tuple[str, Position | GramletError]]:
    """Each item's id with its position, or with its error, in order. Closing the iterator stops within one item.

    Raises:
        NotFound: There is no finished map of that name.
        FailedPrecondition: The map was computed with the features of other weights.
    """
    style_map = stored.get_map(store, map_id)
    settings = style_map.settings
    if settings.descriptor is not Descriptor.VECTOR and features.model().weights_digest != style_map.weights_digest:
        raise FailedPrecondition(f"map {map_id} was made with other weights", field="start.map_id")
    transformer = _Transformer(style_map, stored.get_sketches(stored.open_run(store, map_id)))
    for described in describe(items, Describer(settings), features):
        identifier, descriptor = described.item.id, described.outcome
        if isinstance(descriptor, GramletError):
            yield identifier, descriptor
        else:
            yield identifier, transformer.position(identifier, descriptor)


class _Transformer:
    """Finds the coordinates of new items on every layout of a map."""

    def __init__(self, style_map: StyleMap, sketches: Array) -> None:
        settings = style_map.settings
        self._map = style_map
        self._sketches = sketches
        self._sketcher = Sketcher(style_map.measured.descriptor_size, settings.sketch_size, settings.seed)
        self._layouts = [layout.coordinates.astype(np.float64) for layout in style_map.layouts]

    def position(self, identifier: str, descriptor: Array) -> Position | GramletError:
        """The position of an item with that descriptor (n,); an error if n is not that of the map's items."""
        expected = self._map.measured.descriptor_size
        if descriptor.size != expected:
            return InvalidInput(f"it has {descriptor.size} elements, the map's items {expected}", field="item.vector")
        squared = squared_distances_to(self._sketcher(descriptor), self._sketches)
        k = min(len(squared), int(3 * _PERPLEXITY))
        order = np.argsort(squared, kind="stable")[: max(k, _NEIGHBORS_REPORTED)]
        distances = np.sqrt(squared[order])
        neighbors = tuple(
            Neighbor(int(index), self._map.places[index].id, float(distance))
            for index, distance in zip(order[:_NEIGHBORS_REPORTED], distances, strict=False)
        )
        points = [self._point(order[:k], distances[:k], layout) for layout in self._layouts]
        return Position(identifier, np.stack(points).astype(np.float32), neighbors)

    def _point(self, order: NDArray[np.intp], distances: Floats, layout: Floats) -> Floats:
        if self._map.settings.method is Method.TSNE and len(order) > 3:
            return tsne.transform(order, distances, layout, min(_PERPLEXITY, (len(order) - 1) / 3))
        return tsne.interpolate(order, distances, layout)
