"""Measures of how unlike its training pictures a picture is, compared on frozen features: a table of docs/heads.md.

    python -m tests.quality.heads hymenoptera=DIR flowers=DIR drawn:renditions --only typicality

Each measure is built on a half of a set. The threshold is the one that the other half exceeds with 5 % of its pictures,
so that all measures have the same false alarms. Measures of several stages are joined by their p-values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gramlet_server.backbone.network import Network
from gramlet_server.backbone.weights import load
from gramlet_server.feature.engine import Engine
from gramlet_server.train.classifier import extraction
from safetensors.torch import load_file
from scipy import stats

from tests.quality.sets import SIDE, Array, Folder

STAGES = ("layer2", "layer3", "layer4")
SEEDS, FALSE_ALARMS, FOLDS = (0, 1), 0.05, 5
MEAN, ROWS, POWER = range(3)
"""Statistics of a stage's channels: mean, row sums of the Gram matrix, and the mean of order 8."""

Score = Callable[[Array], Array]
"""Features (n, C) → (n,), larger where less typical."""
Build = Callable[[Array, Array], Score]
"""Training features (n, C) and labels (n,) → a score."""


def statistics(of: Folder, cache: Path, weights: str) -> dict[str, Array]:
    """By stage: (n, 3, C) statistics of its channels."""
    kept = cache / f"{of.name}-statistics.npz"
    if not kept.exists():
        engine = Engine(Network(load("resnet50", weights)))
        found: dict[str, list[Array]] = {stage: [] for stage in STAGES}
        for item in engine.extract((Path(file).read_bytes() for file in of.files), extraction(list(STAGES), SIDE)):
            for stage, maps in item.activations.items():
                flat = maps.reshape(len(maps), -1)
                rows = flat @ flat.sum(axis=0) / flat.shape[1]
                found[stage].append(np.stack([flat.mean(axis=1), rows, (flat**8).mean(axis=1) ** (1 / 8)]))
        engine.close()
        np.savez(kept, **{stage: np.array(values) for stage, values in found.items()})
    with np.load(kept) as stored:
        return {stage: stored[stage].astype(np.float64) for stage in STAGES}


# Measures


def nearest(count: int, roots: bool = False) -> Build:
    """Mean cosine distance to the nearest training pictures (Sun et al., ICML 2022)."""

    def build(x: Array, y: Array) -> Score:
        taken = (lambda a: unit(np.sqrt(a))) if roots else unit
        reference = taken(x)
        return lambda a: 1 - np.sort(taken(a) @ reference.T, axis=1)[:, -count:].mean(axis=1)

    return build


def of_unit(build: Build) -> Build:
    """A measure of the features at length 1 (Müller and Hein, ICML 2025)."""

    def built(x: Array, y: Array) -> Score:
        score = build(unit(x), y)
        return lambda a: score(unit(a))

    return built


def mahalanobis(x: Array, y: Array, *, by_class: bool = True, shrinkage: float = 0.3) -> Score:
    """Squared distance to the nearest class mean, or to the mean, under a covariance shrunk towards a multiple of the
    identity (Lee et al., NeurIPS 2018)."""
    means = np.array([x[y == c].mean(axis=0) for c in np.unique(y)]) if by_class else x.mean(axis=0)[None]
    residuals = x - (means[np.searchsorted(np.unique(y), y)] if by_class else means[0])
    _, singular, axes = np.linalg.svd(residuals, full_matrices=False)
    variances = singular**2 / len(x)
    rest = shrinkage * variances.sum() / x.shape[1]

    def distance(a: Array, mean: Array) -> Array:
        inside = (a - mean) @ axes.T
        outside = ((a - mean) ** 2).sum(axis=1) - (inside**2).sum(axis=1)
        return (inside**2 / ((1 - shrinkage) * variances + rest)).sum(axis=1) + outside / rest

    return lambda a: np.min([distance(a, mean) for mean in means], axis=0)


def relative_mahalanobis(x: Array, y: Array) -> Score:
    """Distance to the nearest class less that to all of them as one (Ren et al., 2021)."""
    classes, whole = mahalanobis(x, y), mahalanobis(x, y, by_class=False)
    return lambda a: classes(a) - whole(a)


def residual(x: Array, y: Array, components: int = 64) -> Score:
    """Length outside the principal components."""
    mean = x.mean(axis=0)
    axes = np.linalg.svd(x - mean, full_matrices=False)[2][:components]
    return lambda a: np.linalg.norm((a - mean) - (a - mean) @ axes.T @ axes, axis=1)


def gram_deviation(x: Array, y: Array) -> Score:
    """Relative deviation beyond the range of the nearest class in each channel (Sastry and Oore, ICML 2020). The range
    is from the 2nd to the 98th percentile, because half a set has few pictures of a class."""
    classes = np.unique(y)
    low, high = (np.array([np.percentile(x[y == c], q, axis=0) for c in classes]) for q in (2, 98))
    means = np.array([unit(x)[y == c].mean(axis=0) for c in classes])

    def score(a: Array) -> Array:
        own = (unit(a) @ means.T).argmax(axis=1)
        below, above = np.maximum(low[own] - a, 0), np.maximum(a - high[own], 0)
        return (below / (low[own] + 1e-9) + above / (high[own] + 1e-9)).sum(axis=1)

    return score


