"""The items of a map as points: what a map keeps of their descriptors, and the distances that methods ask for.

A method never holds all N × N distances unless it needs them (MDS, Isomap): t-SNE asks for the nearest neighbors, PCA
for products with a vector, the quality measures for a sample of rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from gramlet.embed.settings import Metric
from gramlet.types import Array
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.sparse.linalg import LinearOperator, eigsh
from sklearn.neighbors import NearestNeighbors
from sklearn.utils.extmath import randomized_svd

from gramlet_server.embed.threads import one_thread

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

STRIP_ELEMENTS = 2**20
"""Distances that are held at once where all rows are visited."""
_DENSE_UP_TO = 1000
_STRIPS_UP_TO = 4000
_EXACT_PRODUCTS = 1e12
"""More multiplications than these (N² k) take minutes; then neighbors are searched among principal components."""
_COMPONENTS = 64
_CANDIDATES = 2
_RECALL_ITEMS = 200


@dataclass(frozen=True)
class Kept:
    """What a map keeps of its items' descriptors x (n,): enough for another metric, method or perplexity.

    Attributes:
        rows: (N, k) float32: the descriptors, or sketches of them.
        lengths: (N,) |x|.
        sums: (N,) x·1, where 1 is the descriptor of matrices of ones.
        ones: (k,) the row of 1.
        ones_squared: |1|².
        squared: (N, N) exact squared distances |x - y|²; None where those of the rows are used.
    """

    rows: Array
    lengths: Floats
    sums: Floats
    ones: Array
    ones_squared: float
    squared: Array | None = None

    def centered_lengths(self) -> Floats:
        """(N,) the length of each descriptor after the mean of its elements is subtracted."""
        squared = np.maximum(self.lengths**2 - self.sums**2 / self.ones_squared, 0.0)
        lengths: Floats = np.sqrt(squared)
        lengths[lengths < 1e-6 * self.lengths] = 0.0  # only rounding is left of a constant descriptor
        return lengths

    def directed(self, metric: Metric) -> NDArray[np.bool_]:
        """(N,) whether the metric finds a direction in the descriptor. Others are taken for zero."""
        if metric is Metric.EUCLIDEAN:
            return np.ones(len(self.lengths), np.bool_)
        return (self.lengths if metric is Metric.COSINE else self.centered_lengths()) > 0

    def with_metric(self, metric: Metric) -> Array:
        """(N, k) rows whose Euclidean distances are those of the metric."""
        if metric is Metric.EUCLIDEAN:
            return self.rows
        rows, lengths = self.rows.copy(), self.lengths
        if metric is Metric.CORRELATION:
            lengths = self.centered_lengths()
            for strip in strips(len(rows), rows.shape[1]):
                rows[strip] -= np.multiply.outer(self.sums[strip] / self.ones_squared, self.ones)
        scales = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)
        rows *= scales.astype(np.float32)[:, None]
        return rows

    def squared_with_metric(self, metric: Metric) -> Array:
        """(N, N) squared distances of the metric, from the exact Euclidean ones.

        With a = |x| and b = |y|: |x/a - y/b|² = (|x - y|² - (a - b)²) / ab, and subtracting the mean of the elements
        from x and y takes (x·1 - y·1)² / |1|² off |x - y|².
        """
        assert self.squared is not None
        if metric is Metric.EUCLIDEAN:
            return self.squared
        lengths = self.lengths if metric is Metric.COSINE else self.centered_lengths()
        found = np.empty_like(self.squared)
        for strip in strips(len(found), len(found)):
            block = self.squared[strip].astype(np.float64)
            if metric is Metric.CORRELATION:
                block -= (self.sums[strip, None] - self.sums) ** 2 / self.ones_squared
            block -= (lengths[strip, None] - lengths) ** 2
            products = lengths[strip, None] * lengths
            block = np.divide(block, products, out=np.zeros_like(block), where=products > 0)
            # A descriptor without direction is the zero vector, at distance 1 of every direction.
            block[(lengths[strip, None] > 0) != (lengths > 0)] = 1.0
            found[strip] = np.maximum(block, 0.0)
        np.fill_diagonal(found, 0.0)
        return found


def points_of(kept: Kept, metric: Metric, seed: int) -> Points:
    """The items as points of that metric."""
    if kept.squared is not None:
        return PairPoints(kept.squared_with_metric(metric), seed)
    return RowPoints(kept.with_metric(metric), seed)


def strips(items: int, width: float) -> Iterator[slice]:
    """Slices of 0..items, each of about `STRIP_ELEMENTS` / width."""
    rows = max(1, int(STRIP_ELEMENTS / max(width, 1)))
    for start in range(0, items, rows):
        yield slice(start, min(start + rows, items))


class Points(ABC):
    """N points of which distances are known. The same seed gives the same results."""

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.seed = seed

    @abstractmethod
    def squared_from(self, chosen: Indices) -> Floats:
        """(m, N) squared distances of the chosen items to all."""

    @abstractmethod
    def vectors(self, size: int) -> Array:
        """(N, n) vectors of the points; principal coordinates, at most `size`, where only distances are known."""

    @abstractmethod
    def _centered_product(self, vector: Floats) -> Floats:
        """The centered inner products (N, N) times a vector (N,)."""

    @abstractmethod
    def _variance(self) -> float:
        """The sum of squared distances from the mean."""

    def all_squared(self) -> Array:
        """(N, N) squared distances."""
        squared = np.empty((self.count, self.count), np.float32)
        for strip in strips(self.count, self.count):
            squared[strip] = self.squared_from(np.arange(strip.start, strip.stop))
        return squared

    def nearest(self, k: int) -> tuple[Indices, Floats]:
        """Each item's k nearest other items, nearest first, and their distances: (N, k) each."""
        indices = np.empty((self.count, k), np.intp)
        distances = np.empty((self.count, k))
        for strip in strips(self.count, self.count):
            indices[strip], distances[strip] = self.nearest_to(np.arange(strip.start, strip.stop), k)
        return indices, distances

    def nearest_to(self, chosen: Indices, k: int) -> tuple[Indices, Floats]:
        """The k nearest other items of the chosen ones, exactly; of equal distances the lower index first."""
        squared = self.squared_from(chosen)
        squared[np.arange(len(chosen)), chosen] = np.inf
        found = np.argpartition(squared, min(k, self.count - 1) - 1, axis=1)[:, :k]
        found.sort(axis=1)
        near = np.take_along_axis(squared, found, axis=1)
        order = np.argsort(near, axis=1, kind="stable")
        return np.take_along_axis(found, order, axis=1), np.sqrt(np.take_along_axis(near, order, axis=1))

    @property
    def approximates(self) -> bool:
        """Whether `nearest` may miss some neighbors."""
        return False

    def recall(self, indices: Indices) -> float:
        """The share of the true nearest neighbors that `indices` (N, k) holds, from a sample of items."""
        sample = np.random.default_rng(self.seed).permutation(self.count)[:_RECALL_ITEMS]
        k = indices.shape[1]
        right = 0
        for strip in strips(len(sample), self.count):
            truth = self.nearest_to(sample[strip], k)[0]
            right += sum(len(np.intersect1d(*pair)) for pair in zip(truth, indices[sample[strip]], strict=True))
        return float(right / (len(sample) * k))

    def principal_coordinates(self, dimensions: int) -> tuple[Floats, float]:
        """Principal components; classical scaling (Torgerson, 1952) where only distances are known.

        Returns:
            (N, dimensions) coordinates, and the share of the variance that they hold, 0 to 1. The axes come in order
            of decreasing variance; on each axis the coordinate of largest magnitude is positive. Coordinates beyond
            N - 1 are 0.
        """
        items, wanted = self.count, min(dimensions, max(self.count - 1, 1))
        if items <= _DENSE_UP_TO:
            products = np.column_stack([self._centered_product(unit) for unit in np.eye(items)])
            with one_thread():
                values, vectors = eigh(products, subset_by_index=(items - wanted, items - 1))
        else:
            operator = LinearOperator((items, items), matvec=lambda v: self._centered_product(v.ravel()), dtype=float)
            first = np.random.default_rng(self.seed).normal(size=items)
            values, vectors = eigsh(operator, k=wanted, which="LA", v0=first, tol=1e-4)
            order = np.argsort(values)
            values, vectors = values[order], vectors[:, order]
        values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
        largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(wanted)]
        coordinates = np.zeros((items, dimensions))
        coordinates[:, :wanted] = vectors * np.sqrt(values) * np.where(largest < 0, -1.0, 1.0)
        variance = self._variance()
        return coordinates, float(values.sum() / variance) if variance > 0 else 1.0


