"""t-SNE from distances (van der Maaten and Hinton, 2008), as a generator that can be watched, stopped and resumed.

Affinities, Barnes-Hut and interpolation are openTSNE's. The descent is written here because it must stop within one
iteration, and must continue from a stored state bit for bit. Its constants are those of openTSNE and scikit-learn. Up
to a few thousand items, computing all pairs in single precision, in strips that fit the cache, is faster than any tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from gramlet.embed.settings import Gradient, Tsne
from gramlet.errors import FailedPrecondition
from gramlet.types import Array
from numpy.typing import NDArray
from openTSNE.affinity import joint_probabilities_nn
from openTSNE.tsne import kl_divergence_bh, kl_divergence_fft
from scipy.linalg import orthogonal_procrustes
from scipy.sparse import csr_matrix, triu

from gramlet_server.embed.geometry import Floats, Points
from gramlet_server.embed.threads import one_thread

EXACT_GRADIENT_UP_TO = 4000
"""Items up to which the gradient is that of all pairs, unless the caller wants otherwise."""
_STRIP_ELEMENTS = 64 * 1024
_MIN_GAIN = 0.01
_MAX_STEP = 5.0
_EARLY_MOMENTUM = 0.5
_MOMENTUM = 0.8
_NEIGHBORS_OF_NEW = 5
# openTSNE's settings for new items: small steps, because a new item starts close to its final point.
_TRANSFORM_ITERATIONS = 250
_TRANSFORM_RATE = 0.1
_TRANSFORM_GRADIENT = 0.25
_LARGEST_COORDINATE = 1e5
_MOST_INTERVALS = 400
_INTERPOLATION = {"n_interpolation_points": 3, "min_num_intervals": 50, "ints_in_interval": 1}

Force = Callable[[Floats, float, bool], tuple[float, Floats]]
"""(coordinates (N, d), exaggeration, whether to compute the divergence) → (divergence or nan, ¼ of its gradient)."""


@dataclass(frozen=True)
class State:
    """The whole state of a descent: coordinates, update and gains, (N, d) each, and how many iterations are done."""

    coordinates: Floats
    update: Floats
    gains: Floats
    iteration: int = 0

    @classmethod
    def start(cls, coordinates: Floats) -> State:
        """The state before the first iteration."""
        return cls(coordinates.astype(np.float64), np.zeros(coordinates.shape), np.ones(coordinates.shape))


@dataclass(frozen=True)
class Step:
    """One iteration is done. The divergence is None where it was not computed; it never contains the exaggeration."""

    state: State
    kl_divergence: float | None


@dataclass(frozen=True)
class EarlierLayout:
    """The layout of an earlier map, from which t-SNE starts on a set that has grown since.

    Attributes:
        rows: For each of the N items, its row on the earlier map; None for a new one. At least one is not new.
        coordinates: (M, d), of the earlier map.
    """

    rows: tuple[int | None, ...]
    coordinates: Floats

    def initial_coordinates(self, points: Points) -> Floats:
        """Where t-SNE starts, (N, d): an item of the earlier map at its old point, a new one among its neighbors.

        A new item starts at the mean of its nearest items of the earlier map, weighted by inverse squared distance.
        """
        known, old = self._matched()
        start = np.empty((len(self.rows), self.coordinates.shape[1]))
        start[known] = old
        for i, row in enumerate(self.rows):
            if row is None:
                (squared,) = points.squared_from(np.array([i]))
                near = known[np.argsort(squared[known], kind="stable")[:_NEIGHBORS_OF_NEW]]
                weights = 1.0 / (squared[near] + 1e-12 * (squared.max() + 1e-30))
                start[i] = weights @ start[near] / weights.sum()
        return start

    def align(self, coordinates: Floats) -> Floats:
        """Rotates, mirrors and shifts a layout (N, d) onto the earlier one (orthogonal Procrustes; Schönemann, 1966).

        The sum of squared shifts of the items of the earlier map becomes the least possible. The distances on the
        layout do not change.
        """
        known, old = self._matched()
        new = coordinates[known]
        rotation, _ = orthogonal_procrustes(new - new.mean(axis=0), old - old.mean(axis=0))
        aligned: Floats = (coordinates - new.mean(axis=0)) @ rotation + old.mean(axis=0)
        return aligned

    @property
    def known(self) -> int:
        """How many items are not new."""
        return sum(row is not None for row in self.rows)

    def _matched(self) -> tuple[NDArray[np.intp], Floats]:
        """The numbers of the items of the earlier map, and their coordinates there."""
        known = np.array([i for i, row in enumerate(self.rows) if row is not None])
        return known, self.coordinates[[row for row in self.rows if row is not None]]


def affinities(neighbors: NDArray[np.intp], distances: Floats, perplexity: float) -> csr_matrix:
    """Joint probabilities (N, N) from each item's nearest neighbors and their distances, (N, k) each, nearest first."""
    # The scale has no effect on the probabilities, and extreme ones end openTSNE's search too early.
    scale = float(distances.mean())
    found = joint_probabilities_nn(neighbors, distances / scale if scale > 0 else distances, [perplexity], n_jobs=1)
    assert np.isfinite(found.data).all(), "affinities of finite distances are finite"
    return found


