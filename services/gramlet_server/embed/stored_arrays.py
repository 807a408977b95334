"""The arrays of a map in the store.

What is kept of the descriptors are the values `kept`, `rows-N` and, where distances are exact, `distances-N`: parts of
rows, so that no value is so large that its copies fill the memory.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from gramlet.types import Array
from numpy.typing import NDArray

from gramlet_server.embed.geometry import STRIP_ELEMENTS, Kept, strips
from gramlet_server.runs.run import Run

PART_BYTES = 2**25
"""Of the arrays in one value of the store."""


def put_kept(run: Run, kept: Kept) -> None:
    """Writes what is kept of the descriptors."""
    for number, strip in enumerate(_parts(kept.rows.shape)):
        run.put(f"rows-{number}", to_npz(rows=kept.rows[strip]))
    if kept.squared is not None:
        for number, strip in enumerate(_parts(kept.squared.shape)):
            upper = [kept.squared[i, i + 1 :] for i in range(strip.start, strip.stop)]
            run.put(f"distances-{number}", to_npz(upper=np.concatenate(upper)))
    run.put(
        "kept",
        to_npz(
            lengths=kept.lengths,
            sums=kept.sums,
            ones=kept.ones,
            ones_squared=np.array(kept.ones_squared),
            exact=np.array(kept.squared is not None),
        ),
    )


def get_kept(run: Run, *, with_distances: bool = True) -> Kept:
    """What is kept of the descriptors; its exact distances only if they are wanted."""
    with run.intact("what is kept of the descriptors"):
        return _get_kept(run, with_distances)


def _get_kept(run: Run, with_distances: bool) -> Kept:
    facts = from_npz(run.get("kept"))
    items, width = len(facts["lengths"]), len(facts["ones"])
    rows = np.empty((items, width), np.float32)
    for number, strip in enumerate(_parts(rows.shape)):
        rows[strip] = from_npz(run.get(f"rows-{number}"))["rows"]
    squared = _get_distances(run, items) if with_distances and facts["exact"] else None
    return Kept(rows, facts["lengths"], facts["sums"], facts["ones"], float(facts["ones_squared"]), squared)


def to_npz(**arrays: NDArray[Any]) -> bytes:
    """Arrays as the bytes of an .npz file."""
    data = io.BytesIO()
    np.savez(data, allow_pickle=False, **arrays)
    return data.getvalue()


def from_npz(data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return dict(arrays)


def _get_distances(run: Run, items: int) -> Array:
    squared = np.zeros((items, items), np.float32)
    for number, strip in enumerate(_parts(squared.shape)):
        upper = from_npz(run.get(f"distances-{number}"))["upper"]
        for i in range(strip.start, strip.stop):
            row, upper = upper[: items - i - 1], upper[items - i - 1 :]
            squared[i, i + 1 :] = squared[i + 1 :, i] = row
    return squared


def _parts(shape: tuple[int, ...]) -> list[slice]:
    """Slices of rows, each of about `PART_BYTES`."""
    return list(strips(shape[0], shape[1] * 4 * STRIP_ELEMENTS / PART_BYTES))
