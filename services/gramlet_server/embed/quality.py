"""How well a layout keeps the neighborhoods of the items, from the distances among the items and on the layout.

Of many items a sample is measured, each against all others, and the standard error is reported.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import numpy as np
from gramlet.embed.types import Quality
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from gramlet_server.embed.geometry import Floats, Indices, Points, RowPoints, strips

SAMPLE = 2000
"""Items that are measured, at most."""


def judge(
    points: Points, coordinates: Floats, labels: Sequence[str], neighbors: int
) -> Generator[tuple[int, int], None, Quality]:
    """Measures the quality of one layout. Yields how many items of how many are measured.

    Trustworthiness and continuity are those of Venna and Kaski (2001), the silhouette is that of Rousseeuw (1987).

    Args:
        points: N items.
        coordinates: (N, d).
        labels: The label of each item; empty for an item without one.
        neighbors: Size k of a neighborhood. It is lowered for small N: trustworthiness is defined for k < N / 2.
    """
    k = max(1, min(neighbors, (points.count - 1) // 2))
    if points.count < 3:
        return Quality(k, 1.0, 1.0, 1.0, items=points.count)
    chosen = np.arange(points.count)
    if points.count > SAMPLE:
        chosen = np.sort(np.random.default_rng(points.seed).permutation(points.count)[:SAMPLE])
    layout = RowPoints(coordinates.astype(np.float64), 0)
    sample = _Sample(k, points.count, _Labels.of(labels))
    for strip in strips(len(chosen), 4 * points.count):
        sample.add(chosen[strip], points.squared_from(chosen[strip]), layout.squared_from(chosen[strip]))
        yield strip.stop, len(chosen)
    return sample.quality()


def label_accuracy(points: Points, labels: Sequence[str], k: int) -> float:
    """The share of labelled items whose label is the most frequent among their k nearest labelled neighbors."""
    found = _Labels.of(labels)
    assert found is not None, "fewer than two labels"
    rows = np.flatnonzero(found.known)
    right = []
    for strip in strips(len(rows), 4 * points.count):
        squared = points.squared_from(rows[strip])
        squared[np.arange(len(squared)), rows[strip]] = -1.0
        right.append(_right_votes(squared, rows[strip], found, k))
    return float(np.concatenate(right).mean())


@dataclass(frozen=True)
class _Labels:
    """The number of each item's label, -1 for none; which items have one; and the items of each label (N, labels)."""

    numbers: Indices
    known: NDArray[np.bool_]
    members: csr_matrix

    @classmethod
    def of(cls, labels: Sequence[str]) -> _Labels | None:
        """None unless there are two different labels."""
        names = sorted({label for label in labels if label})
        if len(names) < 2:
            return None
        number_of = {name: number for number, name in enumerate(names)}
        numbers = np.array([number_of.get(label, -1) for label in labels], np.intp)
        rows = np.flatnonzero(numbers >= 0)
        members = csr_matrix((np.ones(len(rows)), (rows, numbers[rows])), shape=(len(labels), len(names)))
        return cls(numbers, numbers >= 0, members)