def descend(probabilities: csr_matrix, state: State, settings: Tsne, report_every: int) -> Iterator[Step]:
    """Gradient descent from `state` to the last iteration; yields after each iteration.

    The divergence is computed every `report_every` iterations and at the last one. It is that of the coordinates
    before the iteration's step.

    Raises:
        FailedPrecondition: The layout grew without bound, which a smaller learning rate prevents.
    """
    force = _force(probabilities, state.coordinates.shape, settings)
    while state.iteration < settings.iterations:
        iteration = state.iteration + 1
        early = iteration <= settings.early_iterations
        exaggeration = settings.early_exaggeration if early else 1.0
        wanted = iteration % report_every == 0 or iteration == settings.iterations
        divergence, gradient = force(state.coordinates, exaggeration, wanted)
        rate = settings.learning_rate or len(gradient) / exaggeration
        state = _stepped(state, gradient, rate, _EARLY_MOMENTUM if early else _MOMENTUM)
        state = replace(state, coordinates=state.coordinates - state.coordinates.mean(axis=0))
        _check_extent(state, rate)
        yield Step(state, divergence if wanted else None)


def _check_extent(state: State, rate: float) -> None:
    """No native code gets coordinates that are not finite, or so far apart that its grid fills the memory."""
    if not np.abs(state.coordinates).max() <= _LARGEST_COORDINATE:  # false for NaN
        raise FailedPrecondition(
            f"the layout grew beyond {_LARGEST_COORDINATE:.0e} in iteration {state.iteration}: "
            f"lower the learning rate, which was {rate:g}, or the number of iterations",
            field="start.settings.tsne.learning_rate",
        )


def _stepped(state: State, gradient: Floats, rate: float, momentum: float) -> State:
    """One step with momentum and a gain for each coordinate (delta-bar-delta; Jacobs, 1988)."""
    downhill = np.sign(state.update) != np.sign(gradient)
    gains = np.maximum(np.where(downhill, state.gains + 0.2, state.gains * 0.8 + _MIN_GAIN), _MIN_GAIN)
    update = momentum * state.update - rate * gains * gradient
    length = np.linalg.norm(update, axis=1, keepdims=True)
    update *= np.minimum(1.0, _MAX_STEP / np.maximum(length, 1e-12))
    return State(state.coordinates + update, update, gains, state.iteration + 1)


def _force(probabilities: csr_matrix, shape: tuple[int, ...], settings: Tsne) -> Force:
    items, dimensions = shape
    chosen = settings.gradient
    if chosen is Gradient.AUTO:
        large = Gradient.INTERPOLATION if dimensions <= 2 else Gradient.BARNES_HUT
        chosen = Gradient.EXACT if items <= EXACT_GRADIENT_UP_TO else large
    if chosen is Gradient.EXACT:
        return AllPairs(probabilities)
    if chosen is Gradient.BARNES_HUT:
        return _Approximate(probabilities, kl_divergence_bh, {"bh_params": {"theta": settings.angle}})
    return _Approximate(probabilities, kl_divergence_fft, {"fft_params": _INTERPOLATION})


