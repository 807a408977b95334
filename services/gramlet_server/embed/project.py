"""From distances to coordinates: t-SNE and the other methods, as one generator.

Every method starts from squared distances. An implementation that needs vectors is given principal coordinates, which
have the same distances.
"""

from __future__ import annotations

import warnings
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from gramlet.embed.settings import MapSettings, Method
from gramlet.errors import FailedPrecondition
from gramlet.types import Array
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.sparse import SparseEfficiencyWarning
from scipy.sparse.linalg import LinearOperator, eigsh
from sklearn.manifold import MDS, Isomap, LocallyLinearEmbedding

from gramlet_server.embed import tsne
from gramlet_server.embed.threads import one_thread
from gramlet_server.embed.tsne import Floats, State

_DENSE_UP_TO = 1000
_LLE_COORDINATES = 256
_START_SPREAD = 1e-4
_ITERATIONS_FROM_MAP = 250


@dataclass(frozen=True)
class LayoutProgress:
    """One iteration of a layout is done. The divergence is None where it was not computed."""

    layout: int
    perplexity: float
    iteration: int
    iterations: int
    kl_divergence: float | None
    state: State


@dataclass(frozen=True)
class FinishedLayout:
    """The coordinates (N, d) of a layout. Perplexity and divergence are 0 except for t-SNE."""

    layout: int
    coordinates: Floats
    perplexity: float = 0.0
    kl_divergence: float = 0.0


def fit_to_items(settings: MapSettings, items: int) -> tuple[MapSettings, tuple[str, ...]]:
    """Lowers the settings to what a small number of items allows.

    Returns:
        The settings, and a note for each setting that was changed.
    """
    notes: list[str] = []
    largest = max((items - 1) / 3, 1.0)
    perplexities = tuple(dict.fromkeys(min(perplexity, largest) for perplexity in settings.tsne.perplexities))
    if settings.method is Method.TSNE and perplexities != settings.tsne.perplexities:
        asked = ", ".join(f"{perplexity:g}" for perplexity in settings.tsne.perplexities)
        used = ", ".join(f"{perplexity:.3g}" for perplexity in perplexities)
        notes.append(f"{items} items are too few for perplexity {asked}: {used} was used.")
    neighbors = min(settings.neighbors, max(items - 1, 1))
    if settings.method in (Method.UMAP, Method.ISOMAP, Method.LLE) and neighbors != settings.neighbors:
        notes.append(f"{items} items are too few for {settings.neighbors} neighbors: {neighbors} were used.")
    method = settings.method
    if items < settings.dimensions + 2 and method is not Method.PCA:
        notes.append(f"{items} items are too few for {method.value}: they were laid out by principal coordinates.")
        method = Method.PCA
    tsne = replace(settings.tsne, perplexities=perplexities)
    return replace(settings, method=method, neighbors=neighbors, tsne=tsne), tuple(notes)


def fit_to_start(settings: MapSettings, items: int) -> MapSettings:
    """The settings for a descent that starts from an earlier map and has to stay recognizable.

    There is no early exaggeration, because it would collapse the earlier map. The descent is short and its steps are
    small, because a long one drifts to another map that is equally good.
    """
    tsne = settings.tsne
    return replace(
        settings,
        tsne=replace(
            tsne,
            early_iterations=0,
            iterations=min(tsne.iterations, _ITERATIONS_FROM_MAP),
            learning_rate=tsne.learning_rate or items / tsne.early_exaggeration,
        ),
    )


def layouts(
    squared: Array,
    settings: MapSettings,
    *,
    start: Floats | None = None,
    states: Mapping[int, State] | None = None,
    done: Container[int] = (),
    report_every: int = 10,
) -> Iterator[LayoutProgress | FinishedLayout]:
    """Computes every layout, one after the other. Closing the generator stops the work within one iteration.

    Args:
        squared: (N, N) squared distances.
        settings: As `fit_to_items` returned them.
        start: (N, d) coordinates from which t-SNE starts, best with `fit_to_start`; None: the principal ones.
        states: For each layout whose descent was interrupted, the state from which it continues.
        done: Layouts that exist already.
        report_every: Iterations between two divergences.
    """
    if settings.method is Method.TSNE:
        yield from _tsne_layouts(squared, settings, start, states or {}, done, report_every)
    elif 0 not in done:
        yield FinishedLayout(0, _other_layout(squared, settings))


