"""From features to distances: all of them, exactly, without ever holding the descriptors of all items at once.

A Gram matrix is symmetric, so its upper triangle, off-diagonal elements times √2, has the same inner products in half
the space: 168,384 elements an item for the four default stages of resnet50 instead of 335,872. Those are written to a
temporary file in slices of columns; then X Xᵀ = Σ X_c X_cᵀ over the slices X_c needs one pass over the file, one slice
and one N × N matrix of memory. Where even the file would be too large, a random sketch of each descriptor takes its
place, and the error of that is measured.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from gramlet.embed.settings import Descriptor, Exactness, MapSettings, Method, Metric
from gramlet.embed.types import Measured
from gramlet.errors import InvalidInput
from gramlet.feature.types import Features, Form
from gramlet.types import Array
from numpy.typing import NDArray
from scipy.linalg.blas import ssyrk

from gramlet_server.embed.threads import one_thread

FORMS = {Descriptor.GRAM: Form.GRAM, Descriptor.POOLED: Form.POOLED}
_DEFAULT_STAGES = {
    "resnet": {
        Descriptor.GRAM: ("conv1", "maxpool", "layer1", "layer2"),
        Descriptor.POOLED: ("avgpool",),
    },
    "vgg": {
        Descriptor.GRAM: ("relu1_1", "relu2_1", "relu3_1", "relu4_1"),
        Descriptor.POOLED: ("relu5_1",),
    },
}
_MiB = 1024 * 1024
_SLICE_BYTES = 64 * _MiB
_BLOCK_BYTES = 24 * _MiB
_CHECKED_ITEMS = 24
_FEW_ROWS = 1000


@dataclass(frozen=True)
class Budget:
    """What a map may take of the machine.

    Attributes:
        memory_bytes: Beside the pictures under way.
        disk_bytes: Of temporary files, for exact distances.
        scratch: Where those go; None: the system's place for them.
    """

    memory_bytes: int = 4 * 1024 * _MiB
    disk_bytes: int = 16 * 1024 * _MiB
    scratch: Path | None = None


def default_stages(backbone: str, descriptor: Descriptor) -> tuple[str, ...]:
    """The stages that a map uses where the caller names none.

    Raises:
        InvalidInput: Nothing is known of that network.
    """
    for family, stages in _DEFAULT_STAGES.items():
        if backbone.startswith(family):
            return stages[descriptor]
    raise InvalidInput(f"{backbone} has no default stages: name some", field="start.settings.stages")


class Describer:
    """Turns features, or vectors, into descriptors whose Euclidean distance is the metric asked for.

    `undirected` counts those without a direction, which the cosine and correlation metrics take for zero.
    """

    def __init__(self, settings: MapSettings) -> None:
        self._settings = settings
        self._triangles: dict[int, tuple[NDArray[np.intp], Array]] = {}
        self.undirected = 0

    def of_features(self, features: Features) -> Array:
        """The descriptor of a picture: (n,).

        Raises:
            InvalidInput: A feature is not finite.
        """
        if self._settings.descriptor is Descriptor.GRAM:
            parts = [self._pack(features.grams[stage]) for stage in self._settings.stages]
            ones = [self._triangle(features.grams[stage].shape[0])[1] for stage in self._settings.stages]
        else:
            parts = [features.pooled[stage].astype(np.float32).ravel() for stage in self._settings.stages]
            ones = [np.ones_like(part) for part in parts]
        if self._settings.balance_stages and len(parts) > 1:
            parts = [_to_unit_length(part) for part in parts]
        return self._finish(np.concatenate(parts), ones)

    def of_vector(self, vector: Array) -> Array:
        """The descriptor of a vector (n,) that came with the item.

        Raises:
            InvalidInput: It is no vector, is empty, or has an element that is not finite.
        """
        if vector.ndim != 1 or vector.size == 0:
            raise InvalidInput(f"a vector has shape (n,), not {vector.shape}", field="vector")
        return self._finish(vector.astype(np.float32), [np.ones(vector.size, np.float32)])

    def _finish(self, descriptor: Array, ones: list[Array]) -> Array:
        if not np.isfinite(descriptor).all():
            raise InvalidInput("an element is not a finite number", field="vector")
        if self._settings.metric is Metric.CORRELATION:
            one = np.concatenate(ones)
            share = np.float32((descriptor @ one) / (one @ one))
            descriptor = descriptor - share * one
        if self._settings.metric is not Metric.EUCLIDEAN:
            descriptor = _to_unit_length(descriptor)
            self.undirected += not descriptor.any()
        return descriptor

    def _pack(self, gram: Array) -> Array:
        indices, weights = self._triangle(gram.shape[0])
        packed: Array = gram.ravel().take(indices)
        packed *= weights
        return packed

    def _triangle(self, n: int) -> tuple[NDArray[np.intp], Array]:
        """Flat indices of the upper triangle of an (n, n) matrix, and √2 for its off-diagonal elements."""
        if n not in self._triangles:
            rows, columns = np.triu_indices(n)
            weights = np.where(rows == columns, 1.0, np.sqrt(2.0)).astype(np.float32)
            self._triangles[n] = rows * n + columns, weights
        return self._triangles[n]


def _to_unit_length(part: Array) -> Array:
    length = np.float32(np.linalg.norm(part))
    return part / length if length > 0 else part


class Sketcher:
    """Random sketches that keep inner products: a count sketch with buckets of equal size (Charikar et al., 2002).

    The relative standard error of a squared distance is about √(2 / sketch size). Same seed, same sketch.
    A descriptor no longer than the sketch is its own, exactly.
    """

    def __init__(self, size: int, sketch_size: int, seed: int) -> None:
        self.size = min(size, sketch_size)
        self.exact = size <= sketch_size
        if self.exact:
            return
        generator = np.random.default_rng([seed, size, sketch_size])
        # One more element, always 0, fills the last row of buckets.
        padded = -(-size // sketch_size) * sketch_size
        self._order = np.minimum(generator.permutation(padded), size)
        self._signs = generator.choice(np.array([-1, 1], np.float32), padded)

    def __call__(self, descriptor: Array) -> Array:
        """The sketch of a descriptor (n,): (size,)."""
        if self.exact:
            return descriptor
        shuffled = np.append(descriptor, np.float32(0)).take(self._order)
        shuffled *= self._signs
        sketch: Array = shuffled.reshape(-1, self.size).sum(axis=0)
        return sketch


@dataclass(frozen=True)
class Distances:
    """What is known of a set of items.

    Attributes:
        squared: (N, N) squared distances.
        sketches: (N, k): what new items are compared with later.
        sketch_error: Root mean square relative error of distances between sketches, where checked.
        measured: How well `squared` was measured.
    """

    squared: Array
    sketches: Array
    sketch_error: float
    measured: Measured


def memory_bound(count: int, settings: MapSettings) -> int:
    """The most memory in bytes that a map of `count` items takes beside the pictures under way.

    The multiples of N × N matrices are those of scikit-learn's and umap-learn's implementations.
    """
    square = 4 * count * count
    by_method = {
        Method.TSNE: 0,
        Method.PCA: 0,
        Method.LLE: 2 * square,
        Method.UMAP: 4 * square,
        Method.ISOMAP: 8 * square,
        Method.MDS: 12 * square,
    }
    # Neighbours and affinities of t-SNE: indices, distances and probabilities, twice over while they are symmetrised.
    per_item = 3 * max(settings.tsne.perplexities, default=0.0) * 64 if settings.method is Method.TSNE else 4096
    fixed = 3 * _SLICE_BYTES + 4 * _BLOCK_BYTES
    return int(fixed + square + by_method[settings.method] + count * (per_item + 8 * settings.sketch_size))


def check_memory(count: int, settings: MapSettings, budget: Budget) -> int:
    """The memory bound, if the budget allows it.

    Raises:
        InvalidInput: It does not.
    """
    bound = memory_bound(count, settings)
    if bound > budget.memory_bytes:
        raise InvalidInput(
            f"{count} items by {settings.method.value} may take {bound / 2**30:.1f} GiB of memory, and "
            f"{budget.memory_bytes / 2**30:.1f} GiB are allowed: send fewer items, or use t-SNE or PCA",
            field="start.count",
        )
    return bound


class Measurer:
    """Takes the descriptors of up to `count` items one by one, then measures all distances.

    A context manager: its temporary file is gone when it is closed.
    """

    def __init__(self, count: int, settings: MapSettings, budget: Budget) -> None:
        self._count = count
        self._settings = settings
        self._budget = budget
        self._spill: _Spill | None = None
        self._sketcher: Sketcher | None = None
        self._sketches: list[Array] = []
        self._seen: set[str] = set()
        self._duplicates = 0
        self._size = 0
        self._exact = True
        self._checked: dict[int, Array] = {}
        chosen = np.random.default_rng(settings.seed).permutation(count)[:_CHECKED_ITEMS]
        self._to_check = {int(index) for index in chosen}

    def __enter__(self) -> Measurer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._spill is not None:
            self._spill.close()

    @property
    def items(self) -> int:
        """Items so far."""
        return len(self._sketches)

    @property
    def sketcher(self) -> Sketcher:
        """The sketch in use; there is one from the first item on."""
        assert self._sketcher is not None, "no item yet"
        return self._sketcher

    def add(self, descriptor: Array, content: str = "") -> None:
        """Takes the next item's descriptor (n,).

        Args:
            descriptor: The descriptor.
            content: A digest of what was described: equal ones are counted as duplicates. Descriptors of equal pictures
                may differ in their last bits, which depend on the batch.

        Raises:
            InvalidInput: Its size is not that of the first.
        """
        if self._sketcher is None:
            self._start(descriptor.size)
        if descriptor.size != self._size:
            raise InvalidInput(f"it has {descriptor.size} elements, the first item {self._size}", field="vector")
        if self.items in self._to_check:
            self._checked[self.items] = descriptor
        self._duplicates += bool(content) and content in self._seen
        self._seen.add(content)
        sketch = self.sketcher(descriptor)
        self._sketches.append(sketch)
        if self._spill is not None:
            self._spill.add(descriptor)

    def measure(self) -> Distances:
        """All distances. No item can be added any more."""
        sketches = np.stack(self._sketches)
        self._sketches.clear()
        errors_of_sketches = self._errors(_squared_of_rows(sketches[list(self._checked)]))
        if self._spill is not None:
            squared = squared_distances(self._spill)
            order = list(self._checked)
            errors = self._errors(squared[np.ix_(order, order)])
        else:
            squared = _squared_of_rows(sketches)
            errors = errors_of_sketches
        measured = Measured(
            exactness=Exactness.EXACT if self._exact else Exactness.SKETCH,
            descriptor_size=self._size,
            largest_error=float(errors.max(initial=0.0)),
            rms_error=_rms(errors),
            pairs_checked=errors.size,
            duplicates=self._duplicates,
        )
        return Distances(squared, sketches, _rms(errors_of_sketches), measured)

    def _start(self, size: int) -> None:
        self._size = size
        self._sketcher = Sketcher(size, self._settings.sketch_size, self._settings.seed)
        needed = 4 * size * self._count
        wanted = self._settings.exactness
        if wanted is Exactness.EXACT and needed > self._budget.disk_bytes:
            raise InvalidInput(
                f"exact distances would take {needed / 2**30:.1f} GiB of temporary files, and "
                f"{self._budget.disk_bytes / 2**30:.1f} GiB are allowed: use sketches",
                field="start.settings.exactness",
            )
        spilled = not self._sketcher.exact and wanted is not Exactness.SKETCH and needed <= self._budget.disk_bytes
        self._exact = spilled or self._sketcher.exact
        if spilled:
            self._spill = _Spill(size, self._count, self._budget.scratch)

    def _errors(self, squared: Array) -> NDArray[np.float64]:
        """Relative errors of the distances between the checked items, against float64."""
        items = np.stack(list(self._checked.values())).astype(np.float64)
        items -= items.mean(axis=0)
        with one_thread():
            products = items @ items.T
        norms = products.diagonal()
        pairs = np.tril_indices(len(items), -1)
        true = np.sqrt(np.maximum(norms[:, None] + norms[None, :] - 2 * products, 0.0))[pairs]
        found = np.sqrt(np.maximum(squared[pairs], 0.0))
        apart = true > 1e-6 * true.max(initial=0.0)
        errors: NDArray[np.float64] = np.abs(found[apart] - true[apart]) / true[apart]
        return errors


def _rms(errors: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(errors**2))) if errors.size else 0.0


@dataclass
class _Spill:
    """Rows of one length in a temporary file, to be read back as slices of columns.

    The first block's mean is taken off every row: distances do not change, and float32 products lose fewer digits.
    """

    size: int
    count: int
    scratch: Path | None
    _file: IO[bytes] = field(init=False)
    _center: Array | None = None
    _full_blocks: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._file = tempfile.TemporaryFile(dir=self.scratch, prefix="gramlet-")  # noqa: SIM115 (closed by close)
        self.rows = 0
        self._columns = int(np.clip(_SLICE_BYTES // (4 * max(self.count, 1)), 256, 8192))
        self._block = np.empty((max(_BLOCK_BYTES // (4 * self.size), 1), self.size), np.float32)
        self._filled = 0

    def close(self) -> None:
        self._file.close()

    def add(self, row: Array) -> None:
        self._block[self._filled] = row
        self._filled += 1
        self.rows += 1
        if self._filled == len(self._block):
            self._flush()

    def slices(self) -> Iterator[Array]:
        """(rows, columns) pieces that together hold every element once. A piece is valid until the next."""
        self._flush()
        buffer = np.empty((self.rows, min(self._columns, self.size)), np.float32)
        for start in range(0, self.size, self._columns):
            columns = min(self._columns, self.size - start)
            piece = buffer.ravel()[: self.rows * columns].reshape(self.rows, columns)
            self._read(start, piece)
            yield piece

    def _flush(self) -> None:
        if not self._filled:
            return
        block = self._block[: self._filled]
        if self._center is None:
            self._center = block.mean(axis=0)
        block -= self._center
        # Within a block slice by slice, so that reading a slice back takes one run of bytes a block.
        for start in range(0, self.size, self._columns):
            self._file.write(np.ascontiguousarray(block[:, start : start + self._columns]).data)
        self._full_blocks.append(self._filled)
        self._filled = 0

    def _read(self, start: int, into: Array) -> None:
        columns = into.shape[1]
        row = 0
        for rows in self._full_blocks:
            self._file.seek(4 * (row * self.size + rows * start))
            wanted = into[row : row + rows].reshape(-1).view(np.uint8).data
            read = self._file.readinto(wanted)  # type: ignore[attr-defined]
            assert read == 4 * rows * columns, "the temporary file is short"
            row += rows


def squared_distances(spill: _Spill) -> Array:
    """(N, N) squared distances between spilled rows, from their inner products."""
    products: Any = np.zeros((spill.rows, spill.rows), np.float32, order="F")
    with one_thread() if spill.rows < _FEW_ROWS else nullcontext():
        for piece in spill.slices():
            # The lower triangle of products += piece pieceᵀ; BLAS sees the C-ordered piece as its transpose.
            products = ssyrk(1.0, piece.T, beta=1.0, c=products, trans=1, lower=1, overwrite_c=1)
    return _from_lower_products(products.T)


def _squared_of_rows(rows: Array) -> Array:
    """(N, N) squared distances between rows (N, k) that are in memory."""
    centered = rows - rows.mean(axis=0)
    products = ssyrk(1.0, centered.T, trans=1, lower=1)
    return _from_lower_products(products.T)


def _from_lower_products(products: Array) -> Array:
    """Squared distances, in place, from inner products whose upper triangle is filled. C order."""
    norms = products.diagonal().astype(np.float64)
    for i in range(len(products)):
        row = norms[i] + norms[i:] - 2.0 * products[i, i:]
        np.maximum(row, 0.0, out=row)
        products[i, i:] = row
        products[i:, i] = row
    np.fill_diagonal(products, 0.0)
    return products


def squared_distances_to(sketch: Array, sketches: Array) -> NDArray[np.float64]:
    """(N,) squared distances of a sketch (k,) to sketches (N, k)."""
    difference = sketches - sketch
    found: NDArray[np.float64] = np.einsum("ij,ij->i", difference, difference, dtype=np.float64)
    return found
