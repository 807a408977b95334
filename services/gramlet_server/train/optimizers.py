"""How the weights of a recipe are updated: its phases, learning rates and optimizer, and the optimizer's state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from gramlet.train.configuration import HeadKind, Optimizer, Recipe, Schedule, Strategy
from torch import Tensor, nn

from gramlet_server.train.data import Samples, TrainingData

LEARNING_RATES = {Optimizer.ADAMW: 1e-3, Optimizer.SGD: 1e-2, Optimizer.LBFGS: 1.0}
EPOCHS = {HeadKind.MLP: 15, HeadKind.LINEAR: 60}
STAGE_DECAY = 0.3
"""The learning rate of each unfrozen stage, as a share of that of the stage behind it: early stages are general and are
changed less (discriminative fine-tuning, Howard and Ruder, ACL 2018)."""
LBFGS_ITERATIONS = 10
"""L-BFGS iterations that make one epoch."""


STRENGTHS = tuple(10 ** (1 - step / 2) for step in range(14))
"""Weight decays of the epochs of a logistic regression, from 10 to 3e-6. The loss is a mean, so scikit-learn's C is
1 / (strength * pictures)."""
WEAKEST = 0.1
"""A strength is at least this divided by the number of pictures. Few easy pictures ask for none at all, and then the
head is then far too sure of others."""
LOGISTIC_ITERATIONS = 100
"""L-BFGS iterations for each strength, starting from the minimum for the one before."""
LOGISTIC_PATIENCE = 4


def learning_rate(recipe: Recipe) -> float:
    """The head's learning rate: the recipe's, or its optimizer's default."""
    return recipe.learning_rate if recipe.learning_rate is not None else LEARNING_RATES[recipe.optimizer]


def head_epochs(recipe: Recipe, pictures: int) -> int:
    """Epochs in which only the head is trained: the recipe's, or the default of its kind."""
    if recipe.kind is HeadKind.LOGISTIC:
        return sum(strength >= WEAKEST / pictures for strength in STRENGTHS)
    return EPOCHS[recipe.kind] if recipe.epochs is None else recipe.epochs


def is_full_batch(recipe: Recipe) -> bool:
    """Whether each step is of L-BFGS on all pictures."""
    return recipe.optimizer is Optimizer.LBFGS or recipe.kind is HeadKind.LOGISTIC


def stage_learning_rate(recipe: Recipe, stage: str) -> float:
    """The learning rate of an unfrozen stage: its own if the recipe has one, else by its distance from the head."""
    before_last = len(recipe.stages) - 1 - recipe.stages.index(stage)
    return recipe.stage_rates.get(stage, recipe.stage_learning_rate * STAGE_DECAY**before_last)


def schedule(recipe: Recipe, epoch: int, epochs: int, warmup: int = 0) -> float:
    """The factor (0 to 1) on the learning rate in an epoch of a phase.

    Linear warm-up to 1, then cosine decay (Loshchilov and Hutter, ICLR 2017), linear decay, or none.

    Args:
        recipe: Says which schedule.
        epoch: Counted from 0 within the phase.
        epochs: Length of the phase.
        warmup: Epochs of warm-up, where the recipe does not say.
    """
    warmup = warmup if recipe.warmup_epochs is None else recipe.warmup_epochs
    if epoch < warmup:
        return (epoch + 1) / (warmup + 1)
    progress = (epoch - warmup) / max(1, epochs - warmup)
    if recipe.schedule is Schedule.COSINE:
        return (1 + math.cos(math.pi * progress)) / 2
    return 1 - progress if recipe.schedule is Schedule.LINEAR else 1.0


@dataclass(frozen=True)
class Phase:
    """Consecutive epochs in which the same weights are trained.

    Attributes:
        name: `head`, or `stages` where the late stages are trained too.
        samples: By set: embeddings, or the boundary activations that enter the late stages.
        epochs: At most so many.
        late: Whether the late stages are trained too.
        head_rate: The head's learning rate, before the schedule.
    """

    name: str
    samples: Mapping[str, Samples]
    epochs: int
    late: bool
    head_rate: float