def check_installed(method: Method) -> None:
    """Checks that a method can be used on this server.

    Raises:
        FailedPrecondition: It is UMAP, which is an optional extra and not installed here.
    """
    if method is Method.UMAP:
        _umap()


def principal_coordinates(squared: Array, dimensions: int, seed: int) -> tuple[Floats, float]:
    """Classical scaling (Torgerson, 1952): kernel PCA of the centered inner products.

    Args:
        squared: (N, N) squared distances.
        dimensions: How many coordinates; those beyond N - 1 are 0.
        seed: Of the iterative solver for large N.

    Returns:
        (N, dimensions) coordinates, and the share of the variance that they hold, 0 to 1. The axes come in order of
        decreasing variance; on each axis the coordinate of largest magnitude is positive.
    """
    items = len(squared)
    wanted = min(dimensions, max(items - 1, 1))
    rows = squared.mean(axis=1, dtype=np.float64)
    total = rows.sum() / 2
    if items <= _DENSE_UP_TO:
        products = -0.5 * (squared.astype(np.float64) - rows[:, None] - rows[None, :] + rows.mean())
        with one_thread():
            values, vectors = eigh(products, subset_by_index=(items - wanted, items - 1))
    else:
        values, vectors = _largest_eigenpairs(squared, rows, wanted, seed)
    values, vectors = values[::-1], vectors[:, ::-1]
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(wanted)]
    coordinates = np.zeros((items, dimensions))
    coordinates[:, :wanted] = vectors * np.sqrt(np.maximum(values, 0.0)) * np.where(largest < 0, -1.0, 1.0)
    return coordinates, float(np.maximum(values, 0.0).sum() / total) if total > 0 else 1.0


def _largest_eigenpairs(squared: Array, rows: Floats, wanted: int, seed: int) -> tuple[Floats, Floats]:
    """The largest eigenpairs of the centered inner products, by Lanczos iteration: it needs products with vectors."""

    def product(vector: Floats) -> Floats:
        flat = vector.ravel()
        total = flat.sum()
        pulled = squared @ flat.astype(np.float32)
        result: Floats = -0.5 * (pulled - rows * total - (rows @ flat) + rows.mean() * total)
        return result

    operator = LinearOperator(squared.shape, matvec=product, dtype=np.float64)
    first = np.random.default_rng(seed).normal(size=len(squared))
    values, vectors = eigsh(operator, k=wanted, which="LA", v0=first, tol=1e-4)
    order = np.argsort(values)
    return values[order], vectors[:, order]


def nearest(squared: Array, k: int) -> tuple[NDArray[np.intp], Floats]:
    """Each item's k nearest other items, nearest first, and their distances: (N, k) each."""
    indices = np.empty((len(squared), k), np.intp)
    distances = np.empty((len(squared), k))
    for i, row in enumerate(squared):
        others = row.copy()
        others[i] = np.inf
        found = np.argpartition(others, k - 1)[:k] if k < len(row) - 1 else np.flatnonzero(others < np.inf)
        found = found[np.lexsort((found, others[found]))]
        indices[i], distances[i] = found, np.sqrt(others[found])
    return indices, distances


def _tsne_layouts(
    squared: Array,
    settings: MapSettings,
    start: Floats | None,
    states: Mapping[int, State],
    done: Container[int],
    report_every: int,
) -> Iterator[LayoutProgress | FinishedLayout]:
    items, tuning = len(squared), settings.tsne

    def neighbors_for(perplexity: float) -> int:
        return min(items - 1, max(int(3 * perplexity), 1))

    indices, distances = nearest(squared, neighbors_for(max(tuning.perplexities)))
    for layout, perplexity in enumerate(tuning.perplexities):
        if layout in done:
            continue
        k = neighbors_for(perplexity)
        probabilities = tsne.affinities(indices[:, :k].copy(), distances[:, :k].copy(), perplexity)
        state = states.get(layout) or State.start(_first_coordinates(squared, settings, start))
        divergence = 0.0
        for step in tsne.descend(probabilities, state, tuning, report_every):
            state = step.state
            divergence = divergence if step.kl_divergence is None else step.kl_divergence
            yield LayoutProgress(layout, perplexity, state.iteration, tuning.iterations, step.kl_divergence, state)
        yield FinishedLayout(layout, state.coordinates, perplexity, divergence)


