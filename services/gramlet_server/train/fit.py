"""Training of one head: a generator of epochs, deterministic by seed, that can be cut off and continued anywhere.

Everything random is drawn anew from (seed, epoch), and the learning rate is a function of the epoch, so a checkpoint
needs nothing but the weights, the optimizer's state and the record of the best epoch.
"""

from __future__ import annotations

import copy
import io
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from gramlet.train.configuration import (
    TRAIN,
    VALIDATION,
    ClassWeights,
    HeadKind,
    Metric,
    Optimizer,
    Recipe,
    Schedule,
    Strategy,
)
from gramlet.train.types import Epoch, Step
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from gramlet_server.train import head as heads
from gramlet_server.train import report

LEARNING_RATES = {Optimizer.ADAMW: 1e-3, Optimizer.SGD: 1e-2, Optimizer.LBFGS: 1.0}
STEP_SECONDS = 0.5
"""Steps are told at most this often."""
LBFGS_ITERATIONS = 10
"""L-BFGS iterations that make one epoch."""

Labels = NDArray[np.int64]
State = dict[str, Tensor]


@dataclass(frozen=True)
class Samples:
    """Rows of an array with their labels. The array may be a memory map: batches are copied out of it one at a time.

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

    def batch(self, positions: Labels, device: torch.device) -> tuple[Tensor, Tensor]:
        """Inputs (n, ...) float32 and labels (n,) of those positions."""
        inputs = torch.from_numpy(np.asarray(self.array[self.rows[positions]], dtype=np.float32))
        return inputs.to(device), torch.from_numpy(self.labels[positions]).to(device)


@dataclass(frozen=True)
class Data:
    """What a head is trained and judged on.

    Attributes:
        classes: In the order of the head's outputs.
        embeddings: By set, (M, C).
        boundaries: By the first unfrozen stage, then by set: the activations that enter that stage, (M, C, H, W).
    """

    classes: tuple[str, ...]
    embeddings: Mapping[str, Samples]
    boundaries: Mapping[str, Mapping[str, Samples]] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """The best weights of a training: the head's, and the unfrozen stages' (empty where they are the network's own)."""

    head: State
    late: State
    epoch: int
    phase: str
    temperature: float = 1.0


@dataclass(frozen=True)
class _Phase:
    name: str
    samples: Mapping[str, Samples]
    epochs: int
    late: bool
    head_rate: float


@dataclass
class _Progress:
    """Where a training stands; with the weights and the optimizer's state it is a checkpoint."""

    phase: int = 0
    phase_epoch: int = 0
    since_best: int = 0
    history: tuple[Epoch, ...] = ()
    best: Trained | None = None
    best_score: tuple[float, float] = (-math.inf, -math.inf)


class Fit:
    """Training of one head by one recipe.

    Args:
        recipe: How to train. `Recipe.stages` must be unfrozen by `late`.
        data: What to train on; with `late`, `data.boundaries` holds its first stage.
        late: The network's last stages at its own weights, boundary activations → (N, C, 1, 1) embeddings; it is
            copied, never written to. None where everything is frozen.
        number: Position of the recipe in its run, for the events.
        device: Where to train.
        checkpoint: What `checkpoint` gave for the same recipe and data, to go on from there.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: Data,
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
        channels = data.embeddings[TRAIN].array.shape[1]
        self.head = heads.build(recipe.kind, channels, len(data.classes), recipe.seed).to(self.device)
        self.late = copy.deepcopy(late).to(self.device).requires_grad_(True) if late is not None else None
        self._phases = _phases(recipe, data)
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
        """The last epoch done; 0 before the first."""
        return len(self._progress.history)

    @property
    def best(self) -> Trained | None:
        """The best weights so far, not calibrated; None before the first epoch."""
        return self._progress.best

    def epochs(self) -> Iterator[Step | Epoch]:
        """Trains to the end. Closing the generator stops within one batch."""
        progress = self._progress
        while progress.phase < len(self._phases):
            phase = self._phases[progress.phase]
            while progress.phase_epoch < phase.epochs and not self._patience_is_out():
                yield from self._epoch(phase)
            self._next_phase()

    def checkpoint(self) -> bytes:
        """Everything needed to go on from after the last epoch."""
        buffer = io.BytesIO()
        progress = self._progress
        torch.save(
            {
                "head": self.head.state_dict(),
                "late": self.late.state_dict() if self.late is not None and self._phases_with_late() else {},
                "optimizer": self._optimizer.state_dict(),
                "phase": progress.phase,
                "phase_epoch": progress.phase_epoch,
                "since_best": progress.since_best,
                "best_score": list(progress.best_score),
                "best": vars(progress.best) if progress.best else None,
                "history": [vars(epoch) for epoch in progress.history],
            },
            buffer,
        )
        return buffer.getvalue()

    def logits(self, samples: Samples, trained: Trained) -> NDArray[np.float64]:
        """(N, classes) of samples by the given weights, which take the samples that `samples_of` gives."""
        self._load(trained)
        self._evaluation_mode()
        with torch.inference_mode():
            batches = [self._forward(inputs, bool(trained.late)) for inputs, _ in self._in_order(samples)]
        return np.concatenate([batch.double().cpu().numpy() for batch in batches])

    def samples_of(self, trained: Trained) -> Mapping[str, Samples]:
        """The sets, in the form that those weights take them."""
        return self.data.boundaries[self.recipe.stages[0]] if trained.late else self.data.embeddings

    def _restore(self, checkpoint: bytes) -> None:
        saved = torch.load(io.BytesIO(checkpoint), map_location=self.device, weights_only=True)
        self._progress = _Progress(
            phase=saved["phase"],
            phase_epoch=saved["phase_epoch"],
            since_best=saved["since_best"],
            best_score=tuple(saved["best_score"]),
            best=Trained(**saved["best"]) if saved["best"] else None,
            history=tuple(Epoch(**epoch) for epoch in saved["history"]),
        )
        self.head.load_state_dict(saved["head"])
        if self.late is not None and saved["late"]:
            self.late.load_state_dict(saved["late"])
        if self._progress.phase < len(self._phases):
            self._optimizer = self._new_optimizer()
            self._optimizer.load_state_dict(saved["optimizer"])

    # One epoch

    def _epoch(self, phase: _Phase) -> Iterator[Step | Epoch]:
        progress, started = self._progress, time.perf_counter()
        rates = self._set_rates(phase, progress.phase_epoch)
        samples = phase.samples[TRAIN]
        batches = self._shuffled(samples, self.epoch)
        validation = phase.samples[VALIDATION]
        total = len(batches) + math.ceil(len(validation) / self.recipe.batch_size)
        told = started
        losses, logits, done = 0.0, [], 0
        self._training_mode(phase)
        for positions in batches:
            losses += self._train_on(phase, *samples.batch(positions, self.device)) * len(positions)
            done += 1
            if time.perf_counter() - told > STEP_SECONDS:
                told = time.perf_counter()
                yield Step(self.number, self.epoch + 1, done, total)
        self._evaluation_mode()
        for inputs, _ in self._in_order(validation):
            with torch.inference_mode():
                logits.append(self._forward(inputs, phase.late).double().cpu().numpy())
            done += 1
            if time.perf_counter() - told > STEP_SECONDS:
                told = time.perf_counter()
                yield Step(self.number, self.epoch + 1, done, total)
        yield self._record(phase, rates, losses / len(samples), np.concatenate(logits), time.perf_counter() - started)

    def _record(
        self, phase: _Phase, rates: Mapping[str, float], loss: float, logits: NDArray[np.float64], seconds: float
    ) -> Epoch:
        progress = self._progress
        metrics = report.metrics(logits, phase.samples[VALIDATION].labels)
        score = _score(self.recipe.metric, metrics)
        improved = score > progress.best_score
        past = sum(p.epochs for p in self._phases[: progress.phase])
        done, epochs = past + progress.phase_epoch + 1, sum(p.epochs for p in self._phases)
        epoch = Epoch(
            recipe=self.number,
            phase=phase.name,
            epoch=self.epoch + 1,
            epochs=epochs - (past + progress.phase_epoch - self.epoch),
            loss=loss,
            validation_loss=metrics.loss,
            accuracy=metrics.accuracy,
            macro_f1=metrics.macro_f1,
            rates=dict(rates),
            best=improved,
            seconds=seconds,
            seconds_left=seconds * (epochs - done),
        )
        progress.history += (epoch,)
        progress.phase_epoch += 1
        # A lower loss at the same accuracy makes a better head, but no reason to go on.
        progress.since_best = 0 if score[0] > progress.best_score[0] else progress.since_best + 1
        if improved:
            progress.best_score = score
            progress.best = self._snapshot(phase, epoch.epoch)
        return epoch

    def _train_on(self, phase: _Phase, inputs: Tensor, labels: Tensor) -> float:
        first: list[Tensor] = []

        def closure() -> Tensor:
            self._optimizer.zero_grad()
            logits = self._forward(inputs, phase.late)
            loss = functional.cross_entropy(
                logits, labels, weight=self._class_weights, label_smoothing=self.recipe.label_smoothing
            )
            first.append(loss.detach())
            if self.recipe.optimizer is Optimizer.LBFGS:
                # The other optimizers decay by themselves.
                loss = loss + self.recipe.weight_decay / 2 * sum(
                    (w.square().sum() for w in self.head.parameters() if w.dim() > 1), start=torch.zeros(())
                ).to(loss.device)
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

    def _shuffled(self, samples: Samples, epoch: int) -> list[Labels]:
        """Positions of each batch; no batch has a single element, which BatchNorm could not normalize."""
        if self.recipe.optimizer is Optimizer.LBFGS:
            return [np.arange(len(samples))]
        order = np.random.default_rng((self.recipe.seed, epoch)).permutation(len(samples))
        batches = [order[i : i + self.recipe.batch_size] for i in range(0, len(order), self.recipe.batch_size)]
        if len(batches) > 1 and len(batches[-1]) == 1:
            batches[-2:] = [np.concatenate(batches[-2:])]
        return batches

    def _in_order(self, samples: Samples) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(samples), self.recipe.batch_size):
            yield samples.batch(np.arange(start, min(start + self.recipe.batch_size, len(samples))), self.device)

    # Phases

    def _patience_is_out(self) -> bool:
        return 0 < self.recipe.patience <= self._progress.since_best

    def _next_phase(self) -> None:
        progress = self._progress
        progress.phase += 1
        progress.phase_epoch = progress.since_best = 0
        if progress.phase < len(self._phases):
            if progress.best is not None:
                self._load(progress.best)
            self._optimizer = self._new_optimizer()

    def _phases_with_late(self) -> bool:
        return any(phase.late for phase in self._phases[: self._progress.phase + 1])

    def _new_optimizer(self) -> torch.optim.Optimizer:
        late = self._phases[self._progress.phase].late
        groups: list[dict[str, Any]] = [{"name": "head", "params": list(self.head.parameters())}]
        if late:
            assert self.late is not None
            groups += [
                {"name": name, "params": list(getattr(self.late, name).parameters())} for name in self.recipe.stages
            ]
        rate, decay = learning_rate(self.recipe), self.recipe.weight_decay
        if self.recipe.optimizer is Optimizer.LBFGS:
            return torch.optim.LBFGS(
                self.head.parameters(), lr=rate, max_iter=LBFGS_ITERATIONS, line_search_fn="strong_wolfe"
            )
        if self.recipe.optimizer is Optimizer.SGD:
            return torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True, weight_decay=decay, fused=True)
        return torch.optim.AdamW(groups, lr=rate, weight_decay=decay, fused=True)

    def _set_rates(self, phase: _Phase, epoch: int) -> dict[str, float]:
        if self.recipe.optimizer is Optimizer.LBFGS:
            return {"head": learning_rate(self.recipe)}
        factor = schedule(self.recipe, epoch, phase.epochs)
        rates = {}
        for group in self._optimizer.param_groups:
            name = group["name"]
            stage_rate = self.recipe.stage_rates.get(name, self.recipe.stage_learning_rate)
            rates[name] = group["lr"] = factor * (phase.head_rate if name == "head" else stage_rate)
        return rates

    def _training_mode(self, phase: _Phase) -> None:
        self.head.train()
        if phase.late and self.late is not None:
            # In evaluation mode BatchNorm normalizes by, and keeps, the statistics of the pretraining.
            self.late.train(self.recipe.update_batch_norm)

    def _evaluation_mode(self) -> None:
        self.head.eval()
        if self.late is not None:
            self.late.eval()

    # Weights

    def _snapshot(self, phase: _Phase, epoch: int) -> Trained:
        late = _copy(self.late) if phase.late and self.late is not None else {}
        return Trained(_copy(self.head), late, epoch, phase.name)

    def _load(self, trained: Trained) -> None:
        self.head.load_state_dict(trained.head)
        if trained.late and self.late is not None:
            self.late.load_state_dict(trained.late)


def calibrated(trained: Trained, logits: NDArray[np.float64], labels: Labels, recipe: Recipe) -> Trained:
    """Those weights with the temperature that fits the validation set's logits, where the recipe asks for it."""
    return replace(trained, temperature=report.temperature(logits, labels)) if recipe.calibrate else trained


def learning_rate(recipe: Recipe) -> float:
    """The head's learning rate: the recipe's, or its optimizer's default."""
    return recipe.learning_rate if recipe.learning_rate is not None else LEARNING_RATES[recipe.optimizer]


def schedule(recipe: Recipe, epoch: int, epochs: int) -> float:
    """The factor on the learning rate in an epoch (counted from 0) of a phase of so many epochs."""
    if epoch < recipe.warmup_epochs:
        return (epoch + 1) / (recipe.warmup_epochs + 1)
    progress = (epoch - recipe.warmup_epochs) / max(1, epochs - recipe.warmup_epochs)
    if recipe.schedule is Schedule.COSINE:
        return (1 + math.cos(math.pi * progress)) / 2
    return 1 - progress if recipe.schedule is Schedule.LINEAR else 1.0


def _phases(recipe: Recipe, data: Data) -> list[_Phase]:
    rate = learning_rate(recipe)
    head = _Phase("head", data.embeddings, recipe.epochs, late=False, head_rate=rate)
    if recipe.strategy is Strategy.HEAD:
        return [head]
    boundaries = data.boundaries[recipe.stages[0]]
    together = _Phase("stages", boundaries, recipe.stage_epochs, late=True, head_rate=rate)
    if recipe.strategy is Strategy.ALL_AT_ONCE:
        return [together]
    return [head, replace(together, head_rate=rate * recipe.head_rate_factor)]


def _class_weights(recipe: Recipe, data: Data) -> Tensor:
    counts = np.bincount(data.embeddings[TRAIN].labels, minlength=len(data.classes))
    if recipe.class_weights is ClassWeights.NONE:
        return torch.ones(len(counts))
    return torch.from_numpy(counts.sum() / (len(counts) * counts)).float()


def _score(metric: Metric, metrics: report.Metrics) -> tuple[float, float]:
    """More is better; equal accuracy or F1 is decided by the loss."""
    first = {Metric.LOSS: -metrics.loss, Metric.ACCURACY: metrics.accuracy, Metric.MACRO_F1: metrics.macro_f1}[metric]
    return first, -metrics.loss


def _copy(module: nn.Module) -> State:
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


def is_full_batch_only(recipe: Recipe) -> bool:
    """Whether the recipe's optimizer can only train a linear probe on the frozen network."""
    return recipe.optimizer is Optimizer.LBFGS and (
        recipe.kind is not HeadKind.LINEAR or recipe.strategy is not Strategy.HEAD
    )
