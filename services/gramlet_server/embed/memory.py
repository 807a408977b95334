"""The memory that a map takes at most, known before any work."""

from __future__ import annotations

from dataclasses import dataclass

from gramlet.embed.settings import Descriptor, Gradient, MapSettings, Method, Metric
from gramlet.feature.types import Model, find_stage

from gramlet_server.embed.distances import EXACT_UP_TO
from gramlet_server.embed.geometry import STRIP_ELEMENTS
from gramlet_server.embed.project import neighbors_for
from gramlet_server.embed.slice_file import BLOCK_BYTES, SLICE_BYTES
from gramlet_server.embed.thumbnails import BYTES_FOR_ALL
from gramlet_server.embed.tsne import EXACT_GRADIENT_UP_TO


@dataclass(frozen=True)
class MapSize:
    """What decides how much memory a map takes.

    Attributes:
        count: Items, at most.
        descriptor_size: Elements of a descriptor, at most.
        pictures: Whether the items are pictures.
    """

    count: int
    descriptor_size: int
    pictures: bool

    @classmethod
    def of_vectors(cls, count: int, settings: MapSettings, vector_size: int = 0) -> MapSize:
        """Of vectors; of unknown size, they have at most as many elements as a sketch."""
        return cls(count, vector_size or settings.sketch_size or 0, pictures=False)

    @classmethod
    def of_pictures(cls, count: int, settings: MapSettings, model: Model) -> MapSize:
        """Of pictures, described by the stages of the settings."""
        channels = [find_stage(stage, model.stages, model.backbone, "stages").channels for stage in settings.stages]
        gram = settings.descriptor is Descriptor.GRAM
        return cls(count, sum(c * (c + 1) // 2 if gram else c for c in channels), pictures=True)


def memory_bound(size: MapSize, settings: MapSettings) -> int:
    """Bytes, without the pictures that are being processed. The largest step counts, with what is held during it.

    The factors are those of NumPy's, scikit-learn's, openTSNE's and umap-learn's arrays; a test compares the bound
    with the peak of a process.
    """
    items = size.count
    row = min(size.descriptor_size, settings.sketch_size or size.descriptor_size)
    held = 4 * items * row + items * _NAMES
    if _may_be_exact(size, settings):
        held += 4 * items * items
    if settings.metric is not Metric.EUCLIDEAN:
        held += 4 * items * row
    return held + max(_describing(size, settings), _laying_out(size, settings), _STORING) + _FIXED


_NAMES = 1100
"""Bytes of an item's id, label and digest, and of the objects around them, while the map is put together."""
_STORING = 3 * 2**25
_FIXED = 48 * 2**20
_STRIP = 8 * STRIP_ELEMENTS
_TSNE = 2**26
"""What t-SNE takes for any number of items: strips of distances, and the grid of an approximation."""


def _may_be_exact(size: MapSize, settings: MapSettings) -> bool:
    longer = size.descriptor_size > (settings.sketch_size or size.descriptor_size)
    return longer and size.count <= EXACT_UP_TO


def _describing(size: MapSize, settings: MapSettings) -> int:
    """A few descriptors, the order and signs of a sketch, and the buffers of the temporary file."""
    descriptors = 80 * 4 * size.descriptor_size if size.descriptor_size > 2**14 else 0
    file = SLICE_BYTES + 4 * BLOCK_BYTES if _may_be_exact(size, settings) else 0
    return descriptors + file + (2 * BYTES_FOR_ALL if size.pictures else 0)


def _laying_out(size: MapSize, settings: MapSettings) -> int:
    square = 4 * size.count * size.count
    by_method = {
        Method.TSNE: _tsne(size.count, neighbors_for(settings, size.count), settings),
        Method.PCA: 0,
        Method.LLE: 3 * square,  # its sparse factors fill up
        Method.UMAP: size.count * neighbors_for(settings, size.count) * 200,
        Method.ISOMAP: 12.5 * square,
        Method.MDS: 14.2 * square,
    }
    return max(int(by_method[settings.method]), 6 * _STRIP)


def _tsne(items: int, neighbors: int, settings: MapSettings) -> int:
    """The neighbors with their distances, then their probabilities, made symmetric by a sum with the transpose."""
    chosen = settings.tsne.gradient
    exact = chosen is Gradient.EXACT or (chosen is Gradient.AUTO and items <= EXACT_GRADIENT_UP_TO)
    return _TSNE + items * neighbors * 72 + (4 * items * items if exact else 0)