def of_imagenet(weights: str) -> dict[str, Build]:
    """Measures that need the network's own classifier of 1,000 classes, which gramlet does not load."""
    state = load_file(weights)
    w, b = (state[f"fc.{part}"].double().numpy() for part in ("weight", "bias"))

    def posterior(a: Array) -> Array:
        odds = np.exp(a @ w.T + b - (a @ w.T + b).max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)

    def energy(a: Array) -> Array:
        return np.logaddexp.reduce(a @ w.T + b, axis=1)

    def vim(x: Array, y: Array) -> Score:
        origin = -np.linalg.pinv(w) @ b
        axes = np.linalg.svd(x - origin, full_matrices=False)[2][:64]

        def outside(a: Array) -> Array:
            return np.linalg.norm((a - origin) - (a - origin) @ axes.T @ axes, axis=1)

        scale = (x @ w.T + b).max(axis=1).mean() / outside(x).mean()
        return lambda a: scale * outside(a) - energy(a)

    def likelihood(x: Array, y: Array) -> Score:
        prior = posterior(x).mean(axis=0)
        return lambda a: -np.log(posterior(a) @ prior + 1e-12)

    def prototypes(x: Array, y: Array) -> Score:
        near = nearest(10)(x, y)
        return lambda a: near(a) + (unit(a) @ unit(w).T).max(axis=1)

    return {
        "energy of ImageNet's logits": lambda x, y: lambda a: -energy(a),
        "ViM, 64 components (Wang et al., CVPR 2022)": vim,
        "ImageNet classes unusual in the training pictures": likelihood,
        "10 nearest, less the nearest ImageNet prototype": prototypes,
    }


def measures(weights: str) -> dict[str, tuple[tuple[str, ...], int, Build]]:
    """By name: the stages, the statistic of their channels, and the measure."""
    one = lambda x, y: mahalanobis(x, y, by_class=False)  # noqa: E731
    last: dict[str, tuple[int, Build]] = {
        "10 nearest, cosine (used)": (MEAN, nearest(10)),
        "nearest": (MEAN, nearest(1)),
        "10 nearest of roots": (MEAN, nearest(10, roots=True)),
        "Mahalanobis by class": (MEAN, mahalanobis),
        "Mahalanobis by class, unit vectors": (MEAN, of_unit(mahalanobis)),
        "relative Mahalanobis": (MEAN, relative_mahalanobis),
        "relative Mahalanobis, unit vectors": (MEAN, of_unit(relative_mahalanobis)),
        "residual after 64 components": (MEAN, residual),
        "residual after 64 components, unit vectors": (MEAN, of_unit(residual)),
        "Gram deviation": (ROWS, gram_deviation),
        "deviation of order 8": (POWER, gram_deviation),
        **{name: (MEAN, build) for name, build in of_imagenet(weights).items()},
    }
    several: dict[str, tuple[int, Build]] = {
        "10 nearest": (MEAN, nearest(10)),
        "Mahalanobis, unit vectors": (MEAN, of_unit(one)),
        "residual, unit vectors": (MEAN, of_unit(residual)),
        "Gram deviation": (ROWS, gram_deviation),
        "deviation of order 8": (POWER, gram_deviation),
    }
    found = {name: (("layer4",), *measure) for name, measure in last.items()}
    return found | {f"{name}, three stages": (STAGES, *measure) for name, measure in several.items()}


# Comparison


def compare(of: Folder, features: Mapping[str, dict[str, Array]], weights: str) -> Iterator[str]:
    """Share flagged of each other set, and AUROC between it and held-back pictures of this one.

    Args:
        of: The set of the head.
        features: By set, this one included, from `statistics`.
        weights: For the network's own classifier.
    """
    others = [name for name in features if name != of.name]
    yield f"\n| the head's set: {of.name} | " + " | ".join(others) + " |"
    yield "|---" * (1 + len(others)) + "|"
    for name, measure in measures(weights).items():
        runs = [_run(of, features, measure, seed) for seed in SEEDS]
        yield f"| {name} | " + " | ".join(_cell(runs, of.name, other) for other in others) + " |"


def _cell(runs: list[dict[str, Array]], own: str, other: str) -> str:
    flagged = [(run[other] > np.quantile(run[own], 1 - FALSE_ALARMS)).mean() for run in runs]
    pairs = [stats.mannwhitneyu(run[other], run[own]).statistic / run[other].size / run[own].size for run in runs]
    return f"{np.mean(flagged):.0%}, {np.mean(pairs):.2f}"


def _run(
    of: Folder, features: Mapping[str, dict[str, Array]], measure: tuple[tuple[str, ...], int, Build], seed: int
) -> dict[str, Array]:
    """Scores of each set; of this one's held-back half. Of several stages, the sum of -log p (Fisher's method)."""
    stages, statistic, build = measure
    order = np.random.default_rng(seed).permutation(len(of.y))
    half, rest = order[: len(order) // 2], order[len(order) // 2 :]
    total: dict[str, Any] = {}
    for stage in stages:
        x = features[of.name][stage][:, statistic]
        score = build(x[half], of.y[half])
        found = {name: score(x[rest] if name == of.name else f[stage][:, statistic]) for name, f in features.items()}
        if len(stages) > 1:
            reference = np.sort(_out_of_fold(build, x[half], of.y[half]))
            found = {name: -np.log(_p_values(reference, scores)) for name, scores in found.items()}
        total = {name: total.get(name, 0) + scores for name, scores in found.items()}
    return total


def _out_of_fold(build: Build, x: Array, y: Array) -> Array:
    fold, scores = np.random.default_rng(0).permutation(len(y)) % FOLDS, np.zeros(len(y))
    for part in range(FOLDS):
        scores[fold == part] = build(x[fold != part], y[fold != part])(x[fold == part])
    return scores


def _p_values(reference: Array, scores: Array) -> Array:
    return (len(reference) - np.searchsorted(reference, scores) + 1) / (len(reference) + 1)


def unit(a: Array) -> Array:
    """Rows of length 1."""
    return a / np.maximum(np.linalg.norm(a, axis=1, keepdims=True), 1e-12)