class AllPairs:
    """The force from all pairs, in float32, one strip of rows at a time; the pairs (i, j) and (j, i) share one kernel.

    With W = 1 / (1 + |yᵢ - yⱼ|²) and Z = Σ W, a quarter of the gradient is Σⱼ (a Pᵢⱼ - Wᵢⱼ / Z) Wᵢⱼ (yᵢ - yⱼ).
    """

    def __init__(self, probabilities: csr_matrix) -> None:
        self._p: Array = probabilities.astype(np.float32).toarray()
        data = probabilities.data
        self._negative_entropy = float(np.sum(data * np.log(np.maximum(data, 1e-300))))
        above = triu(probabilities, format="coo")  # the probabilities are symmetric
        self._rows, self._columns, self._data = above.row, above.col, 2 * above.data

    def __call__(self, coordinates: Floats, exaggeration: float, wanted: bool) -> tuple[float, Floats]:
        with one_thread():
            z, gradient = self._force(coordinates, exaggeration)
            return (self._divergence(coordinates, z) if wanted else float("nan")), gradient

    def _force(self, coordinates: Floats, exaggeration: float) -> tuple[float, Floats]:
        y = (coordinates - coordinates.mean(axis=0)).astype(np.float32)
        norms = np.einsum("ij,ij->i", y, y)
        one = np.ones_like(norms)
        left = np.column_stack([y, one, norms])
        right = np.ascontiguousarray(np.column_stack([-2 * y, norms + 1, one]).T)
        sources = np.column_stack([y, one])
        attraction, repulsion = np.zeros_like(sources), np.zeros_like(sources)
        z = -float(len(y))  # the diagonal, where W is 1, does not count
        rows = max(16, _STRIP_ELEMENTS // len(y))
        for start in range(0, len(y), rows):
            strip, rest = slice(start, start + rows), slice(start + rows, None)
            width = min(rows, len(y) - start)
            w = left[strip] @ right[:, start:]  # (rows, N - start): 1 + squared distance
            np.reciprocal(w, out=w)
            z += 2 * float((w @ one[start:]).sum(dtype=np.float64)) - float(w[:, :width].sum(dtype=np.float64))
            pull = self._p[strip, start:] * w
            attraction[strip] += pull @ sources[start:]
            attraction[rest] += pull[:, width:].T @ sources[strip]
            np.square(w, out=w)
            repulsion[strip] += w @ sources[start:]
            repulsion[rest] += w[:, width:].T @ sources[strip]
        pulled = attraction[:, -1:] * y - attraction[:, :-1]
        pushed = repulsion[:, -1:] * y - repulsion[:, :-1]
        gradient = exaggeration * pulled.astype(np.float64) - pushed.astype(np.float64) / z
        return z, gradient

    def _divergence(self, coordinates: Floats, z: float) -> float:
        difference = coordinates[self._rows] - coordinates[self._columns]
        spread = np.log1p(np.einsum("ij,ij->i", difference, difference))
        return self._negative_entropy + float(self._data @ spread) + float(np.log(z))


class _Approximate:
    """The force by one of openTSNE's approximations."""

    def __init__(
        self, probabilities: csr_matrix, kernel: Callable[..., tuple[float, Floats]], parameters: dict[str, object]
    ) -> None:
        self._p = probabilities
        self._exaggerated: tuple[float, csr_matrix] = (1.0, probabilities)
        self._kernel = kernel
        self._parameters = parameters

    def __call__(self, coordinates: Floats, exaggeration: float, wanted: bool) -> tuple[float, Floats]:
        if self._exaggerated[0] != exaggeration:
            self._exaggerated = (exaggeration, self._p * exaggeration)
        parameters = self._parameters
        if "fft_params" in parameters:
            # A cell of the grid has side 1 up to an extent of 400, and is larger beyond, which bounds the memory.
            side = max(1.0, float(np.ptp(coordinates, axis=0).max()) / _MOST_INTERVALS)
            parameters = {"fft_params": {**_INTERPOLATION, "ints_in_interval": side}}
        # openTSNE starts new threads in every iteration, which costs more time than they save.
        divergence, gradient = self._kernel(
            np.ascontiguousarray(coordinates),
            self._exaggerated[1],
            dof=1,
            should_eval_error=wanted,
            n_jobs=1,
            **parameters,
        )
        return divergence / exaggeration - float(np.log(exaggeration)), gradient


def transform(neighbors: NDArray[np.intp], distances: Floats, layout: Floats, perplexity: float) -> Floats:
    """The coordinates (d,) of a new item on a t-SNE layout, which stays as it is.

    The item starts at the weighted mean of its nearest neighbors. The descent minimizes the divergence between its
    neighborhood among the items and on the layout (Poličar, Stražar and Zupan, 2023). Other new items have no effect.

    Args:
        neighbors: (k,) row numbers of the nearest items of the layout, nearest first.
        distances: (k,) their distances.
        layout: (N, d) coordinates.
        perplexity: Of the new item's neighborhood.
    """
    found = joint_probabilities_nn(
        neighbors[None],
        distances[None],
        [perplexity],
        symmetrize=False,
        normalization="point-wise",
        n_reference_samples=len(layout),
        n_jobs=1,
    )
    probabilities = found.toarray().ravel()
    state = State.start((probabilities @ layout)[None])
    for _ in range(_TRANSFORM_ITERATIONS):
        away = state.coordinates - layout  # (N, d)
        kernel = 1.0 / (1.0 + np.einsum("ij,ij->i", away, away))
        gradient = ((probabilities - kernel / kernel.sum()) * kernel) @ away
        gradient *= min(1.0, _TRANSFORM_GRADIENT / max(float(np.linalg.norm(gradient)), 1e-12))
        state = _stepped(state, gradient[None], _TRANSFORM_RATE, _MOMENTUM)
    moved: Floats = state.coordinates[0]
    return moved


def interpolate(neighbors: NDArray[np.intp], distances: Floats, layout: Floats) -> Floats:
    """The coordinates (d,) of a new item on a layout of another method: its neighbors' mean, by inverse distance.

    Arguments as for `transform`.
    """
    weights = 1.0 / np.maximum(distances, 1e-9 * max(float(distances.max()), 1e-30))
    mean: Floats = weights @ layout[neighbors] / weights.sum()
    return mean
