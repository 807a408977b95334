"""From points to coordinates: t-SNE and the other methods, as one generator."""

from __future__ import annotations

import warnings
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from gramlet.embed.settings import MapSettings, Method
from gramlet.errors import FailedPrecondition, counted
from scipy.sparse import SparseEfficiencyWarning
from sklearn.manifold import MDS, Isomap, LocallyLinearEmbedding

from gramlet_server.embed import tsne
from gramlet_server.embed.geometry import Floats, Points
from gramlet_server.embed.tsne import State

_COORDINATES = 256
"""Where a method needs vectors and only distances are known, it gets so many principal coordinates."""
_DENSE_UP_TO = 1000
_START_SPREAD = 1e-4
_ITERATIONS_FROM_MAP = 250


@dataclass(frozen=True)
class NeighborsFound:
    """The nearest neighbors are known; the share of them that is true."""

    recall: float


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
    too_few = f"{counted(items, 'item')} {'is' if items == 1 else 'are'} too few"
    largest = max((items - 1) / 3, 1.0)
    perplexities = tuple(dict.fromkeys(min(perplexity, largest) for perplexity in settings.tsne.perplexities))
    if settings.method is Method.TSNE and max(settings.tsne.perplexities) > largest:
        asked = ", ".join(f"{perplexity:g}" for perplexity in settings.tsne.perplexities)
        used = ", ".join(f"{perplexity:.3g}" for perplexity in perplexities)
        notes.append(f"{too_few} for perplexity {asked}: {used} was used.")
    neighbors = min(settings.neighbors, max(items - 1, 1))
    if settings.method in (Method.UMAP, Method.ISOMAP, Method.LLE) and neighbors != settings.neighbors:
        notes.append(f"{too_few} for {settings.neighbors} neighbors: {neighbors} were used.")
    method = settings.method
    if items < settings.dimensions + 2 and method is not Method.PCA:
        notes.append(f"{too_few} for {method.value}: they were laid out by principal coordinates.")
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
    points: Points,
    settings: MapSettings,
    *,
    start: Floats | None = None,
    states: Mapping[int, State] | None = None,
    done: Container[int] = (),
    report_every: int = 10,
) -> Iterator[NeighborsFound | LayoutProgress | FinishedLayout]:
    """Computes every layout, one after the other. Closing the generator stops the work within one iteration.

    Args:
        points: N items.
        settings: As `fit_to_items` returned them.
        start: (N, d) coordinates from which t-SNE starts, best with `fit_to_start`; None: the principal ones.
        states: For each layout whose descent was interrupted, the state from which it continues.
        done: Layouts that exist already.
        report_every: Iterations between two divergences.
    """
    if settings.method is Method.TSNE:
        yield from _tsne_layouts(points, settings, start, states or {}, done, report_every)
    elif 0 not in done:
        yield FinishedLayout(0, _other_layout(points, settings))


def check_installed(method: Method) -> None:
    """Checks that a method can be used on this server.

    Raises:
        FailedPrecondition: It is UMAP, which is an optional extra and not installed here.
    """
    if method is Method.UMAP:
        _umap()


def neighbors_for(settings: MapSettings, items: int) -> int:
    """How many nearest neighbors of each item the method uses; 0 if it uses all distances."""
    if settings.method is Method.TSNE:
        return min(items - 1, max(int(3 * max(settings.tsne.perplexities)), 1))
    return min(items - 1, max(settings.neighbors, 2)) if settings.method is Method.UMAP else 0


def _tsne_layouts(
    points: Points,
    settings: MapSettings,
    start: Floats | None,
    states: Mapping[int, State],
    done: Container[int],
    report_every: int,
) -> Iterator[NeighborsFound | LayoutProgress | FinishedLayout]:
    tuning = settings.tsne
    wanted = [number for number in range(len(tuning.perplexities)) if number not in done]
    if not wanted:
        return
    indices, distances = points.nearest(neighbors_for(settings, points.count))
    yield NeighborsFound(points.recall(indices) if points.approximates else 1.0)
    for layout in wanted:
        perplexity = tuning.perplexities[layout]
        k = min(points.count - 1, max(int(3 * perplexity), 1))
        near = np.ascontiguousarray(indices[:, :k]), np.ascontiguousarray(distances[:, :k])  # copies of a part only
        probabilities = tsne.affinities(*near, perplexity)
        del near
        if layout == wanted[-1]:
            del indices, distances
        state = states.get(layout) or State.start(_first_coordinates(points, settings, start))
        divergence = 0.0
        for step in tsne.descend(probabilities, state, tuning, report_every):
            state = step.state
            divergence = divergence if step.kl_divergence is None else step.kl_divergence
            yield LayoutProgress(layout, perplexity, state.iteration, tuning.iterations, step.kl_divergence, state)
        yield FinishedLayout(layout, state.coordinates, perplexity, divergence)


