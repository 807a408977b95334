"""Measures of how unlike its training pictures a picture is, compared on frozen features: a table of docs/heads.md.

    python -m tests.quality.heads hymenoptera=DIR flowers=DIR drawn:renditions --only typicality

Each measure is built on a half of a set. The threshold is the one that the other half exceeds with 5 % of its pictures,
so that all measures have the same false alarms. Several measures are joined by their out-of-fold p-values. Then groups
of pictures are judged together, as `gramlet predict` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gramlet.train.predictions import group_typicality
from gramlet_server.backbone.network import Network
from gramlet_server.backbone.weights import load
from gramlet_server.feature.engine import Engine
from gramlet_server.train.classifier import extraction
from gramlet_server.train.typicality import typicality, typicality_reference
from safetensors.torch import load_file
from scipy import stats
from sklearn.linear_model import LogisticRegression

from tests.quality.sets import SIDE, Array, Folder

STAGES = ("layer2", "layer3", "layer4")
SEEDS, FALSE_ALARMS, FOLDS = (0, 1), 0.05, 5
MEAN, ROWS, POWER = range(3)
"""Statistics of a stage's channels: mean, row sums of the Gram matrix, and the mean of order 8."""

Score = Callable[[Array], Array]
"""Features (n, C) → (n,), larger where less typical."""
Build = Callable[[Array, Array], Score]
"""Training features (n, C) and labels (n,) → a score."""
Take = Callable[[Mapping[str, Array]], Array]
"""The statistics of a set → the features (n, C) that are measured."""
Measure = tuple[tuple[Take, Build], ...]
"""One measure, or several that are joined."""
GROUPS, GROUP_SEEDS = (10, 20, 50), 20


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


def centered(x: Array, y: Array) -> Score:
    """Mean cosine distance to the 10 nearest, seen from the mean."""
    mean = x.mean(axis=0)
    score = nearest(10)(x - mean, y)
    return lambda a: score(a - mean)


def whitened(x: Array, y: Array, components: int = 100) -> Score:
    """Mean cosine distance to the 10 nearest in whitened principal components."""
    mean = x.mean(axis=0)
    _, singular, axes = np.linalg.svd(x - mean, full_matrices=False)
    scaled = (axes[: min(components, len(x) - 1)] / singular[: min(components, len(x) - 1), None]).T
    score = nearest(10)((x - mean) @ scaled, y)
    return lambda a: score((a - mean) @ scaled)


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


class ImageNet:
    """The network's own classifier of 1,000 classes, which gramlet does not load.

    Args:
        weights: Of the network, with its classifier.
    """

    def __init__(self, weights: str) -> None:
        state = load_file(weights)
        self.w, self.b = (state[f"fc.{part}"].double().numpy() for part in ("weight", "bias"))

    def logits(self, a: Array) -> Array:
        """(n, 1000) of features (n, 2048)."""
        return a @ self.w.T + self.b

    def posterior(self, a: Array, temperature: float = 1.0) -> Array:
        """(n, 1000) probabilities."""
        logits = self.logits(a) / temperature
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)

    def energy(self, a: Array) -> Array:
        """(n,) log of the summed odds (Liu et al., NeurIPS 2020)."""
        return np.logaddexp.reduce(self.logits(a), axis=1)

    def vim(self, x: Array, y: Array) -> Score:
        """Residual in the scale of the logits, less the energy (Wang et al., CVPR 2022)."""
        origin = -np.linalg.pinv(self.w) @ self.b
        axes = np.linalg.svd(x - origin, full_matrices=False)[2][:64]

        def outside(a: Array) -> Array:
            return np.linalg.norm((a - origin) - (a - origin) @ axes.T @ axes, axis=1)

        scale = self.logits(x).max(axis=1).mean() / outside(x).mean()
        return lambda a: scale * outside(a) - self.energy(a)

    def likelihood(self, x: Array, y: Array) -> Score:
        """How unusual the classes are among the training pictures."""
        prior = self.posterior(x).mean(axis=0)
        return lambda a: -np.log(self.posterior(a) @ prior + 1e-12)

    def prototypes(self, x: Array, y: Array) -> Score:
        """Distance to the 10 nearest, less that to the nearest class."""
        near = nearest(10)(x, y)
        return lambda a: near(a) + (unit(a) @ unit(self.w).T).max(axis=1)

    def exposed(self, x: Array, y: Array) -> Score:
        """Logistic regression:  training pictures against the classes (outlier exposure; Hendrycks et al., 2019)."""
        outliers = unit(np.maximum(self.w, 0))
        labels = np.repeat([0, 1], [len(x), len(outliers)])
        model = LogisticRegression(max_iter=300, class_weight="balanced")
        model.fit(20 * np.vstack([unit(x), outliers]), labels)
        return lambda a: model.decision_function(20 * unit(a))


def channels(stage: str, statistic: int = MEAN) -> Take:
    """One statistic of the channels of a stage."""
    return lambda found: found[stage][:, statistic]


def side_by_side(found: Mapping[str, Array]) -> Array:
    """The means of layer3 and of layer4, each at length 1."""
    return np.hstack([unit(found[stage][:, MEAN]) for stage in ("layer3", "layer4")])


