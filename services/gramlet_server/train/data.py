"""The data set of a run: checked before any work, split, searched for mistakes, and turned into samples to train on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from gramlet.errors import InvalidInput, quoted
from gramlet.feature.types import Model
from gramlet.folders import natural_key
from gramlet.train.configuration import (
    OUT_OF_FOLD,
    TRAIN,
    VALIDATION,
    Configuration,
    Entry,
    HeadKind,
    Optimizer,
    Recipe,
    Strategy,
)
from gramlet.train.types import Findings
from gramlet.types import check_name
from numpy.typing import NDArray

from gramlet_server.train.arrays import Labels
from gramlet_server.train.classifier import EMBEDDING
from gramlet_server.train.features import FeaturePass
from gramlet_server.train.findings import copy_groups, duplicates, near_duplicates
from gramlet_server.train.remaining import check_remaining

UNFREEZABLE = ("layer1", "layer2", "layer3", "layer4")


@dataclass(frozen=True)
class TrainLimits:
    """The most that a run may ask for. `size`: side in pixels of what the network sees."""

    pictures: int = 100_000
    recipes: int = 16
    epochs: int = 10_000
    views: int = 64
    folds: int = 20
    size: int = 1024


@dataclass(frozen=True)
class Samples:
    """Rows of an array with their labels. The array may be memory-mapped: batches are copied out of it one at a time.

    Attributes:
        array: (M, C) embeddings or (M, C, H, W) boundary activations; float16 or float32.
        rows: (N,) positions in the array.
        labels: (N,) positions in the classes.
    """

    array: NDArray[Any]
    rows: Labels
    labels: Labels

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, positions: Labels, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs (n, ...) float32 and labels (n,) of those positions."""
        inputs = torch.from_numpy(np.asarray(self.array[self.rows[positions]], dtype=np.float32))
        return inputs.to(device), torch.from_numpy(self.labels[positions]).to(device)


@dataclass(frozen=True)
class TrainingData:
    """What a head is trained and evaluated on.

    Attributes:
        classes: In the order of the head's outputs.
        embeddings: By set, (M, C).
        boundaries: By the first unfrozen stage, then by set: the activations that enter that stage, (M, C, H, W).
        views: Augmented views of each training picture; their samples follow the picture's own.
        copies: (pictures,) training pictures with the same number are near-copies; None: there are none.
        folds: Of the cross-validation; 0: by the number of pictures.
        seed: Of the folds.
    """

    classes: tuple[str, ...]
    embeddings: Mapping[str, Samples]
    boundaries: Mapping[str, Mapping[str, Samples]] = field(default_factory=dict)
    views: int = 0
    copies: Labels | None = None
    folds: int = 0
    seed: int = 0

    @property
    def picture_labels(self) -> Labels:
        """(pictures,) labels of the training pictures, without their views."""
        return self.embeddings[TRAIN].labels[:: 1 + self.views]

    @property
    def copy_groups(self) -> Labels:
        """(pictures,) a number for each group of near-copies."""
        return np.arange(len(self.picture_labels)) if self.copies is None else self.copies


def check_configuration(configuration: Configuration, limits: TrainLimits, model: Model) -> None:
    """Checks a configuration, but for its entries.

    Raises:
        InvalidInput: A value is out of range; `field` says which.
    """
    check_name(configuration.name, "name")
    _between(configuration.size, 32, limits.size, "size")
    _between(configuration.views, 0, limits.views, "views")
    _between(len(configuration.recipes), 1, limits.recipes, "recipes")
    if configuration.folds:
        _between(configuration.folds, 1, limits.folds, "folds")
    for number, recipe in enumerate(configuration.recipes):
        _check_recipe(recipe, f"recipes[{number}]", limits, model)