class RowPoints(Points):
    """Points (N, k) in memory.

    Args:
        rows: (N, k) float32.
        seed: Of the approximations.
    """

    def __init__(self, rows: Array, seed: int) -> None:
        super().__init__(len(rows), seed)
        self._rows = rows
        self._mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        self._norms = np.concatenate(
            [np.einsum("ij,ij->i", centered, centered, dtype=np.float64) for centered in self._centered_strips()]
        )

    def squared_from(self, chosen: Indices) -> Floats:
        found = np.empty((len(chosen), self.count))
        own = self._rows[chosen] - self._mean
        for strip in strips(self.count, self._rows.shape[1]):
            found[:, strip] = own @ (self._rows[strip] - self._mean).T
        found *= -2.0
        found += self._norms[chosen, None]
        found += self._norms
        np.maximum(found, 0.0, out=found)
        found[np.arange(len(chosen)), chosen] = 0.0
        return found

    def vectors(self, size: int) -> Array:
        return self._rows

    @property
    def approximates(self) -> bool:
        return bool(float(self.count) ** 2 * self._rows.shape[1] > _EXACT_PRODUCTS)

    def nearest(self, k: int) -> tuple[Indices, Floats]:
        """As always; not exactly where N² × k is too large: see `recall`."""
        if self.count <= _STRIPS_UP_TO:
            return super().nearest(k)
        return self._nearest_by_components(k) if self.approximates else self._nearest_by_rows(self._rows, k)

    def _nearest_by_rows(self, rows: Array, k: int) -> tuple[Indices, Floats]:
        index = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(rows)
        distances, indices = index.kneighbors()
        return indices, distances

    def _nearest_by_components(self, k: int) -> tuple[Indices, Floats]:
        """Searches candidates among the first principal components, and sorts them by their true distances."""
        _, _, axes = randomized_svd(self._rows, _COMPONENTS, n_iter=2, random_state=self.seed % 2**32)
        candidates, _ = self._nearest_by_rows(self._rows @ axes.T, min(_CANDIDATES * k, self.count - 1))
        indices, distances = np.empty((self.count, k), np.intp), np.empty((self.count, k))
        for strip in strips(self.count, candidates.shape[1] * self._rows.shape[1]):
            difference = self._rows[candidates[strip]] - self._rows[strip, None]
            squared = np.einsum("ijk,ijk->ij", difference, difference)
            order = np.argsort(squared, axis=1, kind="stable")[:, :k]
            indices[strip] = np.take_along_axis(candidates[strip], order, axis=1)
            distances[strip] = np.sqrt(np.take_along_axis(squared, order, axis=1))
        return indices, distances

    def _centered_strips(self) -> Iterator[Array]:
        for strip in strips(self.count, self._rows.shape[1]):
            yield self._rows[strip] - self._mean

    def _centered_product(self, vector: Floats) -> Floats:
        weights = (vector - vector.mean()).astype(np.float32)
        pulled = weights @ self._rows
        product = (self._rows @ pulled).astype(np.float64)
        centered: Floats = product - product.mean()
        return centered

    def _variance(self) -> float:
        return float(self._norms.sum())


class PairPoints(Points):
    """Points of which the distances are known: (N, N) float32, squared."""

    def __init__(self, squared: Array, seed: int) -> None:
        super().__init__(len(squared), seed)
        self._squared = squared
        self._means = squared.mean(axis=1, dtype=np.float64)

    def squared_from(self, chosen: Indices) -> Floats:
        return self._squared[chosen].astype(np.float64)

    def all_squared(self) -> Array:
        return self._squared

    def vectors(self, size: int) -> Array:
        wanted = self.count - 1 if self.count <= _DENSE_UP_TO else min(size, self.count - 1)
        return self.principal_coordinates(max(wanted, 1))[0].astype(np.float32)

    def _centered_product(self, vector: Floats) -> Floats:
        pulled = self._squared @ vector.astype(np.float32)
        centered = pulled - self._means * vector.sum() - self._means @ vector + self._means.mean() * vector.sum()
        product: Floats = -0.5 * centered
        return product

    def _variance(self) -> float:
        return float(self._means.sum() / 2)
