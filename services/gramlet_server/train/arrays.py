"""Names for the arrays of training and evaluation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
"""Logits, losses and scores."""
Labels = NDArray[np.int64]
"""Positions: of classes, of pictures, of folds."""

BLOCK_ELEMENTS = 2**22
"""Numbers of an array that are made at once where one of all pictures with all pictures would be too large."""


def blocks(count: int, width: int) -> Iterator[slice]:
    """Slices of 0..count, each of about `BLOCK_ELEMENTS` / width rows."""
    rows = max(1, BLOCK_ELEMENTS // max(1, width))
    for start in range(0, count, rows):
        yield slice(start, min(start + rows, count))
