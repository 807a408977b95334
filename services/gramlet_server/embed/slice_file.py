"""Descriptors of any size in a temporary file, and all inner products from one pass over it.

The descriptors are written in slices of columns. X Xᵀ = Σ X_c X_cᵀ over the slices X_c then takes the memory of one
slice and of one N × N matrix.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
from gramlet.types import Array
from scipy.linalg.blas import ssyrk

from gramlet_server.embed.threads import one_thread
from gramlet_server.process.scratch import refusing_full_disks

SLICE_BYTES = 64 * 2**20
"""Size of a slice of columns when the file is read."""
BLOCK_BYTES = 24 * 2**20
"""Size of a block of rows when the file is written."""
_FEW_ROWS = 1000


class SliceFile:
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
        with suppress(OSError):  # of a full disk, which was reported before
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
        with refusing_full_disks():
            self._write_slices(block)
        self._written.append(self._filled)
        self._filled = 0

    def _write_slices(self, block: Array) -> None:
        for start in range(0, self._size, self._columns):
            self._file.write(np.ascontiguousarray(block[:, start : start + self._columns]).data)
        self._file.flush()

    def _read(self, start: int, into: Array) -> None:
        """Reads the columns from `start` on, of all rows, into an array (rows, columns)."""
        row = 0
        for rows in self._written:
            self._file.seek(4 * (row * self._size + rows * start))
            piece = into[row : row + rows].reshape(-1).view(np.uint8).data
            read = self._file.readinto(piece)
            assert read == 4 * rows * into.shape[1], "the temporary file is short"
            row += rows


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