def check_entries(entries: Sequence[Entry], limits: TrainLimits) -> None:
    """Checks the names, labels and sets of a data set.

    Raises:
        InvalidInput: Fewer than two classes, a class of another set that the training set lacks, a name that is used
            twice, too many pictures.
    """
    if len(entries) > limits.pictures:
        raise InvalidInput(f"{len(entries)} pictures; this server takes {limits.pictures}", field="entries")
    seen: dict[str, int] = {}
    for number, entry in enumerate(entries):
        if not entry.name or not entry.label or not entry.set:
            raise InvalidInput("name, label and set must not be empty", field=f"entries[{number}]")
        if entry.set == OUT_OF_FOLD:
            raise InvalidInput(
                f"{OUT_OF_FOLD!r} is the name of a report; choose another", field=f"entries[{number}].set"
            )
        first = seen.setdefault(entry.name, number)
        if first != number:
            raise InvalidInput(
                f"{entry.name!r} is the name of picture {first} as well: names must be unique",
                field=f"entries[{number}].name",
            )
    classes_of = _classes_by_set(entries)
    trained = classes_of.get(TRAIN, set())
    if len(trained) < 2:
        found = f"the only class is {quoted(next(iter(trained)))}" if trained else "no picture has a class"
        raise InvalidInput(f"training needs two classes or more; {found} in set {TRAIN!r}", field="entries")
    _check_pairs(entries)
    for name, classes in classes_of.items():
        if unknown := sorted(classes - trained):
            raise InvalidInput(
                f"class {quoted(unknown[0])} of set {name!r} has no pictures in set {TRAIN!r}", field="entries"
            )


def _check_pairs(entries: Sequence[Entry]) -> None:
    """Out-of-fold predictions need a class with two training pictures."""
    if max(Counter(entry.label for entry in entries if entry.set == TRAIN).values()) < 2:
        raise InvalidInput(f"no class has two pictures in set {TRAIN!r}", field="entries")


@dataclass(frozen=True)
class Prepared:
    """What a pass found out before any training.

    Attributes:
        data: What to train on.
        entries: By set, the pictures of the data, in its order.
        findings: What is odd about the data set.
    """

    data: TrainingData
    entries: Mapping[str, Sequence[Entry]]
    findings: Findings


def training_data(features: FeaturePass, boundaries: Mapping[str, str], folds: int, seed: int) -> Prepared:
    """The samples to train on, which are the readable pictures, each once, and what is odd about the data set.

    Args:
        features: A pass that is done.
        boundaries: By the first unfrozen stage of a recipe: the stage before it.
        folds: Of the cross-validation; 0: by the number of pictures.
        seed: Of the folds.

    Raises:
        InvalidInput: A class has no training picture left, or no class has two.
    """
    keys_of = {entry.name: features.keys(position) for position, entry in enumerate(features.entries)}
    readable = [entry for position, entry in enumerate(features.entries) if position not in features.skipped]
    kept, copies = duplicates(readable)
    unreadable = {item.name: item.reason for item in features.skipped.values()}
    check_remaining(features.entries, kept, copies, unreadable)
    _check_pairs(kept)
    classes = tuple(sorted({entry.label for entry in kept if entry.set == TRAIN}, key=natural_key))
    sets = _by_set(kept)

    def samples(stage: str, entries: Sequence[Entry]) -> Samples:
        rows = [features.table.rows(keys_of[entry.name]) for entry in entries]
        labels = [classes.index(entry.label) for entry in entries]
        return Samples(
            features.table.array(stage),
            np.array([row for group in rows for row in group], dtype=np.int64),
            np.repeat(np.array(labels, dtype=np.int64), [len(group) for group in rows]),
        )

    def by_set(stage: str) -> dict[str, Samples]:
        return {name: samples(stage, entries) for name, entries in sets.items()}

    own_rows = [features.table.rows(keys_of[entry.name][:1])[0] for entry in kept]
    pairs = near_duplicates(kept, features.table.array(EMBEDDING)[own_rows])
    skipped = tuple(features.skipped[position] for position in sorted(features.skipped))
    data = TrainingData(
        classes,
        by_set(EMBEDDING),
        {first: by_set(before) for first, before in boundaries.items()},
        views=features.views_of_training,
        copies=copy_groups(sets[TRAIN], pairs),
        folds=folds,
        seed=seed,
    )
    return Prepared(data, sets, Findings(skipped, copies, near_duplicates=pairs))


