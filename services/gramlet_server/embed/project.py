"""From distances to coordinates: t-SNE and the other methods, behind one generator.

Every method starts from squared distances. Where an implementation wants vectors, it gets principal coordinates, which
have the same distances.
"""

from __future__ import annotations

import warnings
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from gramlet.embed.settings import Gradient, MapSettings, Method
from gramlet.errors import FailedPrecondition, InvalidInput
from gramlet.types import Array
from numpy.typing import NDArray
from scipy.linalg import eigh, orthogonal_procrustes
from scipy.sparse import SparseEfficiencyWarning
from scipy.sparse.linalg import LinearOperator, eigsh
from sklearn.manifold import MDS, Isomap, LocallyLinearEmbedding

from gramlet_server.embed import tsne
from gramlet_server.embed.threads import one_thread
from gramlet_server.embed.tsne import Floats, State

_DENSE_UP_TO = 1000
_LLE_COORDINATES = 256
_START_SPREAD = 1e-4
_GENTLE_ITERATIONS = 250


@dataclass(frozen=True)
class Progress:
    """One iteration of a layout is done."""

    layout: int
    perplexity: float
    iteration: int
    iterations: int
    kl_divergence: float | None
    state: State


@dataclass(frozen=True)
class Arranged:
    """A layout is done. (N, d); perplexity and divergence are 0 but for t-SNE."""

    layout: int
    coordinates: Floats
    perplexity: float = 0.0
    kl_divergence: float = 0.0


def check(settings: MapSettings) -> None:
    """Checks what the projection can check before there is any item.

    Raises:
        InvalidInput: A setting is out of its range.
        FailedPrecondition: UMAP is not installed here.
    """
    rules = {
        "dimensions": (1 <= settings.dimensions <= 3, "is 1, 2 or 3"),
        "neighbors": (settings.neighbors >= 1, "is at least 1"),
        "quality_neighbors": (settings.quality_neighbors >= 1, "is at least 1"),
        "sketch_size": (settings.sketch_size >= 64, "is at least 64"),
        "tsne.perplexities": (
            bool(settings.tsne.perplexities) and all(1 <= p < np.inf for p in settings.tsne.perplexities),
            "are numbers from 1 on, at least one",
        ),
        "tsne.iterations": (settings.tsne.iterations >= 1, "is at least 1"),
        "tsne.early_exaggeration": (settings.tsne.early_exaggeration >= 1, "is at least 1"),
        "tsne.learning_rate": (settings.tsne.learning_rate is None or settings.tsne.learning_rate > 0, "is positive"),
        "tsne.angle": (0 <= settings.tsne.angle <= 1, "lies between 0 and 1"),
        "tsne.gradient": (
            settings.dimensions <= 2 or settings.tsne.gradient is not Gradient.INTERPOLATION,
            "by interpolation has at most 2 dimensions",
        ),
    }
    for name, (right, rule) in rules.items():
        if not right:
            raise InvalidInput(f"{name.rpartition('.')[2]} {rule}", field=f"start.settings.{name}")
    if settings.method is Method.UMAP:
        _umap()


def fitted(settings: MapSettings, items: int) -> tuple[MapSettings, tuple[str, ...]]:
    """The settings that so few items allow, and a note on each that had to change."""
    notes: list[str] = []
    most = max((items - 1) / 3, 1.0)
    perplexities = tuple(dict.fromkeys(min(p, most) for p in settings.tsne.perplexities))
    if settings.method is Method.TSNE and perplexities != settings.tsne.perplexities:
        asked = ", ".join(f"{p:g}" for p in settings.tsne.perplexities)
        used = ", ".join(f"{p:.3g}" for p in perplexities)
        notes.append(f"{items} items are too few for perplexity {asked}: {used} was used.")
    neighbors = min(settings.neighbors, max(items - 1, 1))
    if settings.method in (Method.UMAP, Method.ISOMAP, Method.LLE) and neighbors != settings.neighbors:
        notes.append(f"{items} items are too few for {settings.neighbors} neighbors: {neighbors} were used.")
    method = settings.method
    least = settings.dimensions + 2
    if items < least and method is not Method.PCA:
        notes.append(f"{items} items are too few for {method.value}: they were laid out by principal coordinates.")
        method = Method.PCA
    changed = replace(settings, method=method, neighbors=neighbors)
    return replace(changed, tsne=replace(settings.tsne, perplexities=perplexities)), tuple(notes)


