"""One model in training: its head, its copy of the late stages, its optimizer, and the pictures that it may see."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from gramlet.train.configuration import TRAIN, Recipe
from torch import Tensor, nn
from torch.nn import functional

from gramlet_server.train import optimizers
from gramlet_server.train.arrays import Floats, Labels
from gramlet_server.train.classifier import State, build_head
from gramlet_server.train.data import Samples, shuffled_batches
from gramlet_server.train.optimizers import Phase


@dataclass(frozen=True)
class Snapshot:
    """Weights after an epoch: the head's, and the late stages' (empty while those are the network's own)."""

    head: State
    late: State
    epoch: int


class Learner:
    """A model of a recipe.

    Args:
        recipe: How to train.
        head: (channels, classes).
        rows: Labels of its training samples.
        held: Labels of the samples that it predicts and is not trained on.
        class_weights: (classes,) in the loss.
        late: The network's late stages, which are copied; None where the network stays frozen.
        device: Where to train.
    """

    def __init__(
        self,
        recipe: Recipe,
        shape: tuple[int, int],
        rows: Labels,
        held: Labels,
        class_weights: Tensor,
        late: nn.Module | None,
        device: torch.device,
    ) -> None:
        self.recipe, self.rows, self.held = recipe, rows, held
        self._device = device
        self._class_weights = class_weights.to(device)
        self._weight_decay = recipe.weight_decay
        self.head = build_head(recipe.kind, *shape, recipe.seed).to(device)
        self.late = copy.deepcopy(late).to(device).requires_grad_(True) if late is not None else None
        self._optimizer: torch.optim.Optimizer | None = None

    def begin(self, phase: Phase) -> None:
        """A new optimizer for the weights that a phase trains."""
        late = self.late if phase.late else None
        stages = {name: late.get_submodule(name) for name in self.recipe.stages} if late is not None else {}
        self._optimizer = optimizers.build(self.recipe, self.head, stages)

    def batches(self, phase: Phase, epoch: int) -> list[Labels]:
        """The training batches of an epoch, as positions in the training set."""
        count = len(self.rows)
        if optimizers.is_full_batch(self.recipe):
            return [self.rows]
        return [
            self.rows[batch] for batch in shuffled_batches(count, self.recipe.batch_size, (self.recipe.seed, epoch))
        ]

    def set_learning_rates(self, phase: Phase, epoch: int) -> dict[str, float]:
        """Sets the learning rates of an epoch of a phase, from 0; returns them by group."""
        assert self._optimizer is not None
        rates = optimizers.set_learning_rates(self._optimizer, self.recipe, phase, epoch)
        self._weight_decay = rates.get("weight_decay", self.recipe.weight_decay)
        return rates

    def train(self, phase: Phase, batches: list[Labels]) -> Iterator[float]:
        """Trains on the batches; yields the summed loss of each before its step."""
        self.head.train()
        for layer in self.head:
            if isinstance(layer, nn.BatchNorm1d):
                # Its statistics are the mean over the batches of the epoch (momentum None). A moving average would
                # still hold its initial values after the few batches of a small set.
                layer.reset_running_stats()
        if phase.late and self.late is not None:
            # In evaluation mode BatchNorm uses the statistics of the pretraining, and keeps them.
            self.late.train(self.recipe.update_batch_norm)
        for positions in batches:
            inputs, labels = phase.samples[TRAIN].batch(positions, self._device)
            yield self._step(inputs, labels, phase.late) * len(positions)

    def logits(self, samples: Samples, positions: Labels, late: bool) -> Iterator[Floats]:
        """(n, classes) of each batch of those positions, from boundary activations if `late`, else from embeddings."""
        self.head.eval()
        if self.late is not None:
            self.late.eval()
        for start in range(0, len(positions), self.recipe.batch_size):
            inputs, _ = samples.batch(positions[start : start + self.recipe.batch_size], self._device)
            with torch.inference_mode():
                yield self._forward(inputs, late).double().cpu().numpy()

    def snapshot(self, epoch: int, late: bool) -> Snapshot:
        """Its weights now."""
        return Snapshot(_copy(self.head), _copy(self.late) if late and self.late is not None else {}, epoch)

    def load(self, weights: Snapshot) -> None:
        """Takes weights of an earlier epoch."""
        self.head.load_state_dict(weights.head)
        if weights.late and self.late is not None:
            self.late.load_state_dict(weights.late)

    def state(self, late: bool) -> tuple[dict[str, State], object]:
        """Tensors by group, and the rest of the optimizer's state, for a checkpoint."""
        assert self._optimizer is not None
        tensors, rest = optimizers.state_of(self._optimizer)
        states = {"head": self.head.state_dict(), "optimizer": tensors}
        if late and self.late is not None:
            states["late"] = self.late.state_dict()
        return states, rest

    def restore(self, states: dict[str, State], rest: object) -> None:
        """Goes on from what `state` gave; `begin` comes first."""
        assert self._optimizer is not None
        self.head.load_state_dict(states["head"])
        if self.late is not None and states["late"]:
            self.late.load_state_dict(states["late"])
        optimizers.restore(self._optimizer, states["optimizer"], rest)

    def _step(self, inputs: Tensor, labels: Tensor, late: bool) -> float:
        """One step of the optimizer; returns the mean loss of the batch before it."""
        assert self._optimizer is not None
        optimizer = self._optimizer
        first: list[Tensor] = []

        def closure() -> Tensor:
            optimizer.zero_grad()
            logits = self._forward(inputs, late)
            loss = functional.cross_entropy(
                logits, labels, weight=self._class_weights, label_smoothing=self.recipe.label_smoothing
            )
            first.append(loss.detach())
            if optimizers.is_full_batch(self.recipe):  # torch's L-BFGS has no weight decay of its own
                squares = [weight.square().sum() for weight in self.head.parameters() if weight.dim() > 1]
                loss = loss + self._weight_decay / 2 * torch.stack(squares).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimizer.step(closure)  # type: ignore[arg-type]
        optimizer.zero_grad()  # frees the gradients: the other models of the run need their own
        return first[0].item()

    def _forward(self, inputs: Tensor, late: bool) -> Tensor:
        if late:
            assert self.late is not None
            inputs = self.late(inputs).flatten(1)
        logits: Tensor = self.head(inputs)
        return logits


def _copy(module: nn.Module) -> State:
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}
