"""Which pictures a model is not trained on, so that its predictions for them are out-of-fold.

Every picture of the training set is held out once. A large set holds out one fifth only, because the interval of a
fifth is narrow enough, and every fold costs a training. Near-copies of a picture are in the same fold: a model that has
seen one of them would predict the other too well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gramlet_server.train.arrays import Labels

HOLD_OUT_SHARE = 5
"""A single held-out part is a fifth of the pictures. It is judged in as many groups."""

# Pictures up to which there are so many folds. With unfrozen stages an epoch takes seconds instead of milliseconds.
_FOLDS = ((2_000, 5), (20_000, 3))
_FOLDS_UNFROZEN = ((2_000, 3),)


@dataclass(frozen=True)
class Folds:
    """The folds of a training set.

    Attributes:
        count: How many models are trained beside the final one.
        fold: (n,) the fold that holds each picture out; -1 for pictures that all models are trained on.
        group: (n,) pictures of a group are judged by choices that the other groups made; -1 as in `fold`.
    """

    count: int
    fold: Labels
    group: Labels

    @property
    def covered(self) -> NDArray[np.bool_]:
        """(n,) whether a picture has an out-of-fold prediction."""
        return self.fold >= 0


def fold_count(pictures: int, *, unfrozen: bool) -> int:
    """How many folds a set of that size has; 1: one part is held out."""
    return next((count for limit, count in (_FOLDS_UNFROZEN if unfrozen else _FOLDS) if pictures <= limit), 1)


def make_folds(labels: Labels, groups: Labels, count: int, seed: int) -> Folds:
    """Deals the pictures of each class to the folds in turn, near-copies together, in an order drawn by seed.

    The only picture of a class is never held out: no model could predict it.

    Args:
        labels: (n,) classes of the pictures.
        groups: (n,) pictures with the same number are near-copies.
        count: Folds; 1 holds one fifth out.
        seed: Of the order.
    """
    parts = HOLD_OUT_SHARE if count == 1 else count
    dealt = _deal(labels, groups, parts, seed)
    if count > 1:
        return Folds(count, dealt, dealt)
    held = np.flatnonzero(dealt == 0)
    fold, group = np.full(len(labels), -1), np.full(len(labels), -1)
    fold[held] = 0
    group[held] = np.random.default_rng(seed).permutation(len(held)) % HOLD_OUT_SHARE
    return Folds(count, fold, group)


def _deal(labels: Labels, groups: Labels, parts: int, seed: int) -> Labels:
    order = np.random.default_rng(seed).permutation(len(labels))
    members: dict[int, list[int]] = {}
    for picture in order.tolist():
        members.setdefault(int(groups[picture]), []).append(picture)
    by_class: dict[int, list[list[int]]] = {}
    for pictures in members.values():
        by_class.setdefault(int(labels[pictures[0]]), []).append(pictures)
    part = np.full(len(labels), -1)
    start = 0
    for label in sorted(by_class):
        together = by_class[label]
        if len(together) == 1:  # all are near-copies of each other: each is held out by itself
            together = [[picture] for picture in together[0]]
        if len(together) == 1:
            continue
        for number, pictures in enumerate(together):
            part[pictures] = (start + number) % parts
        # The next class goes on where this one ended, so that small classes do not all meet in the first folds.
        start += len(together)
    return part
