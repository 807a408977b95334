"""How well a layout keeps the neighborhoods of the items, from the distances among the items and on the layout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from gramlet.embed.types import Quality
from gramlet.types import Array
from numpy.typing import NDArray

from gramlet_server.embed.tsne import Floats

_ROWS = 256


def judge(squared: Array, coordinates: Floats, labels: Sequence[str], neighbors: int) -> Quality:
    """Measures the quality of one layout.

    Trustworthiness and continuity are those of Venna and Kaski (2001), the silhouette is that of Rousseeuw (1987).

    Args:
        squared: (N, N) squared distances among the descriptors.
        coordinates: (N, d).
        labels: The label of each item; empty for an item without one.
        neighbors: Size k of a neighborhood. It is lowered for small N: trustworthiness is defined for k < N / 2.
    """
    items = len(squared)
    k = max(1, min(neighbors, (items - 1) // 2))
    if items < 3:
        return Quality(k, 1.0, 1.0, 1.0)
    intruders, lost, kept = 0.0, 0.0, 0
    classes, known = _classes(labels)
    right = [0, 0]
    silhouettes: list[list[float]] = [[], []]
    for rows, mapped in _strips(squared, coordinates):
        ranks_before, ranks_after = _ranks(squared[rows], rows), _ranks(mapped, rows)
        near_before, near_after = _near(ranks_before, k), _near(ranks_after, k)
        intruders += float((ranks_before[near_after & ~near_before] - k).sum())
        lost += float((ranks_after[near_before & ~near_after] - k).sum())
        kept += int((near_before & near_after).sum())
        if known is not None:
            before = squared[rows].astype(np.float64)
            for which, (distances, ranks) in enumerate(((mapped, ranks_after), (before, ranks_before))):
                right[which] += _right_votes(ranks, rows, classes, known, k)
                silhouettes[which] += _silhouettes(distances, rows, classes, known)
    worst = items * k * (2 * items - 3 * k - 1) / 2
    quality = Quality(k, 1 - intruders / worst, 1 - lost / worst, kept / (items * k))
    if known is None:
        return quality
    labelled = int(known.sum())
    return replace(
        quality,
        label_accuracy=right[0] / labelled,
        descriptor_label_accuracy=right[1] / labelled,
        silhouette=float(np.mean(silhouettes[0])),
        descriptor_silhouette=float(np.mean(silhouettes[1])),
    )


def _classes(labels: Sequence[str]) -> tuple[NDArray[np.intp], NDArray[np.bool_] | None]:
    """The number of each item's label, and which items have one: None unless there are two different labels."""
    names = sorted({label for label in labels if label})
    numbers = {name: number for number, name in enumerate(names)}
    classes = np.array([numbers.get(label, -1) for label in labels], np.intp)
    return classes, (classes >= 0 if len(names) >= 2 else None)


def _strips(squared: Array, coordinates: Floats) -> Iterator[tuple[NDArray[np.intp], Floats]]:
    """Strips of row numbers, each with the squared distances (rows, N) of those items on the layout."""
    for start in range(0, len(squared), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(squared)))
        mapped = np.zeros((len(rows), len(squared)))
        for axis in coordinates.T:
            mapped += (axis[rows, None] - axis[None, :]) ** 2
        yield rows, mapped


def _ranks(distances: NDArray[np.floating], rows: NDArray[np.intp]) -> NDArray[np.int32]:
    """The rank of every item among the neighbors of each row's item: 1 is the nearest, 0 the item itself."""
    own = np.arange(len(rows))
    distances = distances.copy()
    distances[own, rows] = -1.0
    order = np.argsort(distances, axis=1, kind="stable")
    ranks = np.empty(distances.shape, np.int32)
    np.put_along_axis(ranks, order, np.arange(distances.shape[1], dtype=np.int32)[None, :], axis=1)
    return ranks


def _near(ranks: NDArray[np.int32], k: int) -> NDArray[np.bool_]:
    return (ranks > 0) & (ranks <= k)


def _right_votes(
    ranks: NDArray[np.int32], rows: NDArray[np.intp], classes: NDArray[np.intp], known: NDArray[np.bool_], k: int
) -> int:
    """How many labelled items have the label of most of their k nearest labelled neighbors. The nearer wins a tie."""
    right = 0
    for own, row in enumerate(rows):
        if not known[row]:
            continue
        others = np.flatnonzero(known & (ranks[own] > 0))
        near = others[np.argsort(ranks[own, others])[:k]]
        votes = np.bincount(classes[near], weights=1 - 1e-6 * np.arange(len(near)))
        right += int(votes.argmax() == classes[row])
    return right


def _silhouettes(
    squared: Floats, rows: NDArray[np.intp], classes: NDArray[np.intp], known: NDArray[np.bool_]
) -> list[float]:
    """(b - a) / max(a, b) of each labelled row.

    a is its mean distance to the items of its own label, b its mean distance to those of the nearest other label.
    """
    distances = np.sqrt(np.maximum(squared, 0.0))[:, known]
    members = np.eye(classes.max() + 1)[classes[known]]  # (labelled, labels)
    counts = members.sum(axis=0)
    sums = distances @ members
    found = []
    for own, row in enumerate(rows):
        if not known[row]:
            continue
        label = classes[row]
        if counts[label] == 1:
            found.append(0.0)
            continue
        within = sums[own, label] / (counts[label] - 1)
        between = np.delete(sums[own] / counts, label).min()
        found.append(float((between - within) / max(between, within, 1e-300)))
    return found
