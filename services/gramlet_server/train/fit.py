"""Training of one head: a generator of epochs, deterministic by seed, that can be cut off and continued at any epoch.

Everything random is drawn from (seed, epoch), and the learning rate is a function of the epoch. A checkpoint therefore
needs nothing but the weights, the optimizer's state, and the history of the epochs.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from gramlet.json_codec import from_json, to_json
from gramlet.train.configuration import TRAIN, VALIDATION, ClassWeights, Metric, Optimizer, Recipe
from gramlet.train.types import Epoch, Outcome, Step
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from gramlet_server.train import optimizers, report
from gramlet_server.train.classifier import (
    HeadWeights,
    State,
    TrainedHead,
    added,
    build_head,
    difference,
    from_safetensors,
    to_safetensors,
)
from gramlet_server.train.data import Samples, TrainingData, shuffled_batches
from gramlet_server.train.optimizers import Phase

STEP_SECONDS = 0.5
"""Least time between two Step events."""


@dataclass(frozen=True)
class Snapshot:
    """Weights after an epoch: the head's, and the late stages' (empty while those are the network's own)."""

    head: State
    late: State
    epoch: int


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
        best: The weights of the best epoch so far; None before the first.
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
        self.device = torch.device(device)
        self.best: Snapshot | None = None
        channels = data.embeddings[TRAIN].array.shape[1]
        self.head = build_head(recipe.kind, channels, len(data.classes), recipe.seed).to(self.device)
        self.late = copy.deepcopy(late).to(self.device).requires_grad_(True) if late is not None else None
        self._base = late.state_dict() if late is not None else {}
        self._phases = optimizers.phases(recipe, data)
        self._class_weights = _class_weights(recipe, data).to(self.device)
        self._progress = _Progress()
        self._optimizer = self._new_optimizer()
        if checkpoint is not None:
            self._restore(checkpoint)

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
            while self._progress.phase_epoch < phase.epochs and not self._is_out_of_patience():
                yield from self._epoch(phase)
            self._next_phase()

    def finish(self) -> TrainedHead:
        """The best epoch's weights as they will be served: calibrated on the validation set, reported on every set.

        Needs an epoch. Training cannot go on afterwards.
        """
        assert self.best is not None, "no epoch is done"
        best, recipe, classes = self.best, self.recipe, self.data.classes
        delta = difference(self._base, best.late) if best.late else {}
        # The store keeps the difference, so the reports are about the weights that base + difference gives.
        served = replace(best, late=added(self._base, delta)) if best.late else best
        samples = self.data.boundaries[recipe.stages[0]] if best.late else self.data.embeddings
        logits = {name: self.logits(samples[name], served) for name in samples if name != TRAIN}
        labels = {name: samples[name].labels for name in logits}
        temperature = report.temperature(logits[VALIDATION], labels[VALIDATION]) if recipe.calibrate else 1.0
        reports = tuple(report.report(name, classes, logits[name], labels[name], temperature) for name in logits)
        seconds = sum(epoch.seconds for epoch in self.history)
        outcome = Outcome(recipe, reports, self.history, best.epoch, temperature, seconds)
        return TrainedHead(HeadWeights(best.head, delta), recipe.stages if best.late else (), outcome)

    def logits(self, samples: Samples, weights: Snapshot) -> NDArray[np.float64]:
        """(N, classes), not calibrated, of boundary activations if the weights have late stages, else of embeddings."""
        self._load(weights)
        self._evaluation_mode()
        with torch.inference_mode():
            batches = [
                self._forward(inputs, bool(weights.late))
                for inputs, _ in samples.in_order(self.recipe.batch_size, self.device)
            ]
        return np.concatenate([batch.double().cpu().numpy() for batch in batches])

    # Checkpoints

    def checkpoint(self) -> bytes:
        """A safetensors file from which training goes on, bit for bit, after the last epoch. Take it between epochs."""
        tensors, rest = optimizers.state_of(self._optimizer)
        states = {"head": self.head.state_dict(), "optimizer": tensors}
        if self.late is not None and any(phase.late for phase in self._phases[: self._progress.phase + 1]):
            states["late"] = self.late.state_dict()
        if self.best is not None:
            states |= {"best_head": self.best.head, "best_late": self.best.late}
        description = {"progress": json.loads(to_json(self._progress)), "optimizer": rest}
        return to_safetensors(json.dumps(description), states)

    def _restore(self, checkpoint: bytes) -> None:
        names = ("head", "late", "best_head", "best_late", "optimizer")
        description, states = from_safetensors(checkpoint, names)
        described = json.loads(description)
        self._progress = from_json(_Progress, json.dumps(described["progress"]).encode())
        self.head.load_state_dict(states["head"])
        if self.late is not None and states["late"]:
            self.late.load_state_dict(states["late"])
        if best := self._progress.best:
            self.best = Snapshot(states["best_head"], states["best_late"], best.epoch)
        if self._progress.phase < len(self._phases):
            self._optimizer = self._new_optimizer()
            optimizers.restore(self._optimizer, states["optimizer"], described["optimizer"])

    # One epoch

    def _epoch(self, phase: Phase) -> Iterator[Step | Epoch]:
        started = reported = time.perf_counter()
        rates = optimizers.set_learning_rates(self._optimizer, self.recipe, phase, self._progress.phase_epoch)
        samples, validation = phase.samples[TRAIN], phase.samples[VALIDATION]
        batches = self._shuffled(len(samples))
        total = len(batches) + math.ceil(len(validation) / self.recipe.batch_size)
        losses: list[float] = []
        logits: list[NDArray[np.float64]] = []
        for done, _ in enumerate(self._batch_by_batch(phase, batches, losses, logits), 1):
            if time.perf_counter() - reported > STEP_SECONDS:
                reported = time.perf_counter()
                yield Step(self.number, self.epoch + 1, done, total)
        loss = sum(losses) / len(samples)
        yield self._record(phase, rates, loss, np.concatenate(logits), time.perf_counter() - started)

    def _batch_by_batch(
        self,
        phase: Phase,
        batches: list[NDArray[np.int64]],
        losses: list[float],
        logits: list[NDArray[np.float64]],
    ) -> Iterator[None]:
        """Trains on the batches, then evaluates the validation set. Yields after each batch of either.

        Appends to `losses` the summed loss of each training batch, and to `logits` (n, classes) of each validation
        batch.
        """
        self._training_mode(phase)
        for positions in batches:
            inputs, labels = phase.samples[TRAIN].batch(positions, self.device)
            losses.append(self._train_on(phase, inputs, labels) * len(positions))
            yield
        self._evaluation_mode()
        for inputs, _ in phase.samples[VALIDATION].in_order(self.recipe.batch_size, self.device):
            with torch.inference_mode():
                logits.append(self._forward(inputs, phase.late).double().cpu().numpy())
            yield

    def _record(
        self, phase: Phase, rates: Mapping[str, float], loss: float, logits: NDArray[np.float64], seconds: float
    ) -> Epoch:
        """Adds an epoch to the history, and keeps its weights if it is the best."""
        progress = self._progress
        metrics = report.metrics(logits, phase.samples[VALIDATION].labels)
        left = sum(later.epochs for later in self._phases[progress.phase :]) - progress.phase_epoch - 1
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
            best=False,
            seconds=seconds,
            seconds_left=seconds * left,
        )
        score, best = _score(self.recipe.metric, epoch), progress.best
        best_score = _score(self.recipe.metric, best) if best else (-math.inf, -math.inf)
        epoch = replace(epoch, best=score > best_score)
        if epoch.best:
            late = _copy(self.late) if phase.late and self.late is not None else {}
            self.best = Snapshot(_copy(self.head), late, epoch.epoch)
        self._progress = replace(
            progress,
            phase_epoch=progress.phase_epoch + 1,
            # A lower loss at the same accuracy makes a better head, but is no reason to train for longer.
            since_best=0 if score[0] > best_score[0] else progress.since_best + 1,
            history=(*progress.history, epoch),
        )
        return epoch

    def _train_on(self, phase: Phase, inputs: Tensor, labels: Tensor) -> float:
        """One step of the optimizer; returns the mean loss of the batch before it."""
        first: list[Tensor] = []

        def closure() -> Tensor:
            self._optimizer.zero_grad()
            logits = self._forward(inputs, phase.late)
            loss = functional.cross_entropy(
                logits, labels, weight=self._class_weights, label_smoothing=self.recipe.label_smoothing
            )
            first.append(loss.detach())
            if self.recipe.optimizer is Optimizer.LBFGS:  # torch's L-BFGS has no weight decay of its own
                squares = [weight.square().sum() for weight in self.head.parameters() if weight.dim() > 1]
                loss = loss + self.recipe.weight_decay / 2 * torch.stack(squares).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        self._optimizer.step(closure)  # type: ignore[arg-type]
        return first[0].item()

    def _forward(self, inputs: Tensor, late: bool) -> Tensor:
        if late:
            assert self.late is not None
            inputs = self.late(inputs).flatten(1)
        logits: Tensor = self.head(inputs)
        return logits

    def _shuffled(self, count: int) -> list[NDArray[np.int64]]:
        if self.recipe.optimizer is Optimizer.LBFGS:
            return [np.arange(count)]
        return shuffled_batches(count, self.recipe.batch_size, (self.recipe.seed, self.epoch))

    # Phases

    def _is_out_of_patience(self) -> bool:
        return 0 < self.recipe.patience <= self._progress.since_best

    def _next_phase(self) -> None:
        self._progress = _Progress(phase=self._progress.phase + 1, history=self.history)
        if self._progress.phase < len(self._phases):
            if self.best is not None:
                self._load(self.best)
            self._optimizer = self._new_optimizer()

    def _new_optimizer(self) -> torch.optim.Optimizer:
        late = self.late if self._phases[self._progress.phase].late else None
        stages = {name: late.get_submodule(name) for name in self.recipe.stages} if late is not None else {}
        return optimizers.build(self.recipe, self.head, stages)

    def _training_mode(self, phase: Phase) -> None:
        self.head.train()
        if phase.late and self.late is not None:
            # In evaluation mode BatchNorm uses the statistics of the pretraining, and keeps them.
            self.late.train(self.recipe.update_batch_norm)

    def _evaluation_mode(self) -> None:
        self.head.eval()
        if self.late is not None:
            self.late.eval()

    def _load(self, weights: Snapshot) -> None:
        self.head.load_state_dict(weights.head)
        if weights.late and self.late is not None:
            self.late.load_state_dict(weights.late)


def _class_weights(recipe: Recipe, data: TrainingData) -> Tensor:
    counts = np.bincount(data.embeddings[TRAIN].labels, minlength=len(data.classes))
    if recipe.class_weights is ClassWeights.NONE:
        return torch.ones(len(counts))
    return torch.from_numpy(counts.sum() / (len(counts) * counts)).float()


def _score(metric: Metric, epoch: Epoch) -> tuple[float, float]:
    """More is better; between equal accuracies or F1 scores the loss decides."""
    loss = epoch.validation_loss
    first = {Metric.LOSS: -loss, Metric.ACCURACY: epoch.accuracy, Metric.MACRO_F1: epoch.macro_f1}[metric]
    return first, -loss


def _copy(module: nn.Module) -> State:
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}
