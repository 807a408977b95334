"""Which epoch of a training is kept, by out-of-fold predictions, and predictions that no choice has flattered.

The chosen epoch is the last one whose score is not worse than the best by more than one standard error: towards the end
of a schedule the learning rate is small, and such weights are better than those of a lucky earlier epoch.

The best of many epochs looks better on the pictures that chose it than on others. So each group of pictures gets its
predictions from the epoch that the *other* groups choose: neither the training of its model nor the choice of the epoch
has seen the label of a picture. Reports, temperatures and prediction sets are computed from those predictions.
"""

from __future__ import annotations

import numpy as np
from gramlet.train.configuration import Metric
from numpy.typing import NDArray

from gramlet_server.train import report
from gramlet_server.train.arrays import Floats, Labels
from gramlet_server.train.folds import Folds


class Selection:
    """Follows the epochs of a training.

    Args:
        folds: Who predicts which picture.
        labels: (n,) of the pictures.
        classes: How many there are.
        metric: What chooses; between equal accuracies or F1 scores the loss decides.
        prefer_late: Whether an epoch that is as good as the best is chosen.

    Attributes:
        predictions: (n, classes) logits of each covered picture, from the epoch that the other groups chose.
    """

    def __init__(self, folds: Folds, labels: Labels, classes: int, metric: Metric, *, prefer_late: bool) -> None:
        self._labels, self._metric, self._prefer_late = labels, metric, prefer_late
        covered, groups = folds.covered, np.unique(folds.group[folds.covered])
        # The last judge is everybody: it chooses the epoch that is kept. A lone group has no others to choose for it.
        self._own = [folds.group == group for group in groups]
        self._judges = [covered & ~own if (covered & ~own).any() else covered for own in self._own] + [covered]
        self.predictions: Floats = np.zeros((len(labels), classes))
        self._scores: Floats = np.full((len(self._judges), 2), -np.inf)
        self._losses: Floats = np.full((len(self._judges), len(labels)), np.inf)
        self._incumbents: Floats = np.full_like(self._losses, np.inf)

    def offer(self, logits: Floats) -> tuple[bool, bool]:
        """Shows the out-of-fold logits (n, classes) of an epoch.

        Returns:
            Whether the epoch is chosen, and whether it is the best by the metric itself. A lower loss at the same
            accuracy makes a better head, but is no reason to train for longer.
        """
        losses = report.losses(logits, self._labels)
        chosen, longer = False, False
        for number, judge in enumerate(self._judges):
            chosen = longer = False
            found = score(self._metric, logits[judge], self._labels[judge])
            is_best = found > tuple(self._scores[number])
            if not self._beats_incumbent(number, losses, judge):
                continue
            if not (is_best or (self._prefer_late and self._is_as_good(number, found, losses, judge))):
                continue
            chosen = True
            if number < len(self._own):
                self.predictions[self._own[number]] = logits[self._own[number]]
            if is_best:
                longer = found[0] > self._scores[number][0]
                self._scores[number], self._losses[number] = found, losses
        return chosen, longer

    def next_phase(self) -> None:
        """What was chosen so far becomes the incumbent, which a later phase must beat beyond chance."""
        self._incumbents = self._losses.copy()

    def state(self) -> dict[str, Floats]:
        """For a checkpoint."""
        return {
            "predictions": self.predictions,
            "scores": self._scores,
            "losses": self._losses,
            "incumbents": self._incumbents,
        }

    def restore(self, state: dict[str, Floats]) -> None:
        """Goes on from what `state` gave."""
        self.predictions, self._scores = state["predictions"].copy(), state["scores"].copy()
        self._losses, self._incumbents = state["losses"].copy(), state["incumbents"].copy()

    def _is_as_good(self, number: int, found: tuple[float, float], losses: Floats, judge: NDArray[np.bool_]) -> bool:
        if self._metric is not Metric.LOSS:
            return bool(found[0] >= self._scores[number][0])
        worse = (losses - self._losses[number])[judge]
        return bool(worse.mean() <= worse.std(ddof=min(1, len(worse) - 1)) / np.sqrt(len(worse)))

    def _beats_incumbent(self, number: int, losses: Floats, judge: NDArray[np.bool_]) -> bool:
        """The paired difference of the losses exceeds its standard error (the one-standard-error rule)."""
        gains = (self._incumbents[number] - losses)[judge]
        if np.isinf(gains).any():  # the first phase has no incumbent
            return True
        return bool(gains.mean() > gains.std(ddof=min(1, len(gains) - 1)) / np.sqrt(len(gains)))


def score(metric: Metric, logits: Floats, labels: Labels) -> tuple[float, float]:
    """How good (N, classes) logits are by a metric; more is better. The second number decides between equal ones."""
    found = report.metrics(logits, labels)
    first = {Metric.LOSS: -found.loss, Metric.ACCURACY: found.accuracy, Metric.MACRO_F1: found.macro_f1}[metric]
    return first, -found.loss