def _first_coordinates(squared: Array, settings: MapSettings, start: Floats | None) -> Floats:
    """The given start, or else principal coordinates scaled down to a tiny spread.

    A little noise separates items whose coordinates are equal: t-SNE has no gradient between them.
    """
    noise = np.random.default_rng(settings.seed).normal(size=(len(squared), settings.dimensions))
    if start is not None:
        return start + noise * 1e-3 * max(float(start.std()), 1e-6)
    coordinates, _ = principal_coordinates(squared, settings.dimensions, settings.seed)
    spread = float(coordinates[:, 0].std())
    if spread > 0:
        coordinates *= _START_SPREAD / spread
    return coordinates + noise * _START_SPREAD * 1e-2


def _other_layout(squared: Array, settings: MapSettings) -> Floats:
    if settings.method is Method.PCA:
        return principal_coordinates(squared, settings.dimensions, settings.seed)[0]
    if settings.method is Method.LLE:
        return _lle(squared, settings)
    distances = np.sqrt(squared, dtype=np.float64)
    if settings.method is Method.ISOMAP:
        return _isomap(distances, settings)
    if settings.method is Method.MDS:
        return _mds(squared, distances, settings)
    return _umap_layout(distances, settings)


def _mds(squared: Array, distances: Floats, settings: MapSettings) -> Floats:
    first, _ = principal_coordinates(squared, settings.dimensions, settings.seed)
    scaling = MDS(
        n_components=settings.dimensions,
        metric="precomputed",
        metric_mds=True,
        n_init=1,
        init="random",
        random_state=settings.seed,
    )
    return np.asarray(scaling.fit_transform(distances, init=first))


def _isomap(distances: Floats, settings: MapSettings) -> Floats:
    isomap = Isomap(
        n_neighbors=settings.neighbors, n_components=settings.dimensions, metric="precomputed", eigen_solver="dense"
    )
    with warnings.catch_warnings():
        # If the graph of neighbors is not connected, scikit-learn joins its parts by their shortest links, and warns.
        warnings.filterwarnings("ignore", message="The number of connected components", category=UserWarning)
        warnings.simplefilter("ignore", SparseEfficiencyWarning)
        return np.asarray(isomap.fit_transform(distances))


def _lle(squared: Array, settings: MapSettings) -> Floats:
    items = len(squared)
    wanted = items - 1 if items <= _DENSE_UP_TO else _LLE_COORDINATES
    vectors, _ = principal_coordinates(squared, wanted, settings.seed)
    embedding = LocallyLinearEmbedding(
        n_neighbors=settings.neighbors,
        n_components=settings.dimensions,
        eigen_solver="dense" if items <= _DENSE_UP_TO else "arpack",
        random_state=settings.seed,
    )
    return np.asarray(embedding.fit_transform(vectors))


def _umap_layout(distances: Floats, settings: MapSettings) -> Floats:
    reducer = _umap().UMAP(
        n_neighbors=max(settings.neighbors, 2),
        n_components=settings.dimensions,
        metric="precomputed",
        random_state=settings.seed,
        n_jobs=1,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="using precomputed metric", category=UserWarning)
        return np.asarray(reducer.fit_transform(distances), dtype=np.float64)


def _umap() -> Any:  # umap-learn is an optional extra
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ImportWarning)  # a part of it would need another library
            import umap
    except ImportError:
        raise FailedPrecondition(
            "UMAP is not installed on this server: pip install 'gramlet-server[umap]'", field="start.settings.method"
        ) from None
    return umap