@dataclass
class _Sample:
    """The measures of the items so far. Before and after mean: among the items, and on the layout."""

    k: int
    items: int
    labels: _Labels | None
    shares: dict[str, list[Floats]] = field(default_factory=dict)

    def add(self, rows: Indices, before: Floats, after: Floats) -> None:
        """Takes the squared distances (m, N) of more items to all."""
        own = np.arange(len(rows))
        before[own, rows] = after[own, rows] = -1.0
        near_before, near_after = (_nearest(distances, rows, self.k) for distances in (before, after))
        ranks_before, ranks_after = _ranks(before, near_after), _ranks(after, near_before)
        worst = self.k * (2 * self.items - 3 * self.k - 1) / 2
        self._put("trustworthiness", 1 - np.maximum(ranks_before - self.k, 0).sum(axis=1) / worst)
        self._put("continuity", 1 - np.maximum(ranks_after - self.k, 0).sum(axis=1) / worst)
        self._put("neighbor_preservation", (ranks_before <= self.k).mean(axis=1))
        if self.labels is not None:
            of_sample = self.labels.known[rows]
            labelled = rows[of_sample]
            for name, distances in (("", after[of_sample]), ("descriptor_", before[of_sample])):
                self._put(f"{name}label_accuracy", _right_votes(distances, labelled, self.labels, self.k))
                self._put(f"{name}silhouette", _silhouettes(distances, labelled, self.labels))

    def quality(self) -> Quality:
        """Means over the items, and the largest standard error of the shares among them."""
        values = {name: np.concatenate(parts) for name, parts in self.shares.items()}
        measured = len(values["trustworthiness"])
        missed = np.sqrt(max(0.0, 1 - measured / self.items))  # nothing is left to chance when all are measured
        errors = [
            missed * float(found.std()) / np.sqrt(max(len(found), 1))
            for name, found in values.items()
            if not name.endswith("silhouette") and len(found)
        ]
        means = {name: float(found.mean()) for name, found in values.items() if len(found)}
        return Quality(self.k, **means, items=measured, standard_error=float(max(errors)))

    def _put(self, name: str, values: Floats) -> None:
        self.shares.setdefault(name, []).append(values.astype(np.float64))


def _nearest(distances: Floats, rows: Indices, k: int) -> Indices:
    """(m, k) the nearest items of each row's item, without itself, nearest first."""
    found = np.argpartition(distances, k, axis=1)[:, : k + 1]
    found.sort(axis=1)
    near = np.take_along_axis(distances, found, axis=1)
    order = np.argsort(near, axis=1, kind="stable")  # the item itself is first: its distance is -1
    return np.take_along_axis(found, order, axis=1)[:, 1:]


def _ranks(distances: Floats, items: Indices) -> Indices:
    """(m, k) the rank of the items (m, k) among the neighbors of each row: 1 is the nearest. The lower index first."""
    ranks = np.empty_like(items)
    columns = np.arange(distances.shape[1])
    for number in range(items.shape[1]):
        item = items[:, number, None]
        own = np.take_along_axis(distances, item, axis=1)
        nearer = (distances < own).sum(axis=1)
        ranks[:, number] = nearer + ((distances == own) & (columns < item)).sum(axis=1)
    return ranks


def _right_votes(distances: Floats, rows: Indices, labels: _Labels, k: int) -> Floats:
    """Whether each row's item has the label of most of its k nearest labelled neighbors. The nearer wins a tie."""
    if not len(rows):
        return np.zeros(0)
    of_labelled = np.where(labels.known, distances, np.inf)
    near = _nearest(of_labelled, rows, min(k, int(labels.known.sum()) - 1))
    right = np.zeros(len(rows))
    for own, row in enumerate(rows):
        votes = np.bincount(labels.numbers[near[own]], weights=1 - 1e-6 * np.arange(near.shape[1]))
        right[own] = votes.argmax() == labels.numbers[row]
    return right


def _silhouettes(squared: Floats, rows: Indices, labels: _Labels) -> Floats:
    """(b - a) / max(a, b) of each row's item.

    a is its mean distance to the items of its own label, b its mean distance to those of the nearest other label.
    """
    distances = np.sqrt(np.maximum(squared, 0.0))
    sums = (labels.members.T @ distances.T).T
    counts = np.asarray(labels.members.sum(axis=0)).ravel()
    own, label = np.arange(len(rows)), labels.numbers[rows]
    within = sums[own, label] / np.maximum(counts[label] - 1, 1)
    means = sums / counts
    means[own, label] = np.inf
    between = means.min(axis=1, initial=np.inf)
    found: Floats = (between - within) / np.maximum(np.maximum(between, within), 1e-300)
    found[counts[label] == 1] = 0.0
    return found