def phases(recipe: Recipe, data: TrainingData) -> list[Phase]:
    """One phase or two, as the recipe's strategy says."""
    rate = learning_rate(recipe)
    head = Phase("head", data.embeddings, head_epochs(recipe, len(data.picture_labels)), late=False, head_rate=rate)
    if recipe.strategy is Strategy.HEAD:
        return [head]
    boundaries = data.boundaries[recipe.stages[0]]
    together = Phase("stages", boundaries, recipe.stage_epochs, late=True, head_rate=rate)
    if recipe.strategy is Strategy.ALL_AT_ONCE:
        return [together]
    return [head, replace(together, head_rate=rate * recipe.head_rate_factor)]


def build(recipe: Recipe, head: nn.Module, stages: Mapping[str, nn.Module]) -> torch.optim.Optimizer:
    """A new optimizer with a parameter group for the head (`head`) and one for each unfrozen stage, by its name."""
    rate, decay = learning_rate(recipe), recipe.weight_decay
    if is_full_batch(recipe):
        iterations = LOGISTIC_ITERATIONS if recipe.kind is HeadKind.LOGISTIC else LBFGS_ITERATIONS
        rate = LEARNING_RATES[Optimizer.LBFGS] if recipe.kind is HeadKind.LOGISTIC else rate
        return torch.optim.LBFGS(head.parameters(), lr=rate, max_iter=iterations, line_search_fn="strong_wolfe")
    groups = [{"name": name, "params": list(module.parameters())} for name, module in {"head": head, **stages}.items()]
    if recipe.optimizer is Optimizer.SGD:
        return torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True, weight_decay=decay, fused=True)
    return torch.optim.AdamW(groups, lr=rate, weight_decay=decay, fused=True)


def set_learning_rates(optimizer: torch.optim.Optimizer, recipe: Recipe, phase: Phase, epoch: int) -> dict[str, float]:
    """Sets the learning rate of each parameter group for an epoch (from 0) of a phase; returns them by group name."""
    if recipe.kind is HeadKind.LOGISTIC:
        # What L-BFGS knows is about the loss of another strength. With it, a line search may fail for good.
        optimizer.state.clear()
        return {"head": LEARNING_RATES[Optimizer.LBFGS], "weight_decay": STRENGTHS[epoch]}
    if is_full_batch(recipe):
        return {"head": learning_rate(recipe)}
    # The first gradients of the stages are those of a head that is new to them, so they start slowly.
    factor = schedule(recipe, epoch, phase.epochs, warmup=int(phase.late))
    rates = {}
    for group in optimizer.param_groups:
        name = group["name"]
        rate = phase.head_rate if name == "head" else stage_learning_rate(recipe, name)
        rates[name] = group["lr"] = factor * rate
    return rates


def state_of(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], Any]:
    """The optimizer's state as named tensors, and the rest of it, which JSON can hold. `restore` takes both."""
    tensors: dict[str, Tensor] = {}
    return tensors, _without_tensors(optimizer.state_dict()["state"], "state", tensors)


def restore(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], rest: Any) -> None:
    """Gives a new optimizer of the same recipe and phase the state that `state_of` took."""
    # torch numbers the parameters; JSON made the numbers text.
    state = {int(number): item for number, item in _with_tensors(rest, tensors).items()}
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _without_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """The value with `{"tensor": name}` in place of each tensor, and `{"items": {...}}` in place of each dict."""
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):
        return {"items": {str(key): _without_tensors(item, f"{name}.{key}", tensors) for key, item in value.items()}}
    if isinstance(value, list):
        return [_without_tensors(item, f"{name}.{index}", tensors) for index, item in enumerate(value)]
    return value


def _with_tensors(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {key: _with_tensors(item, tensors) for key, item in value["items"].items()}
    if isinstance(value, list):
        return [_with_tensors(item, tensors) for item in value]
    return value
