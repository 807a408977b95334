"""Which of several recipes is kept, what its figures are worth after that choice, and what it has found in the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from gramlet.errors import counted
from gramlet.train.configuration import OUT_OF_FOLD, TRAIN, Metric
from gramlet.train.types import Findings, Outcome, Suspect
from numpy.typing import NDArray

from gramlet_server.train import findings, report
from gramlet_server.train.arrays import Floats, Labels
from gramlet_server.train.calibration import conformal_scores
from gramlet_server.train.classifier import State, TrainedHead
from gramlet_server.train.data import Prepared
from gramlet_server.train.labels import mislabelled
from gramlet_server.train.selection import score
from gramlet_server.train.typicality import typicality_reference

GROUPS = 5
"""Groups of pictures, each predicted by the recipe that the others choose."""


@dataclass(frozen=True)
class Chosen:
    """The recipe that is kept.

    Attributes:
        number: Its position.
        outcome: Its outcome. The report `out_of_fold` is corrected for the choice among the recipes.
    """

    number: int
    outcome: Outcome


def choose(trained: Sequence[TrainedHead], prepared: Prepared) -> Chosen:
    """Chooses by the metric of the first recipe, on the pictures that every recipe has predicted.

    The best of several recipes looks better on the pictures that chose it than on others. So for the report of the
    kept head each group of pictures is predicted by the recipe that the other groups choose.
    """
    labels = prepared.data.picture_labels
    common = np.flatnonzero(np.bincount(np.concatenate([h.out_of_fold.pictures for h in trained])) == len(trained))
    logits = [head.out_of_fold.logits[np.isin(head.out_of_fold.pictures, common)] for head in trained]
    own = labels[common]
    metric = trained[0].outcome.recipe.metric
    number = _best(logits, own, metric)
    outcome = trained[number].outcome
    if len(trained) == 1 or len(common) < 2:
        return Chosen(number, outcome)
    group = np.random.default_rng(prepared.data.seed).permutation(len(common)) % GROUPS
    honest = logits[number].copy()
    for part in np.unique(group):
        others = group != part
        honest[~others] = logits[_best([each[others] for each in logits], own[others], metric)][~others]
    corrected = report.report(OUT_OF_FOLD, prepared.data.classes, honest, own)
    reports = tuple(corrected if found.set == OUT_OF_FOLD else found for found in outcome.reports)
    return Chosen(number, replace(outcome, reports=reports))


def evidence(kept: TrainedHead, prepared: Prepared) -> State:
    """What the prediction sets and the typicality of a head are computed from."""
    data, pictures = prepared.data, kept.out_of_fold.pictures
    scores = conformal_scores(report.softmax(kept.out_of_fold.logits), data.picture_labels[pictures])
    samples = (data.boundaries[kept.outcome.recipe.stages[0]] if kept.stages else data.embeddings)[TRAIN]
    own = samples.rows[:: 1 + data.views]
    return {
        "scores": torch.from_numpy(scores.astype(np.float32)),
        **typicality_reference(samples.array, own, data.seed),
    }


def all_findings(trained: Sequence[TrainedHead], chosen: Chosen, prepared: Prepared) -> Findings:
    """The findings about the data, with the suspects, and with warnings about the figures of the kept head."""
    kept, labels = trained[chosen.number], prepared.data.picture_labels
    counts = Counter({label: int((labels == i).sum()) for i, label in enumerate(prepared.data.classes)})
    warnings = findings.warnings(chosen.outcome, counts, prepared.findings.near_duplicates)
    equal = [
        head.outcome.recipe.title
        for number, head in enumerate(trained)
        if number != chosen.number and _p_value(kept, head, labels) >= findings.SAME
    ]
    if equal:
        warnings.append(
            f"{', '.join(equal)}: no more and no less accurate than {kept.outcome.recipe.title}, as far as "
            f"{counted(len(kept.out_of_fold.pictures), 'picture')} can tell (McNemar's test)"
        )
    return replace(prepared.findings, suspects=_suspects(prepared), warnings=tuple(warnings))


def _suspects(prepared: Prepared) -> tuple[Suspect, ...]:
    """Of every set, by the labels of the nearest training pictures in the features of the frozen network."""
    data, classes = prepared.data, prepared.data.classes
    others = {name: samples for name, samples in data.embeddings.items() if name != TRAIN}
    training = data.embeddings[TRAIN]
    rows = [(training.array, training.rows[:: 1 + data.views]), *((each.array, each.rows) for each in others.values())]
    labels = np.concatenate([data.picture_labels, *(each.labels for each in others.values())])
    groups = np.full(len(labels), -1)
    groups[: len(data.picture_labels)] = data.copy_groups
    entries = [entry for name in (TRAIN, *others) for entry in prepared.entries[name]]
    return tuple(
        Suspect(entry.name, entry.set, entry.label, classes[found.suggestion], found.share)
        for found in mislabelled(_gathered(rows), labels, groups, len(classes))
        for entry in (entries[found.picture],)
    )


def _gathered(parts: Sequence[tuple[NDArray[Any], Labels]]) -> NDArray[np.float32]:
    """(n, C): rows of arrays one after the other, each copied once."""
    ends = np.cumsum([len(rows) for _, rows in parts])
    found = np.empty((ends[-1], *parts[0][0].shape[1:]), np.float32)
    for (array, rows), end in zip(parts, ends, strict=True):
        np.take(array, rows, axis=0, out=found[end - len(rows) : end], mode="clip")  # "raise" makes a second copy
    return found


def _p_value(kept: TrainedHead, other: TrainedHead, labels: Labels) -> float:
    common = np.intersect1d(kept.out_of_fold.pictures, other.out_of_fold.pictures)
    return findings.told_apart(labels[common], *(_of(head, common) for head in (kept, other)))


def _of(head: TrainedHead, pictures: Labels) -> Floats:
    return head.out_of_fold.logits[np.isin(head.out_of_fold.pictures, pictures)]


def _best(logits: Sequence[Floats], labels: Labels, metric: Metric) -> int:
    if not len(labels):
        return 0
    return max(range(len(logits)), key=lambda number: score(metric, logits[number], labels))
