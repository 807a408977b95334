"""The memory that a map takes at most, known before any work."""

from __future__ import annotations

from dataclasses import dataclass

from gramlet.embed.settings import Descriptor, Gradient, MapSettings, Method, Metric
from gramlet.feature.types import Model, find_stage

from gramlet_server.embed.distances import CHECKED_ITEMS, EXACT_UP_TO
from gramlet_server.embed.geometry import STRIP_ELEMENTS
from gramlet_server.embed.project import neighbors_for
from gramlet_server.embed.slice_file import BLOCK_BYTES, SLICE_BYTES
from gramlet_server.embed.stored_arrays import PART_BYTES
from gramlet_server.embed.thumbnails import BYTES_FOR_ALL, side_for
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
    items, row = size.count, _row(size, settings)
    held = 4 * items * row + items * _NAMES
    if _may_be_exact(size, settings):
        held += 4 * items * items
    if settings.metric is not Metric.EUCLIDEAN:
        held += 4 * items * row
    bound = held + max(_describing(size, settings), _laying_out(size, settings), _storing(size, settings))
    return bound + min(_MOST_BESIDE, _BESIDE + bound // 8)


def transform_bytes(size: MapSize, settings: MapSettings) -> int:
    """Bytes of the search for positions of new items on a map of that size, without their pictures.

    They are the rows, once more with another metric than the Euclidean one, and their differences from a new item's.
    """
    copies = 2 if settings.metric is Metric.EUCLIDEAN else 3
    held = size.count * (copies * 4 * _row(size, settings) + _NAMES) + _DESCRIPTOR_BYTES * size.descriptor_size
    if settings.method is Method.UMAP:
        held += _laying_out(size, settings)
    return held + min(_MOST_BESIDE, held // 8)


_NAMES = 1100
"""Bytes of an item's id, label and digest, and of the objects around them, while the map is put together."""
_STORED_COPIES = 3
"""Of a part of the arrays, while it becomes a value of the store."""
_MOST_BESIDE, _BESIDE = 48 * 2**20, 12 * 2**20
"""Buffers of libraries and of the allocator: the most, and those of a map of a few items."""
_DESCRIPTOR_BYTES, _CHECKED_BYTES = 80, 10
"""For each element of a descriptor: of an item that is described, with the order and signs of a sketch and the indices
of a triangle; and of each item whose distances are checked."""
_STRIP_BYTES, _TSNE_STRIP_BYTES = 6 * 8, 8 * 8
"""For each distance of a strip."""
_INTERPOLATED = 2**26
"""The grid of an approximation of t-SNE's gradient, with a strip of distances."""


def _row(size: MapSize, settings: MapSettings) -> int:
    """Elements of a descriptor, or of its sketch."""
    return min(size.descriptor_size, settings.sketch_size or size.descriptor_size)


def _may_be_exact(size: MapSize, settings: MapSettings) -> bool:
    return size.descriptor_size > _row(size, settings) and size.count <= EXACT_UP_TO


def _describing(size: MapSize, settings: MapSettings) -> int:
    """A few descriptors, the order and signs of a sketch, the thumbnails, and the buffers of the temporary file."""
    checked, elements = min(CHECKED_ITEMS, size.count), 4 * size.count * size.descriptor_size
    buffers = min(SLICE_BYTES, elements) + 4 * min(BLOCK_BYTES, elements) if _may_be_exact(size, settings) else 0
    described = size.descriptor_size * (_DESCRIPTOR_BYTES + _CHECKED_BYTES * checked)
    # A pixel of a JPEG file takes less than a byte, and there are two copies while the files are put together.
    pictures = 2 * min(BYTES_FOR_ALL, size.count * side_for(size.count) ** 2) if size.pictures else 0
    return described + buffers + pictures


def _storing(size: MapSize, settings: MapSettings) -> int:
    row = max(_row(size, settings), size.count if _may_be_exact(size, settings) else 0)
    return _STORED_COPIES * min(PART_BYTES, 4 * size.count * row)


def _laying_out(size: MapSize, settings: MapSettings) -> int:
    square = 4 * size.count * size.count
    strip = min(STRIP_ELEMENTS, size.count * max(size.count, _row(size, settings)))
    by_method = {
        Method.TSNE: _tsne(size.count, neighbors_for(settings, size.count), strip, settings),
        Method.PCA: 0,
        Method.LLE: 3 * square,  # its sparse factors fill up
        Method.UMAP: size.count * neighbors_for(settings, size.count) * 200,
        Method.ISOMAP: 12.5 * square,
        Method.MDS: 14.2 * square,
    }
    return max(int(by_method[settings.method]), _STRIP_BYTES * strip)


def _tsne(items: int, neighbors: int, strip: int, settings: MapSettings) -> int:
    """The neighbors with their distances, then their probabilities, made symmetric by a sum with the transpose."""
    chosen = settings.tsne.gradient
    exact = chosen is Gradient.EXACT or (chosen is Gradient.AUTO and items <= EXACT_GRADIENT_UP_TO)
    beside = _TSNE_STRIP_BYTES * strip + 4 * items * items if exact else _INTERPOLATED
    return beside + items * neighbors * 72