def measures(weights: str) -> dict[str, Measure]:
    """By name."""
    own, last = ImageNet(weights), channels("layer4")
    one = partial(mahalanobis, by_class=False)
    logits: Take = lambda found: own.logits(last(found))  # noqa: E731
    roots: Take = lambda found: np.sqrt(own.posterior(last(found), 4.0))  # noqa: E731
    single: dict[str, tuple[Take, Build]] = {
        "10 nearest, cosine (used)": (last, nearest(10)),
        "nearest": (last, nearest(1)),
        "10 nearest of roots": (last, nearest(10, roots=True)),
        "10 nearest, centered": (last, of_unit(centered)),
        "10 nearest, whitened, 100 components": (last, of_unit(whitened)),
        "10 nearest, layer3 and layer4": (side_by_side, nearest(10)),
        "10 nearest, centered, layer3 and layer4": (side_by_side, centered),
        "Mahalanobis by class": (last, mahalanobis),
        "Mahalanobis by class, unit vectors": (last, of_unit(mahalanobis)),
        "Mahalanobis by class, layer3 and layer4": (side_by_side, mahalanobis),
        "the same, shrunk by 0.7": (side_by_side, partial(mahalanobis, shrinkage=0.7)),
        "relative Mahalanobis": (last, relative_mahalanobis),
        "relative Mahalanobis, unit vectors": (last, of_unit(relative_mahalanobis)),
        "relative Mahalanobis, layer3 and layer4": (side_by_side, relative_mahalanobis),
        "residual after 64 components": (last, residual),
        "residual after 64 components, unit vectors": (last, of_unit(residual)),
        "Gram deviation": (channels("layer4", ROWS), gram_deviation),
        "deviation of order 8": (channels("layer4", POWER), gram_deviation),
        "10 nearest, means of order 8": (channels("layer4", POWER), nearest(10)),
        "energy of ImageNet's logits": (last, lambda x, y: lambda a: -own.energy(a)),
        "ViM, 64 components": (last, own.vim),
        "10 nearest, ImageNet's logits": (logits, nearest(10)),
        "10 nearest, ImageNet's posterior at temperature 4": (roots, nearest(10)),
        "ImageNet classes unusual in the training pictures": (last, own.likelihood),
        "10 nearest, less the nearest ImageNet prototype": (last, own.prototypes),
        "against ImageNet prototypes as outliers": (last, own.exposed),
    }
    several: dict[str, tuple[int, Build]] = {
        "10 nearest": (MEAN, nearest(10)),
        "Mahalanobis, unit vectors": (MEAN, of_unit(one)),
        "residual, unit vectors": (MEAN, of_unit(residual)),
        "Gram deviation": (ROWS, gram_deviation),
        "deviation of order 8": (POWER, gram_deviation),
    }
    found: dict[str, Measure] = {name: (measure,) for name, measure in single.items()}
    for name, (statistic, build) in several.items():
        found[f"{name}, three stages"] = tuple((channels(stage, statistic), build) for stage in STAGES)
    # Of all sums of one to three of 14 measures, one of the best for each head's set, chosen on its result there.
    found["joined, chosen by the head of hymenoptera"] = (
        (side_by_side, partial(mahalanobis, shrinkage=0.7)), (logits, nearest(10)), (last, own.likelihood)
    )  # fmt: skip
    found["joined, chosen by the head of flowers"] = ((roots, nearest(10)), (side_by_side, centered))
    return found


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


def _run(of: Folder, features: Mapping[str, dict[str, Array]], measure: Measure, seed: int) -> dict[str, Array]:
    """Scores of each set; of this one's held-back half. Of several measures, the sum of -log p (Fisher's method)."""
    order = np.random.default_rng(seed).permutation(len(of.y))
    half, rest = order[: len(order) // 2], order[len(order) // 2 :]
    total: dict[str, Any] = {}
    for take, build in measure:
        x = take(features[of.name])
        score = build(x[half], of.y[half])
        found = {name: score(x[rest] if name == of.name else take(f)) for name, f in features.items()}
        if len(measure) > 1:
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


def groups(of: Folder, others: Mapping[str, Array]) -> Iterator[str]:
    """Share of groups of pictures that are reported at a p-value of 1 %: of held-back pictures of the head's own set,
    of one class of it, of each other set, and half of the own set and half of the first other one."""
    names = ("own", "one class", *others, f"half {next(iter(others))}")
    yield f"\n| {of.name}, pictures in a group | " + " | ".join(names) + " |"
    yield "|---" * (1 + len(names)) + "|"
    for count in GROUPS:
        rows = [_group_run(of, others, count, seed) for seed in range(GROUP_SEEDS)]
        yield f"| {count} | " + " | ".join(f"{share:.0%}" for share in np.nanmean(rows, axis=0)) + " |"


def _group_run(of: Folder, others: Mapping[str, Array], count: int, seed: int) -> list[float]:
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(of.y))
    half, rest = order[: len(order) // 2], order[len(order) // 2 :]
    kept = typicality_reference(of.x, half, seed)
    own, foreign = typicality(kept, of.x[rest]), [typicality(kept, x) for x in others.values()]
    pools = [(own,), (own[of.y[rest] == seed % len(of.classes)],), *((found,) for found in foreign), (own, foreign[0])]

    def share(pool: tuple[Array, ...]) -> float:
        if any(len(part) < count // len(pool) for part in pool):
            return float("nan")
        draws = [
            np.concatenate([rng.choice(part, count // len(pool), replace=False) for part in pool]) for _ in range(10)
        ]
        return float(np.mean([group_typicality(draw, len(half)).p_value <= 0.01 for draw in draws]))

    return [share(pool) for pool in pools]


def unit(a: Array) -> Array:
    """Rows of length 1."""
    return a / np.maximum(np.linalg.norm(a, axis=1, keepdims=True), 1e-12)