def shuffled_batches(count: int, size: int, seed: tuple[int, int]) -> list[Labels]:
    """Positions 0 to count-1 in batches, in an order drawn by seed.

    No batch but an only one has a single element, which BatchNorm could not normalize.
    """
    order = np.random.default_rng(seed).permutation(count)
    batches = [order[start : start + size] for start in range(0, count, size)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [np.concatenate(batches[-2:])]
    return batches


def _by_set(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """The entries of `train`, of `val`, then of the further sets by name."""
    present = {entry.set for entry in entries}
    others = sorted(present - {TRAIN, VALIDATION}, key=natural_key)
    names = (TRAIN, *(VALIDATION for _ in present & {VALIDATION}), *others)
    return {name: [entry for entry in entries if entry.set == name] for name in names}


def _classes_by_set(entries: Sequence[Entry]) -> dict[str, set[str]]:
    classes: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        classes[entry.set].add(entry.label)
    return classes


def _check_recipe(recipe: Recipe, field: str, limits: TrainLimits, model: Model) -> None:
    _check_stages(recipe, field, model)
    if recipe.kind is HeadKind.LOGISTIC and recipe.strategy is not Strategy.HEAD:
        raise InvalidInput("logistic regression is for strategy head; use kind linear", field=f"{field}.kind")
    if recipe.optimizer is Optimizer.LBFGS and (recipe.kind, recipe.strategy) != (HeadKind.LINEAR, Strategy.HEAD):
        raise InvalidInput("L-BFGS trains linear heads with strategy head only", field=f"{field}.optimizer")
    if recipe.epochs is not None:
        _between(recipe.epochs, 1, limits.epochs, f"{field}.epochs")
    _between(recipe.stage_epochs, 1, limits.epochs, f"{field}.stage_epochs")
    _between(recipe.batch_size, 2, 4096, f"{field}.batch_size")
    rates = {"stage_learning_rate": recipe.stage_learning_rate, "head_rate_factor": recipe.head_rate_factor}
    rates |= {"learning_rate": 1.0 if recipe.learning_rate is None else recipe.learning_rate}
    rates |= {f"stage_rates[{name}]": rate for name, rate in recipe.stage_rates.items()}
    for name, rate in rates.items():
        if not 0 < rate < float("inf"):
            raise InvalidInput("must be positive", field=f"{field}.{name}")
    if not 0 <= recipe.weight_decay < float("inf"):
        raise InvalidInput("must not be negative", field=f"{field}.weight_decay")
    if not 0 <= recipe.label_smoothing < 1:
        raise InvalidInput("must be at least 0 and below 1", field=f"{field}.label_smoothing")


def _check_stages(recipe: Recipe, field: str, model: Model) -> None:
    frozen = recipe.strategy is Strategy.HEAD
    if frozen and recipe.stages:
        raise InvalidInput("strategy head unfreezes no stage; choose another strategy", field=f"{field}.stages")
    if not frozen and not recipe.stages:
        raise InvalidInput(f"strategy {recipe.strategy.value} needs stages to unfreeze", field=f"{field}.stages")
    if not frozen and model.backbone != "resnet50":
        raise InvalidInput(f"stages of {model.backbone} cannot be unfrozen; use strategy head", field=f"{field}.stages")
    if recipe.stages and recipe.stages not in [UNFREEZABLE[i:] for i in range(len(UNFREEZABLE))]:
        raise InvalidInput(
            f"unfreeze layer4, or layer3 and layer4, and so on down to layer1; not {', '.join(recipe.stages)}",
            field=f"{field}.stages",
        )
    if unknown := sorted(set(recipe.stage_rates) - set(recipe.stages)):
        raise InvalidInput(f"{unknown[0]!r} is not among the unfrozen stages", field=f"{field}.stage_rates")


def _between(value: int, low: int, high: int, field: str) -> None:
    if not low <= value <= high:
        raise InvalidInput(f"{value} is not between {low} and {high}", field=field)