def gentle(settings: MapSettings, items: int) -> MapSettings:
    """The settings for a start from an old map, which is to be recognised afterwards.

    No early exaggeration, which would fold the old map up; and a short descent in small steps, since long ones wander
    on among maps that are equally good.
    """
    tuning = settings.tsne
    return replace(
        settings,
        tsne=replace(
            tuning,
            early_iterations=0,
            iterations=min(tuning.iterations, _GENTLE_ITERATIONS),
            learning_rate=tuning.learning_rate or items / tuning.early_exaggeration,
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
) -> Iterator[Progress | Arranged]:
    """Makes every layout, one after the other; closing the generator stops the work within one iteration.

    Args:
        squared: (N, N) squared distances.
        settings: As `fitted` returned them.
        start: (N, d) coordinates from which t-SNE starts, best with `gentle` settings; None: the principal ones.
        states: By layout, states from which an interrupted descent goes on.
        done: Layouts that exist already.
        report_every: Iterations between divergences.
    """
    if settings.method is Method.TSNE:
        yield from _tsne_layouts(squared, settings, start, states or {}, done, report_every)
    else:
        yield Arranged(0, _other_layout(squared, settings))


def principal_coordinates(squared: Array, dimensions: int, seed: int) -> tuple[Floats, float]:
    """Classical scaling (Torgerson, 1952): kernel PCA of the centred inner products.

    Returns:
        (N, dimensions) coordinates, axes in order of decreasing variance, and the share of the variance they hold.
        Of each axis's two directions, the one whose largest coordinate is positive.
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
    """Of the centred inner products, which are never written out: matrix-vector products suffice."""

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
    """Each item's k nearest others, nearest first, and their distances: (N, k) each."""
    indices = np.empty((len(squared), k), np.intp)
    distances = np.empty((len(squared), k))
    for i, row in enumerate(squared):
        others = row.copy()
        others[i] = np.inf
        found = np.argpartition(others, k - 1)[:k] if k < len(row) - 1 else np.flatnonzero(others < np.inf)
        found = found[np.lexsort((found, others[found]))]
        indices[i], distances[i] = found, np.sqrt(others[found])
    return indices, distances


def grown_start(squared: Array, old: Sequence[int | None], old_coordinates: Floats, neighbors: int = 5) -> Floats:
    """Where the items of a grown set start: old ones at their old places, new ones among their nearest old ones.

    Args:
        squared: (N, N).
        old: Per item, its row on the old map, or None.
        old_coordinates: (M, d).

    Returns:
        (N, d).
    """
    known = np.array([i for i, row in enumerate(old) if row is not None])
    start = np.empty((len(old), old_coordinates.shape[1]))
    start[known] = old_coordinates[[row for row in old if row is not None]]
    for i, row in enumerate(old):
        if row is None:
            to_known = squared[i, known].astype(np.float64)
            close = known[np.argsort(to_known, kind="stable")[:neighbors]]
            weights = 1.0 / (squared[i, close] + 1e-12 * (squared[i].max() + 1e-30))
            start[i] = weights @ start[close] / weights.sum()
    return start


def turned_onto(coordinates: Floats, old: Sequence[int | None], old_coordinates: Floats) -> Floats:
    """A layout (N, d) turned, mirrored and shifted so that the old items lie as near their old places as can be.

    Arguments as `grown_start`. Distances on the layout do not change (orthogonal Procrustes; Schönemann, 1966).
    """
    known = [i for i, row in enumerate(old) if row is not None]
    now, then = coordinates[known], old_coordinates[[row for row in old if row is not None]]
    rotation, _ = orthogonal_procrustes(now - now.mean(axis=0), then - then.mean(axis=0))
    turned: Floats = (coordinates - now.mean(axis=0)) @ rotation + then.mean(axis=0)
    return turned


def _tsne_layouts(
    squared: Array,
    settings: MapSettings,
    start: Floats | None,
    states: Mapping[int, State],
    done: Container[int],
    report_every: int,
) -> Iterator[Progress | Arranged]:
    items = len(squared)
    most = max(settings.tsne.perplexities)
    indices, distances = nearest(squared, min(items - 1, max(int(3 * most), 1)))
    for layout, perplexity in enumerate(settings.tsne.perplexities):
        if layout in done:
            continue
        k = min(items - 1, max(int(3 * perplexity), 1))
        probabilities = tsne.affinities(indices[:, :k].copy(), distances[:, :k].copy(), perplexity)
        state = states.get(layout) or State.start(_first_coordinates(squared, settings, start))
        tuning = settings.tsne
        divergence = 0.0
        for step in tsne.descend(probabilities, state, tuning, report_every):
            state = step.state
            divergence = divergence if step.kl_divergence is None else step.kl_divergence
            yield Progress(layout, perplexity, state.iteration, tuning.iterations, step.kl_divergence, state)
        yield Arranged(layout, state.coordinates, perplexity, divergence)


def _first_coordinates(squared: Array, settings: MapSettings, start: Floats | None) -> Floats:
    """The given start, or principal coordinates shrunk to almost a point; a trace of noise parts what coincides."""
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
    return _umap_layout(distances, settings)


def _isomap(distances: Floats, settings: MapSettings) -> Floats:
    isomap = Isomap(
        n_neighbors=settings.neighbors, n_components=settings.dimensions, metric="precomputed", eigen_solver="dense"
    )
    with warnings.catch_warnings():
        # Where the graph of neighbours falls apart, scikit-learn joins the parts by their shortest links, and warns.
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
            warnings.simplefilter("ignore", ImportWarning)  # of a part that would need another library
            import umap
    except ImportError:
        raise FailedPrecondition(
            "UMAP is not installed on this server: pip install 'gramlet-server[umap]'", field="start.settings.method"
        ) from None
    return umap
