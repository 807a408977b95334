"""Training by one recipe: a generator of epochs, deterministic by seed, that can be cut off and continued at any epoch.

The final model, trained on every picture, and the models of the folds, each trained without the pictures of its fold,
go through the same epochs side by side. After each epoch the folds' models predict the pictures that they have not
seen. Those predictions choose the epoch, and with it the weights of the final model; they also give the temperature
and the report. So no picture is kept from the final model, and no figure comes from pictures that a model
was trained on.

Everything random is drawn from (seed, epoch), and the learning rate is a function of the epoch. A checkpoint therefore
needs nothing but the weights, the optimizers' states, the predictions, and the history of the epochs.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from gramlet.json_codec import from_json, to_json
from gramlet.train.configuration import OUT_OF_FOLD, TRAIN, ClassWeights, HeadKind, Recipe
from gramlet.train.types import Epoch, Outcome, Step
from torch import Tensor, nn

from gramlet_server.train import optimizers, report
from gramlet_server.train.arrays import Floats, Labels
from gramlet_server.train.calibration import Calibrated, calibrate
from gramlet_server.train.classifier import (
    HeadWeights,
    OutOfFold,
    State,
    TrainedHead,
    added,
    difference,
    from_safetensors,
    to_safetensors,
)
from gramlet_server.train.data import Samples, TrainingData
from gramlet_server.train.findings import IMBALANCE
from gramlet_server.train.folds import fold_count, make_folds
from gramlet_server.train.learner import Learner, Snapshot
from gramlet_server.train.optimizers import LOGISTIC_PATIENCE, Phase
from gramlet_server.train.selection import Selection

STEP_SECONDS = 0.5
"""Least time between two Step events."""
STAGE_PATIENCE = 3
"""With unfrozen stages, training stops after so many epochs that do not improve on the best one, or on the head."""


@dataclass(frozen=True)
class _Progress:
    """How far a training is.

    Attributes:
        phase: Position of the current phase.
        phase_epoch: Epochs done in it.
        since_best: Epochs of it since the metric last improved.
        history: All epochs done.
    """

    phase: int = 0
    phase_epoch: int = 0
    since_best: int = 0
    history: tuple[Epoch, ...] = ()

    @property
    def best(self) -> Epoch | None:
        return next((epoch for epoch in reversed(self.history) if epoch.best), None)


class Fit:
    """Training of one head by one recipe.

    Args:
        recipe: How to train. `late` has the stages that it unfreezes.
        data: What to train on; with `late`, `data.boundaries` has the first of those stages.
        late: The network's late stages at its own weights, boundary activations (N, C, H, W) → (N, C', 1, 1). It is
            copied and never written to. None where the network stays frozen.
        number: Position of the recipe in its run, for the events.
        device: Where to train.
        checkpoint: What `checkpoint` returned for the same recipe and data: training goes on from there.

    Attributes:
        best: The final model's weights of the best epoch so far; None before the first.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: TrainingData,
        *,
        late: nn.Module | None = None,
        number: int = 0,
        device: torch.device | str = "cpu",
        checkpoint: bytes | None = None,
    ) -> None:
        self.recipe = recipe
        self.number = number
        self.data = data
        self.best: Snapshot | None = None
        self._fold_best: list[Snapshot] = []
        self._base = late.state_dict() if late is not None else {}
        self._phases = optimizers.phases(recipe, data)
        labels = data.picture_labels
        count = data.folds or fold_count(len(labels), unfrozen=late is not None)
        self._folds = make_folds(labels, data.copy_groups, count, data.seed)
        # The epochs of a logistic regression are strengths of its regularization; none is late.
        late_is_better = recipe.kind is not HeadKind.LOGISTIC
        self._selection = Selection(self._folds, labels, len(data.classes), recipe.metric, prefer_late=late_is_better)
        self._learners = self._new_learners(late, torch.device(device))
        self._progress = _Progress()
        self._begin()
        if checkpoint is not None:
            self._restore(checkpoint)

    @property
    def head(self) -> nn.Sequential:
        """The final model's head as it is now."""
        return self._learners[0].head

    @property
    def history(self) -> tuple[Epoch, ...]:
        """Every epoch so far."""
        return self._progress.history

    @property
    def epoch(self) -> int:
        """The last epoch done, counted from 1; 0 before the first."""
        return len(self.history)

    def epochs(self) -> Iterator[Step | Epoch]:
        """Trains to the end. Closing the generator stops within one batch."""
        while self._progress.phase < len(self._phases):
            phase = self._phases[self._progress.phase]
            while self._progress.phase_epoch < phase.epochs and not self._is_out_of_patience(phase):
                yield from self._epoch(phase)
            self._next_phase()

    def finish(self) -> TrainedHead:
        """The best epoch's weights as they will be served: calibrated and reported by predictions of unseen pictures.

        Needs an epoch. Training cannot go on afterwards.
        """
        assert self.best is not None, "no epoch is done"
        best, recipe, classes = self.best, self.recipe, self.data.classes
        delta = difference(self._base, best.late) if best.late else {}
        # The store keeps the difference, so the reports are about the weights that base + difference gives.
        served = replace(best, late=added(self._base, delta)) if best.late else best
        calibrated = self._calibrated()
        covered = self._folds.covered
        out_of_fold = OutOfFold(np.flatnonzero(covered), calibrated.logits)
        samples = self.data.boundaries[recipe.stages[0]] if best.late else self.data.embeddings
        logits = {
            name: self.logits(samples[name], served) / calibrated.temperature for name in samples if name != TRAIN
        }
        reports = [report.report(OUT_OF_FOLD, classes, calibrated.logits, self.data.picture_labels[covered])]
        reports += [report.report(name, classes, logits[name], samples[name].labels) for name in logits]
        seconds = sum(epoch.seconds for epoch in self.history)
        outcome = Outcome(recipe, tuple(reports), self.history, best.epoch, calibrated.temperature, seconds)
        weights = HeadWeights(best.head, delta)
        return TrainedHead(weights, recipe.stages if best.late else (), outcome, out_of_fold, logits)

    def logits(self, samples: Samples, weights: Snapshot) -> Floats:
        """(N, classes), not calibrated, of boundary activations if the weights have late stages, else of embeddings."""
        final = self._learners[0]
        final.load(weights)
        return np.concatenate(list(final.logits(samples, np.arange(len(samples)), bool(weights.late))))

    def _calibrated(self) -> Calibrated:
        covered = self._folds.covered
        logits = self._selection.predictions[covered]
        if not self.recipe.calibrate:
            return Calibrated(1.0, logits)
        return calibrate(logits, self.data.picture_labels[covered], self._folds.group[covered])

    # Checkpoints

    def checkpoint(self) -> bytes:
        """A safetensors file from which training goes on, bit for bit, after the last epoch. Take it between epochs."""
        late = any(phase.late for phase in self._phases[: self._progress.phase + 1])
        states: dict[str, State] = {}
        rests = []
        for number, learner in enumerate(self._learners):
            tensors, rest = learner.state(late)
            states |= {f"{number}/{name}": state for name, state in tensors.items()}
            rests.append(rest)
        for number, best in enumerate([self.best, *self._fold_best] if self.best else []):
            states |= {f"{number}/best_head": best.head, f"{number}/best_late": best.late}
        states["selection"] = {name: torch.from_numpy(value) for name, value in self._selection.state().items()}
        description = {"progress": json.loads(to_json(self._progress)), "optimizers": rests}
        return to_safetensors(json.dumps(description), states)

    def _restore(self, checkpoint: bytes) -> None:
        numbers = range(len(self._learners))
        parts = ("head", "late", "best_head", "best_late", "optimizer")
        names = [f"{number}/{part}" for number in numbers for part in parts]
        description, states = from_safetensors(checkpoint, [*names, "selection"])
        described = json.loads(description)
        self._progress = from_json(_Progress, json.dumps(described["progress"]).encode())
        self._selection.restore({name: value.numpy() for name, value in states["selection"].items()})
        self._begin()
        for number, learner in enumerate(self._learners if self._progress.phase < len(self._phases) else ()):
            own = {part: states[f"{number}/{part}"] for part in parts}
            learner.restore(own, described["optimizers"][number])
        if best := self._progress.best:
            self.best, *self._fold_best = (
                Snapshot(states[f"{number}/best_head"], states[f"{number}/best_late"], best.epoch) for number in numbers
            )

    # One epoch

    def _epoch(self, phase: Phase) -> Iterator[Step | Epoch]:
        started = reported = time.perf_counter()
        epoch = self._progress.phase_epoch
        rates, *_ = [learner.set_learning_rates(phase, epoch) for learner in self._learners]
        batches = [learner.batches(phase, self.epoch) for learner in self._learners]
        held = sum(math.ceil(len(learner.held) / self.recipe.batch_size) for learner in self._learners)
        total = sum(map(len, batches)) + held
        losses: list[float] = []
        logits = np.zeros((len(self._folds.fold), len(self.data.classes)))
        for done, _ in enumerate(self._batch_by_batch(phase, batches, losses, logits), 1):
            if time.perf_counter() - reported > STEP_SECONDS:
                reported = time.perf_counter()
                yield Step(self.number, self.epoch + 1, done, total)
        loss = sum(losses) / len(self._learners[0].rows)
        yield self._record(phase, rates, loss, logits, time.perf_counter() - started)

    def _batch_by_batch(
        self,
        phase: Phase,
        batches: list[list[Labels]],
        losses: list[float],
        logits: Floats,
    ) -> Iterator[None]:
        """Trains every model, then lets it predict the pictures of its fold. Yields after each batch of either.

        Appends to `losses` the summed loss of each batch of the final model, and fills `logits` (pictures, classes).
        """
        samples = phase.samples[TRAIN]
        for number, learner in enumerate(self._learners):
            for loss in learner.train(phase, batches[number]):
                if number == 0:
                    losses.append(loss)
                yield
            done = 0
            for batch in learner.logits(samples, learner.held, phase.late):
                pictures = learner.held[done : done + len(batch)] // (1 + self.data.views)
                logits[pictures] = batch
                done += len(batch)
                yield

    def _record(self, phase: Phase, rates: Mapping[str, float], loss: float, logits: Floats, seconds: float) -> Epoch:
        """Adds an epoch to the history, and keeps its weights if it is the best."""
        progress, covered = self._progress, self._folds.covered
        metrics = report.metrics(logits[covered], self.data.picture_labels[covered])
        left = sum(later.epochs for later in self._phases[progress.phase :]) - progress.phase_epoch - 1
        best, longer = self._selection.offer(logits)
        epoch = Epoch(
            recipe=self.number,
            phase=phase.name,
            epoch=self.epoch + 1,
            epochs=self.epoch + 1 + left,
            loss=loss,
            validation_loss=metrics.loss,
            accuracy=metrics.accuracy,
            macro_f1=metrics.macro_f1,
            rates=dict(rates),
            best=best,
            seconds=seconds,
            seconds_left=seconds * left,
        )
        if best:
            final, *others = self._learners
            self.best = final.snapshot(epoch.epoch, phase.late)
            # The next phase starts from the best epoch in every fold too. After the last phase nobody needs it.
            is_last = progress.phase == len(self._phases) - 1
            self._fold_best = [] if is_last else [other.snapshot(epoch.epoch, phase.late) for other in others]
        self._progress = replace(
            progress,
            phase_epoch=progress.phase_epoch + 1,
            since_best=0 if longer else progress.since_best + 1,
            history=(*progress.history, epoch),
        )
        return epoch

    # Phases and models

    def _new_learners(self, late: nn.Module | None, device: torch.device) -> list[Learner]:
        """The final model, then one for each fold."""
        embeddings, views = self.data.embeddings[TRAIN], 1 + self.data.views
        rows = np.arange(len(embeddings))
        fold_of_row = np.repeat(self._folds.fold, views)
        own = rows[::views]  # the picture itself comes before its augmented views
        weights = class_weights(self.recipe, self.data)
        shape = (embeddings.array.shape[1], len(self.data.classes))
        parts = [(rows, own[:0])]
        parts += [(rows[fold_of_row != fold], own[self._folds.fold == fold]) for fold in range(self._folds.count)]
        return [Learner(self.recipe, shape, *part, weights, late, device) for part in parts]

    def _is_out_of_patience(self, phase: Phase) -> bool:
        patience = self.recipe.patience
        if phase.late:
            patience = min(patience, STAGE_PATIENCE)
        elif self.recipe.kind is HeadKind.LOGISTIC:
            patience = LOGISTIC_PATIENCE
        return 0 < patience <= self._progress.since_best

    def _next_phase(self) -> None:
        self._progress = _Progress(phase=self._progress.phase + 1, history=self.history)
        if self._progress.phase < len(self._phases):
            self._selection.next_phase()
            if self.best is not None:
                for learner, best in zip(self._learners, [self.best, *self._fold_best], strict=True):
                    learner.load(best)
            self._begin()

    def _begin(self) -> None:
        if self._progress.phase < len(self._phases):
            for learner in self._learners:
                learner.begin(self._phases[self._progress.phase])


def class_weights(recipe: Recipe, data: TrainingData) -> Tensor:
    """(classes,) weights in the training loss."""
    counts = np.bincount(data.picture_labels, minlength=len(data.classes))
    chosen = recipe.class_weights
    if chosen is ClassWeights.AUTO:
        chosen = ClassWeights.BALANCED if counts.max() >= IMBALANCE * counts.min() else ClassWeights.NONE
    if chosen is ClassWeights.NONE:
        return torch.ones(len(counts))
    return torch.from_numpy(counts.sum() / (len(counts) * counts)).float()
