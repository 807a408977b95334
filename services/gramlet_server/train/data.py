"""The data set of a run: checked before any work, split, and looked over for what is odd about it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from gramlet.errors import InvalidInput
from gramlet.feature.types import Model
from gramlet.folders import natural_key
from gramlet.train.configuration import TRAIN, VALIDATION, Configuration, Entry, Recipe, Strategy
from gramlet.train.types import Duplicate, Suspect
from gramlet.types import check_name
from numpy.typing import NDArray

from gramlet_server.train.fit import is_full_batch_only

NEIGHBORS = 10
SUSPICIOUS_SHARE = 0.7
"""A picture is suspect if none of its nearest neighbors bears its label and this share agrees on another."""
UNFREEZABLE = ("layer1", "layer2", "layer3", "layer4")


@dataclass(frozen=True)
class Limits:
    """What a run may ask for."""

    pictures: int = 100_000
    recipes: int = 16
    epochs: int = 10_000
    views: int = 64
    size: int = 1024


def check_configuration(configuration: Configuration, limits: Limits, model: Model) -> None:
    """Finds what is wrong with a run before any work is done for it.

    Raises:
        InvalidInput: With the field at fault.
    """
    check_name(configuration.name, "name")
    _between(configuration.size, 32, limits.size, "size")
    _between(configuration.views, 0, limits.views, "views")
    _between(len(configuration.recipes), 1, limits.recipes, "recipes")
    if not 0 < configuration.validation_fraction < 1:
        raise InvalidInput("must be between 0 and 1", field="validation_fraction")
    for number, recipe in enumerate(configuration.recipes):
        _check_recipe(recipe, f"recipes[{number}]", limits, model)


def check_entries(entries: Sequence[Entry], limits: Limits) -> None:
    """Finds what is wrong with a data set from its names and labels alone.

    Raises:
        InvalidInput: Fewer than two classes, a class of another set that the training set does not have, a name that
            stands twice, too many pictures.
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


def check_classes(entries: Sequence[Entry], kept: Sequence[Entry]) -> None:
    """Finds classes that lost all their training pictures.

    Raises:
        InvalidInput: Every training picture of a class was unreadable or a conflicting duplicate.
    """
    if empty := sorted(_classes_by_set(entries)[TRAIN] - _classes_by_set(kept).get(TRAIN, set())):
        raise InvalidInput(f"class {empty[0]!r} has no readable training picture left", field="entries")


def split(entries: Sequence[Entry], fraction: float, seed: int) -> list[Entry]:
    """Gives a data set without `val` one: a share of each class of `train`, drawn by seed.

    At least one picture of every class that has two goes to `val`, and at least one stays.

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
        # By name, so that the split does not depend on the order in which pictures are listed.
        members = sorted(by_class[label], key=lambda number: entries[number].name)
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        chosen.update(members[i] for i in rng.permutation(len(members))[:count])
    if not chosen:
        raise InvalidInput(f"no class has two pictures: give a set {VALIDATION!r}", field="entries")
    return [replace(entry, set=VALIDATION) if number in chosen else entry for number, entry in enumerate(entries)]


def duplicates(entries: Sequence[Entry]) -> tuple[list[Entry], tuple[Duplicate, ...]]:
    """Takes out pictures that stand twice, byte for byte: the later of two, or both where their labels differ.

    Entries must have their `sha256`. Without this, a picture could be trained on and judged on.
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
    """Pictures whose nearest neighbors (cosine, all sets but their own copy) agree on another label: most agreed first.

    Args:
        entries: What is looked over, `train` and `val` only.
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


def sets_of(entries: Sequence[Entry]) -> Mapping[str, list[int]]:
    """Positions of each set's entries: `train`, `val`, then the further sets by name."""
    found: dict[str, list[int]] = {TRAIN: [], VALIDATION: []}
    for name in sorted({entry.set for entry in entries} - set(found), key=natural_key):
        found[name] = []
    for number, entry in enumerate(entries):
        found[entry.set].append(number)
    return found


def _classes_by_set(entries: Sequence[Entry]) -> dict[str, set[str]]:
    classes: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        classes[entry.set].add(entry.label)
    return classes


def _check_recipe(recipe: Recipe, field: str, limits: Limits, model: Model) -> None:
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
    if is_full_batch_only(recipe):
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


def _between(value: int, low: int, high: int, field: str) -> None:
    if not low <= value <= high:
        raise InvalidInput(f"{value} is not between {low} and {high}", field=field)
