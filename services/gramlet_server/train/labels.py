"""Which pictures are probably mislabelled, by the labels of their nearest training pictures.

A head that was trained on wrong labels repeats them where they are many, such as 40 % of one class. Neighbors are more
robust, for two reasons. The pictures that confident learning finds are no neighbors in the next round, so that wrong
labels confirm each other less and less. And each class has one vote, divided among its pictures, so that a class which
has lost pictures to another is not outvoted by it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gramlet_server.train import report
from gramlet_server.train.arrays import Floats, Labels, blocks

# Chosen by measurement: tests/quality/heads.py.
NEIGHBORS = 20
FEWEST_NEIGHBORS = 5
MARGIN = 0.3
"""A label is suspected if the votes for another class exceed those for the label by more than this share of all."""
ROUNDS = 3
SPARE = 4
"""So many times the neighbors are remembered, because some of them turn out to be suspects themselves."""
REFERENCE = 10_000
"""Training pictures that may be neighbors, at most."""


@dataclass(frozen=True)
class Mislabelled:
    """A picture by its position, the position of the class that is probably right, and its share of the votes."""

    picture: int
    suggestion: int
    share: float


def mislabelled(features: NDArray[np.float32], labels: Labels, groups: Labels, classes: int) -> list[Mislabelled]:
    """Pictures whose label is probably wrong, the clearest first.

    Args:
        features: (n, C) pooled activations, not negative. They are overwritten.
        labels: (n,).
        groups: (n,) training pictures with the same number are near-copies, which do not vote for each other; -1 for
            pictures of other sets, which do not vote at all.
        classes: How many there are.
    """
    voters = np.flatnonzero(groups >= 0)
    count = int(np.clip(len(voters) // (2 * classes), FEWEST_NEIGHBORS, NEIGHBORS))
    near = _nearest(_directions(features, voters), groups, voters[:: math.ceil(len(voters) / REFERENCE)], count)
    trusted = np.ones(len(labels), dtype=bool)
    for _ in range(ROUNDS):
        votes = _votes(near, labels, trusted, count, classes)
        trusted[:] = True
        trusted[voters[confident_errors(labels[voters], votes[voters])]] = False
    votes = _votes(near, labels, trusted, count, classes)
    margins = votes.max(axis=1) - votes[np.arange(len(labels)), labels]
    found = np.flatnonzero(margins > MARGIN)
    order = found[np.argsort(-margins[found], kind="stable")]
    return [Mislabelled(int(i), int(votes[i].argmax()), float(votes[i].max())) for i in order]


def confident_errors(labels: Labels, probabilities: Floats) -> list[int]:
    """Pictures whose label is probably wrong, the clearest first.

    Confident learning with pruning by noise rate (Northcutt, Jiang and Chuang, JAIR 2021, sections 3.1 and 3.2). A
    picture counts confidently into a class if the probability of the class is at least its mean among the pictures
    labelled so. The counts give the number of pictures of each label that belong to each other class; so many are
    returned, those with the largest margin between the two probabilities.

    Args:
        labels: (n,).
        probabilities: (n, classes), from which the pictures' own labels were left out.
    """
    classes = probabilities.shape[1]
    counts = np.bincount(labels, minlength=classes)
    limits = [probabilities[labels == c, c].mean() if counts[c] else math.inf for c in range(classes)]
    confident = np.where(probabilities >= limits, probabilities, 0)
    into = np.where(confident.max(axis=1) > 0, confident.argmax(axis=1), labels)
    sure = confident.max(axis=1) > 0
    joint = report.confusion(into[sure], labels[sure], classes)
    rates = joint / np.maximum(joint.sum(axis=1, keepdims=True), 1)
    found: dict[int, float] = {}
    for label, other in np.argwhere(joint > 0).tolist():
        if label == other:
            continue
        own = np.flatnonzero((labels == label) & (probabilities.argmax(axis=1) == other))
        margins = probabilities[own, other] - probabilities[own, label]
        for i in np.argsort(-margins, kind="stable")[: round(rates[label, other] * counts[label])]:
            found[int(own[i])] = float(margins[i])
    return sorted(found, key=lambda n: (-found[n], n))


def _directions(features: NDArray[np.float32], voters: Labels) -> NDArray[np.float32]:
    """Unit vectors (n, C) whose cosine is the similarity of two pictures.

    Square roots of the activations keep a few large ones from deciding alone (the Hellinger kernel: Arandjelović and
    Zisserman, CVPR 2012).
    """
    for block in blocks(*features.shape):
        roots = np.sqrt(np.maximum(features[block], 0), dtype=np.float32)
        features[block] = _unit(roots)
    votes = np.isin(np.arange(len(features)), voters)[:, None]
    mean = features.mean(axis=0, where=votes)  # which copies no rows
    for block in blocks(*features.shape):
        features[block] = _unit(features[block] - mean)
    return features


def _unit(points: NDArray[np.float32]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    return result


def _nearest(points: NDArray[np.float32], groups: Labels, reference: Labels, count: int) -> Labels:
    """(n, m) positions of the nearest of the reference pictures, the nearest first; -1 where there are no more."""
    wanted = min(SPARE * count, len(reference))
    near = np.empty((len(points), wanted), dtype=np.int64)
    candidates = points[reference]
    for block in blocks(len(points), len(reference)):
        similar = points[block] @ candidates.T
        own = groups[block, None] == groups[reference]  # never true of other sets: those have -1
        similar[own] = -np.inf
        best = np.argsort(-similar, axis=1, kind="stable")[:, :wanted]
        closest = np.take_along_axis(similar, best, axis=1)
        near[block] = np.where(np.isfinite(closest), reference[best], -1)
    return near


def _votes(near: Labels, labels: Labels, trusted: NDArray[np.bool_], count: int, classes: int) -> Floats:
    """(n, classes) shares of the votes of the nearest trusted pictures; all 0 where there are none."""
    voting = trusted[near] & (near >= 0)
    voting &= voting.cumsum(axis=1) <= count
    voters = np.unique(near[near >= 0])
    sizes = np.bincount(labels[voters][trusted[voters]], minlength=classes)
    shares = np.stack([(voting & (labels[near] == c)).sum(axis=1) / max(1, sizes[c]) for c in range(classes)], axis=1)
    result: Floats = shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-12)
    return result
