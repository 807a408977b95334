"""Labelled pictures for the measurements of heads, with their features, which are extracted once and kept.

A set is given as NAME=DIR, a folder `<set>/<class>/*`, or as `drawn:NAME`, one of the sets of tests.embed.styles. Heads
are trained on pictures of `train`; the other sets are the test.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gramlet.folders import read_folder
from gramlet.train.configuration import Recipe
from gramlet_server.backbone.network import Network
from gramlet_server.backbone.weights import Weights, load
from gramlet_server.feature.engine import Engine
from gramlet_server.train.classifier import EMBEDDING, TrainedHead, extraction
from gramlet_server.train.data import Samples, TrainingData
from gramlet_server.train.fit import Fit
from PIL import Image

from tests.embed import styles

SIDE = 224
DRAWN_TRAIN, DRAWN_TEST = 50, 30
"""Pictures of each label of a drawn set."""
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Folder:
    """Embeddings (n, 2048), labels and sets of a folder, and the files."""

    name: str
    x: Array
    y: Array
    train: Array
    classes: tuple[str, ...]
    files: tuple[str, ...]

    @property
    def test(self) -> Array:
        """Positions of the pictures that no head is trained on."""
        return np.flatnonzero(~self.train)


def folder(given: str, cache: Path, weights: str) -> Folder:
    """The set that `given` names."""
    cache.mkdir(parents=True, exist_ok=True)
    name, path = (given[6:], draw(given[6:], cache)) if given.startswith("drawn:") else given.split("=", 1)
    pictures = read_folder(path).pictures
    files = tuple(str(picture.source) for picture in pictures)
    kept = cache / f"{name}.npy"
    if not kept.exists():
        np.save(kept, embed(files, weights))
    classes = tuple(sorted({picture.label for picture in pictures}))
    labels = np.array([classes.index(picture.label) for picture in pictures])
    return Folder(name, np.load(kept), labels, np.array([p.set == "train" for p in pictures]), classes, files)


def draw(name: str, cache: Path) -> str:
    """Draws a set of tests.embed.styles as files, unless that was done before; returns their folder."""
    root, each = cache / "drawn" / name, DRAWN_TRAIN + DRAWN_TEST
    if not root.exists():
        for number, (label, pixels) in enumerate(styles.drawn(name, each)):
            path = root / ("train" if number % each < DRAWN_TRAIN else "test") / label / f"{number:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return str(root)


def embed(pictures: Iterable[bytes | str], weights: str | Weights, size: int = SIDE) -> Array:
    """(n, 2048) embeddings of encoded pictures or files."""
    return features(pictures, weights, [EMBEDDING], size)[EMBEDDING]


def features(pictures: Iterable[bytes | str], weights: str | Weights, stages: list[str], size: int) -> dict[str, Array]:
    """By stage: the embeddings (n, 2048), or activations (n, C, H, W) in half precision, as the service keeps them."""
    engine = Engine(Network(load("resnet50", weights) if isinstance(weights, str) else weights))
    files = (item if isinstance(item, bytes) else Path(item).read_bytes() for item in pictures)
    found: dict[str, list[Array]] = {stage: [] for stage in stages}
    for item in engine.extract(files, extraction(stages, size)):
        for stage in stages:
            is_pooled = stage == EMBEDDING
            found[stage].append(item.pooled[stage] if is_pooled else item.activations[stage].astype(np.float16))
    engine.close()
    return {stage: np.array(values) for stage, values in found.items()}


def drawn(of: Folder, shots: int, seed: int) -> Array:
    """Positions of `shots` training pictures of each class, drawn by seed."""
    rng = np.random.default_rng(seed)
    own = np.flatnonzero(of.train)
    return np.concatenate([rng.permutation(own[of.y[own] == c])[:shots] for c in range(len(of.classes))])


def task(of: Folder, rows: Array, test: Array, labels: Array | None = None) -> TrainingData:
    """What a head is trained and tested on."""
    y = of.y if labels is None else labels
    return TrainingData(of.classes, {"train": Samples(of.x, rows, y[rows]), "test": Samples(of.x, test, of.y[test])})


def trained(data: TrainingData, **recipe: Any) -> TrainedHead:
    """A head on the frozen network."""
    fit = Fit(Recipe(**recipe), data)
    for _ in fit.epochs():
        pass
    return fit.finish()