def _first_coordinates(points: Points, settings: MapSettings, start: Floats | None) -> Floats:
    """The given start, or else principal coordinates scaled down to a tiny spread.

    A little noise separates items whose coordinates are equal: t-SNE has no gradient between them.
    """
    noise = np.random.default_rng(settings.seed).normal(size=(points.count, settings.dimensions))
    if start is not None:
        return start + noise * 1e-3 * max(float(start.std()), 1e-6)
    coordinates, _ = points.principal_coordinates(settings.dimensions)
    spread = float(coordinates[:, 0].std())
    if spread > 0:
        coordinates *= _START_SPREAD / spread
    return coordinates + noise * _START_SPREAD * 1e-2


def _other_layout(points: Points, settings: MapSettings) -> Floats:
    methods = {Method.LLE: _lle, Method.ISOMAP: _isomap, Method.MDS: _mds, Method.UMAP: _umap_layout}
    if settings.method is Method.PCA:
        return points.principal_coordinates(settings.dimensions)[0]
    return methods[settings.method](points, settings)


def _random_state(seed: int) -> int:
    """What scikit-learn and umap-learn take for a seed."""
    return seed % 2**32


def _mds(points: Points, settings: MapSettings) -> Floats:
    first, _ = points.principal_coordinates(settings.dimensions)
    scaling = MDS(
        n_components=settings.dimensions,
        metric="precomputed",
        metric_mds=True,
        n_init=1,
        init="random",
        random_state=_random_state(settings.seed),
    )
    return np.asarray(scaling.fit_transform(np.sqrt(points.all_squared(), dtype=np.float64), init=first))


def _isomap(points: Points, settings: MapSettings) -> Floats:
    isomap = Isomap(
        n_neighbors=settings.neighbors, n_components=settings.dimensions, metric="precomputed", eigen_solver="dense"
    )
    with warnings.catch_warnings():
        # If the graph of neighbors is not connected, scikit-learn joins its parts by their shortest links, and warns.
        warnings.filterwarnings("ignore", message="The number of connected components", category=UserWarning)
        warnings.simplefilter("ignore", SparseEfficiencyWarning)
        return np.asarray(isomap.fit_transform(np.sqrt(points.all_squared(), dtype=np.float64)))


def _lle(points: Points, settings: MapSettings) -> Floats:
    embedding = LocallyLinearEmbedding(
        n_neighbors=settings.neighbors,
        n_components=settings.dimensions,
        eigen_solver="dense" if points.count <= _DENSE_UP_TO else "arpack",
        random_state=_random_state(settings.seed),
    )
    return np.asarray(embedding.fit_transform(points.vectors(_COORDINATES)))


def _umap_layout(points: Points, settings: MapSettings) -> Floats:
    reducer = umap_of(settings)
    with umap_warnings():
        return np.asarray(reducer.fit_transform(points.vectors(_COORDINATES)), dtype=np.float64)


def umap_of(settings: MapSettings, **changed: Any) -> Any:
    """An `umap.UMAP` that is not fitted yet."""
    return _umap().UMAP(
        n_neighbors=max(settings.neighbors, 2),
        n_components=settings.dimensions,
        random_state=_random_state(settings.seed),
        n_jobs=1,
        **changed,
    )


@contextmanager
def umap_warnings() -> Iterator[None]:
    """UMAP warns of what it does with few or separate items, and its libraries of themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _umap() -> Any:  # umap-learn is an optional extra
    try:
        with umap_warnings():
            import umap
    except ImportError:
        raise FailedPrecondition(
            "UMAP is not installed on this server: pip install 'gramlet-server[umap]'", field="start.settings.method"
        ) from None
    return umap
