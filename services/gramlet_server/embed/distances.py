"""All distances among descriptors, without ever holding all descriptors in memory.

The descriptors are written to a temporary file in slices of columns. X Xᵀ = Σ X_c X_cᵀ over the slices X_c then takes
one pass over the file, and the memory of one slice and of one N × N matrix. If even the file would be too large, a
random sketch of each descriptor is used instead, and the error of the sketches is measured.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gramlet.embed.settings import Exactness, MapSettings
from gramlet.embed.types import Measured
from gramlet.errors import InvalidInput
from gramlet.types import Array
from numpy.typing import NDArray
from scipy.linalg.blas import ssyrk

from gramlet_server.embed.threads import one_thread

SLICE_BYTES = 64 * 2**20
"""Size of a slice of columns when the file is read."""
BLOCK_BYTES = 24 * 2**20
"""Size of a block of rows when the file is written."""
_CHECKED_ITEMS = 24
_FEW_ROWS = 1000


@dataclass(frozen=True)
class Budget:
    """The memory and disk space that one map may use.

    Attributes:
        memory_bytes: Memory, without the pictures that are being processed.
        disk_bytes: Temporary files, which exact distances need.
        scratch: The directory of those files; None: the directory that the system uses for temporary files.
    """

    memory_bytes: int = 4 * 2**30
    disk_bytes: int = 16 * 2**30
    scratch: Path | None = None


class Sketcher:
    """Random sketches that keep inner products: a count sketch with buckets of equal size (Charikar et al., 2002).

    The relative standard error of a squared distance is about √(2 / sketch size). The same seed gives the same sketch.
    A descriptor that is no longer than a sketch is its own sketch, without error.

    Args:
        size: Elements of a descriptor.
        sketch_size: Elements of a sketch.
        seed: Of the random order and signs.
    """

    def __init__(self, size: int, sketch_size: int, seed: int) -> None:
        self.size = min(size, sketch_size)
        self.exact = size <= sketch_size
        if self.exact:
            return
        generator = np.random.default_rng([seed, size, sketch_size])
        # `__call__` appends a zero to the descriptor; it fills the last row of buckets.
        padded = -(-size // sketch_size) * sketch_size
        self._order = np.minimum(generator.permutation(padded), size)
        self._signs = generator.choice(np.array([-1, 1], np.float32), padded)

    def __call__(self, descriptor: Array) -> Array:
        """The sketch (size,) of a descriptor (n,)."""
        if self.exact:
            return descriptor
        shuffled = np.append(descriptor, np.float32(0)).take(self._order)
        shuffled *= self._signs
        sketch: Array = shuffled.reshape(-1, self.size).sum(axis=0)
        return sketch


@dataclass(frozen=True)
class Distances:
    """The distances among N items.

    Attributes:
        squared: (N, N) squared distances.
        sketches: (N, k). New items are compared with these later.
        sketch_error: Root mean square relative error of the distances between sketches, over the checked pairs.
        measured: The accuracy of `squared`.
    """

    squared: Array
    sketches: Array
    sketch_error: float
    measured: Measured


class Measurer:
    """Takes the descriptors of up to `count` items one after the other, then measures all distances.

    A context manager: leaving it removes its temporary file.

    Args:
        count: Items to come, at most.
        settings: The map's settings.
        budget: Its disk space is enough for exact distances, or sketches are used.
    """

    def __init__(self, count: int, settings: MapSettings, budget: Budget) -> None:
        self._count = count
        self._settings = settings
        self._budget = budget
        self._file: _SliceFile | None = None
        self._sketcher: Sketcher | None = None
        self._sketches: list[Array] = []
        self._contents: set[str] = set()
        self._duplicates = 0
        self._size = 0
        # Distances among these items are computed a second time in float64, to measure the error.
        chosen = np.random.default_rng(settings.seed).permutation(count)[:_CHECKED_ITEMS]
        self._to_check = {int(index) for index in chosen}
        self._checked: dict[int, Array] = {}

    def __enter__(self) -> Measurer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, descriptor: Array, content: str = "") -> None:
        """Takes the next item's descriptor.

        Args:
            descriptor: (n,).
            content: A digest of the item's picture or vector; items of equal digests are counted as duplicates. Two
                descriptors of the same picture cannot be compared instead: their last bits depend on the batch.

        Raises:
            InvalidInput: Its size is not that of the first one, or exact distances would need too much disk space.
        """
        if self._sketcher is None:
            self._sketcher = self._start(descriptor.size)
        if descriptor.size != self._size:
            raise InvalidInput(f"it has {descriptor.size} elements, the first item {self._size}", field="vector")
        index = len(self._sketches)
        if index in self._to_check:
            self._checked[index] = descriptor
        self._duplicates += bool(content) and content in self._contents
        self._contents.add(content)
        self._sketches.append(self._sketcher(descriptor))
        if self._file is not None:
            self._file.add(descriptor)

    def measure(self) -> Distances:
        """Computes all distances. No item can be added afterwards."""
        assert self._sketcher is not None, "no item was added"
        sketches = np.stack(self._sketches)
        self._sketches.clear()
        checked = list(self._checked)
        sketch_errors = self._errors(_squared_among(sketches[checked]))
        if self._file is not None:
            squared = self._file.squared_distances()
            errors = self._errors(squared[np.ix_(checked, checked)])
        else:
            squared = _squared_among(sketches)
            errors = sketch_errors
        exact = self._file is not None or self._sketcher.exact
        measured = Measured(
            exactness=Exactness.EXACT if exact else Exactness.SKETCH,
            descriptor_size=self._size,
            largest_error=float(errors.max(initial=0.0)),
            rms_error=_root_mean_square(errors),
            pairs_checked=errors.size,
            duplicates=self._duplicates,
        )
        return Distances(squared, sketches, _root_mean_square(sketch_errors), measured)

    def _start(self, size: int) -> Sketcher:
        """Chooses between the file and sketches, now that the size of a descriptor is known."""
        self._size = size
        sketcher = Sketcher(size, self._settings.sketch_size, self._settings.seed)
        needed, allowed = 4 * size * self._count, self._budget.disk_bytes
        wanted = self._settings.exactness
        if wanted is Exactness.EXACT and needed > allowed:
            raise InvalidInput(
                f"exact distances would take {needed / 2**30:.1f} GiB of temporary files, and "
                f"{allowed / 2**30:.1f} GiB are allowed: use sketches",
                field="start.settings.exactness",
            )
        if not sketcher.exact and wanted is not Exactness.SKETCH and needed <= allowed:
            self._file = _SliceFile(size, self._count, self._budget.scratch)
        return sketcher

    def _errors(self, squared: Array) -> NDArray[np.float64]:
        """Relative errors of the distances among the checked items, compared with float64."""
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


def squared_distances_to(sketch: Array, sketches: Array) -> NDArray[np.float64]:
    """The squared distances (N,) of a sketch (k,) to sketches (N, k)."""
    difference = sketches - sketch
    found: NDArray[np.float64] = np.einsum("ij,ij->i", difference, difference, dtype=np.float64)
    return found


class _SliceFile:
    """Rows of one length, written to a temporary file in blocks, to be read back in slices of columns.

    The mean of the first block is subtracted from every row: the distances stay the same, and float32 products of
    smaller numbers lose fewer digits.
    """

    def __init__(self, size: int, count: int, scratch: Path | None) -> None:
        self._size = size
        self._rows = 0
        self._file = tempfile.TemporaryFile(dir=scratch, prefix="gramlet-")  # noqa: SIM115 (closed by close)
        self._columns = int(np.clip(SLICE_BYTES // (4 * max(count, 1)), 256, 8192))
        self._block = np.empty((max(BLOCK_BYTES // (4 * size), 1), size), np.float32)
        self._filled = 0
        self._center: Array | None = None
        self._written: list[int] = []  # rows of each block in the file

    def close(self) -> None:
        self._file.close()

    def add(self, row: Array) -> None:
        self._block[self._filled] = row
        self._filled += 1
        self._rows += 1
        if self._filled == len(self._block):
            self._write_block()

    def squared_distances(self) -> Array:
        """(N, N) squared distances between the rows, from their inner products."""
        products: Any = np.zeros((self._rows, self._rows), np.float32, order="F")
        with one_thread() if self._rows < _FEW_ROWS else nullcontext():
            for piece in self._slices():
                # The lower triangle of products += piece pieceᵀ; BLAS sees the C-ordered piece as its transpose.
                products = ssyrk(1.0, piece.T, beta=1.0, c=products, trans=1, lower=1, overwrite_c=1)
        return _from_upper_products(products.T)

    def _slices(self) -> Iterator[Array]:
        """(rows, columns) pieces that together hold every element once. A piece is valid until the next one."""
        self._write_block()
        buffer = np.empty((self._rows, min(self._columns, self._size)), np.float32)
        for start in range(0, self._size, self._columns):
            columns = min(self._columns, self._size - start)
            piece = buffer.ravel()[: self._rows * columns].reshape(self._rows, columns)
            self._read(start, piece)
            yield piece

    def _write_block(self) -> None:
        if not self._filled:
            return
        block = self._block[: self._filled]
        if self._center is None:
            self._center = block.mean(axis=0)
        block -= self._center
        # A block is written slice by slice, so that each slice of it can be read back in one piece.
        for start in range(0, self._size, self._columns):
            self._file.write(np.ascontiguousarray(block[:, start : start + self._columns]).data)
        self._written.append(self._filled)
        self._filled = 0

    def _read(self, start: int, into: Array) -> None:
        """Reads the columns from `start` on, of all rows, into an array (rows, columns)."""
        row = 0
        for rows in self._written:
            self._file.seek(4 * (row * self._size + rows * start))
            piece = into[row : row + rows].reshape(-1).view(np.uint8).data
            read = self._file.readinto(piece)
            assert read == 4 * rows * into.shape[1], "the temporary file is short"
            row += rows


def _squared_among(rows: Array) -> Array:
    """(N, N) squared distances between rows (N, k) that are in memory."""
    centered = rows - rows.mean(axis=0)
    products = ssyrk(1.0, centered.T, trans=1, lower=1)
    return _from_upper_products(products.T)


def _from_upper_products(products: Array) -> Array:
    """Squared distances, in place, from inner products (N, N) in C order of which the upper triangle is filled."""
    norms = products.diagonal().astype(np.float64)
    for i in range(len(products)):
        row = norms[i] + norms[i:] - 2.0 * products[i, i:]
        np.maximum(row, 0.0, out=row)
        products[i, i:] = row
        products[i:, i] = row
    np.fill_diagonal(products, 0.0)
    return products


def _root_mean_square(errors: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(errors**2))) if errors.size else 0.0
