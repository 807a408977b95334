"""The data set of a run: checked before any work, split, searched for mistakes, and turned into samples to train on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from gramlet.errors import InvalidInput
from gramlet.feature.types import Model
from gramlet.folders import natural_key
from gramlet.train.configuration import TRAIN, VALIDATION, Configuration, Entry, HeadKind, Optimizer, Recipe, Strategy
from gramlet.train.types import Duplicate, Findings, Suspect
from gramlet.types import check_name
from numpy.typing import NDArray

from gramlet_server.train.classifier import EMBEDDING
from gramlet_server.train.features import FeaturePass
from gramlet_server.train.remaining import check_remaining

NEIGHBORS = 10
SUSPICIOUS_SHARE = 0.7
"""A picture is suspect if none of its nearest neighbors has its label and at least this share has one other label."""
UNFREEZABLE = ("layer1", "layer2", "layer3", "layer4")


Labels = NDArray[np.int64]


@dataclass(frozen=True)
class TrainLimits:
    """The most that a run may ask for. `size`: side in pixels of what the network sees."""

    pictures: int = 100_000
    recipes: int = 16
    epochs: int = 10_000
    views: int = 64
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

    def in_order(self, size: int, device: torch.device) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """All samples in batches of at most `size`."""
        for start in range(0, len(self), size):
            yield self.batch(np.arange(start, min(start + size, len(self))), device)


@dataclass(frozen=True)
class TrainingData:
    """What a head is trained and evaluated on.

    Attributes:
        classes: In the order of the head's outputs.
        embeddings: By set, (M, C).
        boundaries: By the first unfrozen stage, then by set: the activations that enter that stage, (M, C, H, W).
    """

    classes: tuple[str, ...]
    embeddings: Mapping[str, Samples]
    boundaries: Mapping[str, Mapping[str, Samples]] = field(default_factory=dict)


def check_configuration(configuration: Configuration, limits: TrainLimits, model: Model) -> None:
    """Checks a configuration, but for its entries.

    Raises:
        InvalidInput: A value is out of range; `field` says which.
    """
    check_name(configuration.name, "name")
    _between(configuration.size, 32, limits.size, "size")
    _between(configuration.views, 0, limits.views, "views")
    _between(len(configuration.recipes), 1, limits.recipes, "recipes")
    if not 0 < configuration.validation_fraction < 1:
        raise InvalidInput("must be between 0 and 1", field="validation_fraction")
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
        first = seen.setdefault(entry.name, number)
        if first != number:
            raise InvalidInput(
                f"{entry.name!r} already names entries[{first}]; names must be unique", field=f"entries[{number}].name"
            )
    classes_of = _classes_by_set(entries)
    trained = classes_of.get(TRAIN, set())
    if len(trained) < 2:
        found = f"the only class is {next(iter(trained))!r}" if trained else "no picture has a class"
        raise InvalidInput(f"training needs two classes or more; {found} in set {TRAIN!r}", field="entries")
    for name, classes in classes_of.items():
        if unknown := sorted(classes - trained):
            raise InvalidInput(
                f"class {unknown[0]!r} of set {name!r} has no pictures in set {TRAIN!r}", field="entries"
            )


def split(entries: Sequence[Entry], fraction: float, seed: int) -> list[Entry]:
    """Moves a share of each class of `train` to `val`, drawn by seed, unless the data set has a `val`.

    At least one picture of every class with two or more is moved, and at least one stays.

    Raises:
        InvalidInput: No class has two pictures.
    """
    if any(entry.set == VALIDATION for entry in entries):
        return list(entries)
    by_class = defaultdict(list)
    for number, entry in enumerate(entries):
        if entry.set == TRAIN:
            by_class[entry.label].append(number)
    chosen: set[int] = set()
    rng = np.random.default_rng(seed)
    for label in sorted(by_class):
        # Sorted by name, so that the split does not depend on the order of the entries.
        members = sorted(by_class[label], key=lambda number: entries[number].name)
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        chosen.update(members[i] for i in rng.permutation(len(members))[:count])
    if not chosen:
        raise InvalidInput(f"no class has two pictures: give a set {VALIDATION!r}", field="entries")
    return [replace(entry, set=VALIDATION) if number in chosen else entry for number, entry in enumerate(entries)]


def duplicates(entries: Sequence[Entry]) -> tuple[list[Entry], tuple[Duplicate, ...]]:
    """Removes copies of pictures, byte for byte: the later copies, or all copies if their labels differ.

    Otherwise a head could be evaluated on pictures that it was trained on. Entries must have their `sha256`.

    Returns:
        The entries that are kept, and the copies.
    """
    labels = defaultdict(set)
    for entry in entries:
        labels[entry.sha256].add(entry.label)
    first: dict[str, Entry] = {}
    kept, found = [], []
    for entry in entries:
        earlier = first.setdefault(entry.sha256, entry)
        conflicting = len(labels[entry.sha256]) > 1
        if earlier is not entry:
            found.append(Duplicate(entry.name, earlier.name, conflicting))
        elif not conflicting:
            kept.append(entry)
    return kept, tuple(found)


def suspects(entries: Sequence[Entry], embeddings: NDArray[Any]) -> tuple[Suspect, ...]:
    """Pictures whose nearest neighbors (by cosine similarity) agree on another label, the largest agreement first.

    Args:
        entries: Only those of `train` and `val` are examined.
        embeddings: (N, C), in the order of the entries.
    """
    chosen = [n for n, entry in enumerate(entries) if entry.set in (TRAIN, VALIDATION)]
    names = sorted({entries[n].label for n in chosen})
    labels = np.array([names.index(entries[n].label) for n in chosen])
    count = min(NEIGHBORS, len(chosen) - 1)
    unit = np.asarray(embeddings[chosen], dtype=np.float32)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    found = []
    for start in range(0, len(chosen), 1024):
        similarity = unit[start : start + 1024] @ unit.T
        here = np.arange(len(similarity))
        similarity[here, start + here] = -np.inf
        nearest = labels[np.argpartition(-similarity, count - 1, axis=1)[:, :count]]
        for row, neighbors in enumerate(nearest):
            entry = entries[chosen[start + row]]
            suggestion, votes = Counter(neighbors.tolist()).most_common(1)[0]
            if labels[start + row] not in neighbors and votes >= SUSPICIOUS_SHARE * NEIGHBORS:
                found.append(Suspect(entry.name, entry.set, entry.label, names[suggestion], votes / count))
    return tuple(sorted(found, key=lambda suspect: (-suspect.share, suspect.name)))


def training_data(features: FeaturePass, boundaries: Mapping[str, str]) -> tuple[TrainingData, Findings]:
    """The samples to train on, which are the readable pictures, each once, and what is odd about the data set.

    Args:
        features: A pass that is done.
        boundaries: By the first unfrozen stage of a recipe: the stage before it.

    Raises:
        InvalidInput: A class has no training picture left, or the validation set has no picture left.
    """
    keys_of = {entry.name: features.keys(position) for position, entry in enumerate(features.entries)}
    readable = [entry for position, entry in enumerate(features.entries) if position not in features.skipped]
    kept, found = duplicates(readable)
    unreadable = {item.name: item.reason for item in features.skipped.values()}
    check_remaining(features.entries, kept, found, unreadable)
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
    skipped = tuple(features.skipped[position] for position in sorted(features.skipped))
    odd = suspects(kept, features.table.array(EMBEDDING)[own_rows])
    data = TrainingData(classes, by_set(EMBEDDING), {first: by_set(before) for first, before in boundaries.items()})
    return data, Findings(skipped, found, odd)


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
    names = (TRAIN, VALIDATION, *sorted({entry.set for entry in entries} - {TRAIN, VALIDATION}, key=natural_key))
    return {name: [entry for entry in entries if entry.set == name] for name in names}


def _classes_by_set(entries: Sequence[Entry]) -> dict[str, set[str]]:
    classes: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        classes[entry.set].add(entry.label)
    return classes


def _check_recipe(recipe: Recipe, field: str, limits: TrainLimits, model: Model) -> None:
    _check_stages(recipe, field, model)
    if recipe.optimizer is Optimizer.LBFGS and (recipe.kind, recipe.strategy) != (HeadKind.LINEAR, Strategy.HEAD):
        raise InvalidInput("L-BFGS trains linear heads with strategy head only", field=f"{field}.optimizer")
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
