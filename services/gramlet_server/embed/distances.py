"""Takes descriptors one after the other, and keeps what a map needs of them: rows, lengths, and perhaps all distances.

A descriptor that is no longer than a sketch is kept as it is. Of longer ones a random sketch is kept, whose error is
measured; up to a few thousand items their distances are also computed exactly, through a temporary file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gramlet.embed.settings import Exactness, MapSettings
from gramlet.embed.types import Measured
from gramlet.errors import InvalidInput
from gramlet.types import Array
from numpy.typing import NDArray

from gramlet_server.embed.geometry import Kept, RowPoints
from gramlet_server.embed.slice_file import SliceFile
from gramlet_server.embed.threads import one_thread

EXACT_UP_TO = 8000
"""Items whose distances are exact unless the caller wants otherwise: their N × N matrix takes 256 MB."""
CHECKED_ITEMS = 24
"""Items among which distances are computed twice, to measure the error."""
_CHECKED_COLUMNS = 2**16


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


def sketcher_of(size: int, settings: MapSettings) -> Sketcher:
    """The sketches of a map whose settings are complete."""
    assert settings.sketch_size is not None, "the size of sketches depends on the number of items"
    return Sketcher(size, settings.sketch_size, settings.seed)


class Measurer:
    """Takes the descriptors of up to `count` items one after the other.

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
        self._file: SliceFile | None = None
        self._sketcher: Sketcher | None = None
        self._rows = np.empty((0, 0), np.float32)
        self._ones = np.empty(0, np.float32)
        self._lengths = np.zeros(count)
        self._sums = np.zeros(count)
        self._filled = 0
        self._contents: set[str] = set()
        self._duplicates = 0
        # Distances among these items are computed a second time in float64, to measure the error.
        chosen = np.random.default_rng(settings.seed).permutation(count)[:CHECKED_ITEMS]
        self._to_check = {int(index) for index in chosen}
        self._checked: dict[int, Array] = {}

    def __enter__(self) -> Measurer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, descriptor: Array, ones: Callable[[], Array], content: str = "") -> None:
        """Takes the next item's descriptor.

        Args:
            descriptor: (n,).
            ones: Makes the descriptor (n,) of matrices of ones; called once.
            content: A digest of the item's picture or vector; items of equal digests are counted as duplicates. Two
                descriptors of the same picture cannot be compared instead: their last bits depend on the batch.

        Raises:
            InvalidInput: Its size is not that of the first one, or exact distances would need too much disk space.
        """
        if self._sketcher is None:
            self._sketcher = self._start(descriptor.size)
            self._ones = ones()
        if descriptor.size != self._ones.size:
            raise InvalidInput(f"it has {descriptor.size} elements, the first item {self._ones.size}", field="vector")
        index = self._filled
        if index in self._to_check:
            self._checked[index] = descriptor
        self._duplicates += bool(content) and content in self._contents
        self._contents.add(content)
        self._rows[index] = self._sketcher(descriptor)
        self._lengths[index] = np.sqrt(np.einsum("i,i->", descriptor, descriptor, dtype=np.float64))
        self._sums[index] = np.einsum("i,i->", descriptor, self._ones, dtype=np.float64)
        self._filled += 1
        if self._file is not None:
            self._file.add(descriptor)

    def measure(self) -> tuple[Kept, Measured]:
        """What the map keeps, and how exact its Euclidean distances are. No item can be added afterwards."""
        assert self._sketcher is not None, "no item was added"
        kept = Kept(
            rows=self._rows[: self._filled],
            lengths=self._lengths[: self._filled],
            sums=self._sums[: self._filled],
            ones=self._sketcher(self._ones),
            ones_squared=float(np.einsum("i,i->", self._ones, self._ones, dtype=np.float64)),
            squared=self._file.squared_distances() if self._file is not None else None,
        )
        checked = list(self._checked)
        if kept.squared is not None:
            errors = self._errors(kept.squared[np.ix_(checked, checked)])
        else:
            errors = self._errors(RowPoints(kept.rows[checked], 0).all_squared())
        return kept, Measured(
            exactness=Exactness.EXACT if kept.squared is not None or self._sketcher.exact else Exactness.SKETCH,
            descriptor_size=self._ones.size,
            largest_error=float(errors.max(initial=0.0)),
            rms_error=float(np.sqrt(np.mean(errors**2))) if errors.size else 0.0,
            pairs_checked=errors.size,
            duplicates=self._duplicates,
        )

    def _start(self, size: int) -> Sketcher:
        """Chooses between the file and sketches, now that the size of a descriptor is known."""
        sketcher = sketcher_of(size, self._settings)
        self._rows = np.empty((self._count, sketcher.size), np.float32)
        needed, allowed = 4 * size * self._count, self._budget.disk_bytes
        wanted = self._settings.exactness
        if wanted is Exactness.EXACT and not sketcher.exact and needed > allowed:
            raise InvalidInput(
                f"exact distances would take {needed / 2**30:.1f} GiB of temporary files, and "
                f"{allowed / 2**30:.1f} GiB are allowed: use sketches",
                field="start.settings.exactness",
            )
        few = needed <= allowed and self._count <= EXACT_UP_TO
        if not sketcher.exact and (wanted is Exactness.EXACT or (wanted is Exactness.AUTO and few)):
            self._file = SliceFile(size, self._count, self._budget.scratch)
        return sketcher

    def _errors(self, squared: Array) -> NDArray[np.float64]:
        """Relative errors of the distances among the checked items, compared with float64."""
        products = self._products_of_checked()
        norms = products.diagonal()
        pairs = np.tril_indices(len(products), -1)
        true = np.sqrt(np.maximum(norms[:, None] + norms[None, :] - 2 * products, 0.0))[pairs]
        found = np.sqrt(np.maximum(squared[pairs], 0.0))
        apart = true > 1e-6 * true.max(initial=0.0)
        errors: NDArray[np.float64] = np.abs(found[apart] - true[apart]) / true[apart]
        return errors

    def _products_of_checked(self) -> NDArray[np.float64]:
        """Inner products (m, m) of the checked items around their mean, summed over blocks of columns."""
        items = list(self._checked.values())
        products = np.zeros((len(items), len(items)))
        for start in range(0, items[0].size, _CHECKED_COLUMNS):
            block = np.stack([item[start : start + _CHECKED_COLUMNS] for item in items]).astype(np.float64)
            block -= block.mean(axis=0)
            with one_thread():
                products += block @ block.T
        return products
