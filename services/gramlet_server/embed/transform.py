"""New items on a stored map, which stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np
from gramlet.embed.settings import Descriptor, Method
from gramlet.embed.types import BadItem, Item, Neighbor, Position, StyleMap
from gramlet.errors import GramletError, InvalidInput
from gramlet.types import Array
from numpy.typing import NDArray

from gramlet_server.embed import project, stored, tsne
from gramlet_server.embed.descriptors import Describer, describe
from gramlet_server.embed.distances import sketcher_of
from gramlet_server.embed.geometry import Floats, Kept
from gramlet_server.embed.memory import MapSize, transform_bytes
from gramlet_server.embed.stored_arrays import get_kept
from gramlet_server.feature_source import FeatureSource, check_weights, pin_to
from gramlet_server.process.memory_budget import PROCESS
from gramlet_server.runs.store import Store

_NEIGHBORS = 15
_PERPLEXITY = 5.0  # openTSNE's for new items: only a few neighbors decide
_NEIGHBORS_REPORTED = 5


def transform(
    map_id: str, items: Iterable[Item | BadItem], features: FeatureSource, store: Store, weights_digest: str = ""
) -> Iterator[tuple[str, Position | GramletError]]:
    """Each item's id with its position, or with its error, in order. Closing the iterator stops within one item.

    Raises:
        NotFound: There is no finished map of that name.
        OtherWeights: The map was made with another network than the one here, or than the wanted one.
        InvalidInput, Overloaded: The server has no memory for the map.
    """
    style_map = stored.get_map(store, map_id)
    settings = style_map.settings
    pictures = settings.descriptor is not Descriptor.VECTOR
    if pictures:
        made = f"map {map_id}"
        check_weights(weights_digest, style_map.weights_digest, "start.weights_digest", f"{made} was made with weights")
        features, _ = pin_to(features, style_map.weights_digest, made, "start.map_id")
    size = MapSize(len(style_map.places), style_map.measured.descriptor_size, pictures)
    with PROCESS.reserve(transform_bytes(size, settings), "start.map_id"):
        kept = get_kept(stored.open_run(store, map_id), with_distances=False)
        transformer = Transformer(style_map, kept)
        describer = Describer(settings)
        for described in describe(items, describer, features):
            identifier, descriptor = described.item.id, described.outcome
            if isinstance(descriptor, GramletError):
                yield identifier, descriptor
            else:
                ones = describer.ones(described.features, descriptor.size)
                yield identifier, transformer.position(identifier, descriptor, ones)


class Transformer:
    """Finds the coordinates of new items on every layout of a map.

    Args:
        style_map: The map.
        kept: What it kept of its items' descriptors.
    """

    def __init__(self, style_map: StyleMap, kept: Kept) -> None:
        settings = style_map.settings
        self._map = style_map
        self._kept = kept
        self._rows = kept.with_metric(settings.metric)
        self._sketcher = sketcher_of(style_map.measured.descriptor_size, settings)
        self._layouts = [layout.coordinates.astype(np.float64) for layout in style_map.layouts]

    def position(self, identifier: str, descriptor: Array, ones: Array) -> Position | GramletError:
        """The position of an item with that descriptor (n,); an error if n is not that of the map's items.

        Args:
            identifier: The item's id.
            descriptor: (n,).
            ones: (n,) the descriptor of matrices of ones.
        """
        expected = self._map.measured.descriptor_size
        if descriptor.size != expected:
            return InvalidInput(f"it has {descriptor.size} elements, the map's items {expected}", field="item.vector")
        row = self._row(descriptor, ones)
        squared = self._squared_to(row)
        order = np.argsort(squared, kind="stable")[:_NEIGHBORS]
        distances = np.sqrt(squared[order])
        neighbors = tuple(
            Neighbor(int(index), self._map.places[index].id, float(distance))
            for index, distance in zip(order[:_NEIGHBORS_REPORTED], distances, strict=False)
        )
        points = [self._point(number, row, squared, order) for number in range(len(self._layouts))]
        coordinates = np.stack(points).astype(np.float32)
        return Position(identifier, coordinates, neighbors, self._map.weights_digest)

    def _row(self, descriptor: Array, ones: Array) -> Array:
        """(k,) as the rows of the map's items, with the map's metric."""
        wide = descriptor.astype(np.float64)
        one = replace(
            self._kept,
            rows=self._sketcher(descriptor)[None],
            lengths=np.array([np.linalg.norm(wide)]),
            sums=np.array([wide @ ones]),
        )
        row: Array = one.with_metric(self._map.settings.metric)[0]
        return row

    def _squared_to(self, row: Array) -> Floats:
        difference = self._rows - row
        found: Floats = np.einsum("ij,ij->i", difference, difference, dtype=np.float64)
        return found

    def _point(self, number: int, row: Array, squared: Floats, order: NDArray[np.intp]) -> Floats:
        method, layout = self._map.settings.method, self._layouts[number]
        if method is Method.PCA:
            return self._projected(squared, layout)
        if method is Method.UMAP:
            return self._by_umap(row)
        distances = np.sqrt(squared[order])
        if method is Method.TSNE and len(order) > 3:
            return tsne.transform(order, distances, layout, min(_PERPLEXITY, (len(order) - 1) / 3))
        return tsne.interpolate(order, distances, layout)

    def _projected(self, squared: Floats, layout: Floats) -> Floats:
        """The projection on the principal axes, from distances alone (Gower, 1968).

        A column c of the layout holds the projections of the centered items x on an axis. The projection of a new
        item z on it is Σᵢ cᵢ (|xᵢ|² - |xᵢ - z|²) / 2|c|².
        """
        scale = 2 * np.maximum((layout**2).sum(axis=0), 1e-30)
        projected: Floats = (self._squared_lengths - squared) @ layout / scale
        return projected

    @cached_property
    def _squared_lengths(self) -> Floats:
        """(N,) |xᵢ|² of the centered items."""
        centered = self._rows - self._rows.mean(axis=0)
        found: Floats = np.einsum("ij,ij->i", centered, centered, dtype=np.float64)
        return found

    @cached_property
    def _by_umap(self) -> Callable[[Array], Floats]:
        """UMAP's own way: the graph of neighbors is found once more, the embedding is that of the map."""
        layout = self._layouts[0].astype(np.float32)
        reducer = project.umap_of(self._map.settings, init=layout, n_epochs=0)
        with project.umap_warnings():
            reducer.fit(self._rows)
        reducer.embedding_ = layout
        reducer.n_epochs = None  # for new items: as many as UMAP takes by default

        def of(row: Array) -> Floats:
            with project.umap_warnings():
                return np.asarray(reducer.transform(row[None])[0], np.float64)

        return of
