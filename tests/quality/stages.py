"""Unfrozen stages beside the head alone, and by their learning rate: two tables of docs/heads.md.

    nice python -m tests.quality.heads hymenoptera=DIR flowers=DIR drawn:renditions --only stages,rates --shots 15,0

A set of 250 pictures takes about ten minutes on one core with --size 128, and three times as long with the 224 pixels
that the service uses by default.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from gramlet.train.configuration import Recipe, Strategy
from gramlet_server.backbone.trainable import late_stages
from gramlet_server.backbone.weights import Weights, load
from gramlet_server.train.classifier import EMBEDDING
from gramlet_server.train.data import Samples, TrainingData
from gramlet_server.train.fit import Fit

from tests.quality.sets import Folder, drawn, features, task

UNFROZEN, BEFORE = "layer4", "layer3"
RATES = (3e-6, 1e-5, 3e-5, 1e-4)


def strategies(of: Folder, data: TrainingData, weights: Weights) -> Iterator[str]:
    """Accuracy and loss on the test set of each strategy at its defaults; * where the stages were changed."""
    cells = [f"{of.name}, {len(data.picture_labels)}"]
    for strategy in Strategy:
        cells.append(
            _cell(Recipe(strategy=strategy, stages=() if strategy is Strategy.HEAD else (UNFROZEN,)), data, weights)
        )
    yield "| " + " | ".join(cells) + " |"


def rates(of: Folder, data: TrainingData, weights: Weights) -> Iterator[str]:
    """The test accuracy by the learning rate of the unfrozen stage."""
    for strategy in (Strategy.HEAD_THEN_STAGES, Strategy.ALL_AT_ONCE):
        cells = [f"{of.name}, {len(data.picture_labels)}, `{strategy.value}`"]
        for rate in RATES:
            recipe = Recipe(strategy=strategy, stages=(UNFROZEN,), stage_learning_rate=rate)
            cells.append(_cell(recipe, data, weights))
        yield "| " + " | ".join(cells) + " |"


def _cell(recipe: Recipe, data: TrainingData, weights: Weights) -> str:
    """Accuracy and loss on the test set, and whether the stages were changed."""
    started = time.perf_counter()
    fit = Fit(recipe, data, late=late_stages(weights, UNFROZEN) if recipe.stages else None)
    for _ in fit.epochs():
        pass
    kept = fit.finish()
    found = kept.outcome.report("test")
    assert found is not None
    changed = " *" if kept.stages else ""
    print(f"  {recipe.title}: {fit.epoch} epochs, {time.perf_counter() - started:.0f} s", flush=True)
    return f"{found.accuracy:.1%}, {found.loss:.2f}{changed}"


def prepared(of: Folder, *, size: int, shots: str, cache: Path, weights: str) -> Iterator[tuple[TrainingData, Weights]]:
    """The data of each number of `shots`, with the network's weights."""
    loaded = load("resnet50", weights)
    for each in map(int, shots.split(",")):
        yield boundaries(of, each, size, cache, loaded), loaded


def boundaries(of: Folder, shots: int, size: int, cache: Path, weights: Weights) -> TrainingData:
    """`shots` pictures a class, or all for 0, as embeddings and as the activations that enter the unfrozen stage."""
    kept = cache / f"{of.name}-{BEFORE}-{size}.npz"
    if not kept.exists():
        found = features(of.files, weights, [BEFORE, EMBEDDING], size)
        np.savez(kept, **found)
    with np.load(kept) as stored:
        activations, of = stored[BEFORE], replace(of, x=stored[EMBEDDING])
    rows = drawn(of, shots, 0) if shots else np.flatnonzero(of.train)
    entering = {name: Samples(activations, at, of.y[at]) for name, at in {"train": rows, "test": of.test}.items()}
    return replace(task(of, rows, of.test), boundaries={UNFROZEN: entering})
