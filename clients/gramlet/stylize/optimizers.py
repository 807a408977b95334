"""Optimizers compared on one stylization: what to ask for, and the losses of each by evaluations and by seconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gramlet.errors import InvalidInput
from gramlet.inputs.pictures import PictureInput
from gramlet.inputs.values import any_number, choose, several
from gramlet.stylize.inputs import StyleInput, StylizeOptions, make_stylization
from gramlet.stylize.types import Initial, Iteration, Optimizer, Stylization, StylizeEvent

OptimizerInput = Optimizer | str | tuple[Optimizer | str, float]
"""An optimizer, or one with its learning rate."""

_OF_EACH = ("optimizer", "learning_rate")
_HIGHEST_RATE = 1e6  # that the service takes


@dataclass(frozen=True)
class OptimizerChoice:
    """One of the optimizers that are compared.

    Attributes:
        optimizer: Which.
        learning_rate: None is the service's default.
    """

    optimizer: Optimizer
    learning_rate: float | None = None

    @property
    def title(self) -> str:
        """A short name: `lbfgs`, `gd 0.01`."""
        rate = "" if self.learning_rate is None else f" {self.learning_rate:g}"
        return self.optimizer.value + rate


@dataclass(frozen=True)
class OptimizerEvent:
    """Something happened in the stylization by one of the optimizers."""

    choice: OptimizerChoice
    event: StylizeEvent


@dataclass
class LossCurve:
    """The losses of one optimizer. Point i is after `evaluations[i]` evaluations of loss and gradient.

    Attributes:
        choice: The optimizer.
        evaluations: Rising; a line search takes several for an iteration.
        seconds: Of computing until then, without the waiting for other callers.
        losses: The loss at the picture from which the next step was taken.
    """

    choice: OptimizerChoice
    evaluations: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def add(self, event: StylizeEvent) -> None:
        """Takes note of an event; only iterations count."""
        if isinstance(event, Iteration):
            before = self.seconds[-1] if self.seconds else 0.0
            self.evaluations.append(event.evaluations)
            self.seconds.append(before + event.timing.compute_seconds)
            self.losses.append(event.loss)

    @property
    def lowest(self) -> float:
        """The lowest loss."""
        return min(self.losses)

    def first_at(self, loss: float) -> int | None:
        """The first point with this loss or a lower one; None if there is none."""
        return next((point for point, own in enumerate(self.losses) if own <= loss), None)


Comparison = list[tuple[OptimizerChoice, Stylization]]
"""What to ask for, one after another."""


def make_comparison(
    content: PictureInput,
    style: StyleInput,
    optimizers: Iterable[OptimizerInput],
    initial: Initial | PictureInput | None,
    options: StylizeOptions,
) -> Comparison:
    """One stylization for each optimizer, alike in everything else, and at one scale: losses of two do not compare.

    Raises:
        NotFound: A file does not exist.
        InvalidInput: A picture, a setting or an optimizer is wrong.
    """
    choices = [_choice(one, f"optimizers[{i}]") for i, one in enumerate(several(optimizers, "optimizers"))]
    if not choices:
        raise InvalidInput("give at least one optimizer", field="optimizers")
    if twice := {one.title for one in choices if choices.count(one) > 1}:
        raise InvalidInput(f"{', '.join(sorted(twice))}: named twice", field="optimizers")
    for name in _OF_EACH:
        if options.get(name) is not None:
            raise InvalidInput("belongs to each optimizer that is compared: see `optimizers`", field=name)
    scales = 1 if options.get("scales") is None else options["scales"]
    one = make_stylization(content, style, initial, {**options, "scales": scales})
    if one.settings.scales != 1:
        raise InvalidInput("optimizers are compared at one scale: leave it out", field="scales")
    return [(choice, _with(one, choice)) for choice in choices]


def _with(stylization: Stylization, choice: OptimizerChoice) -> Stylization:
    return dataclasses.replace(
        stylization,
        settings=dataclasses.replace(
            stylization.settings, optimizer=choice.optimizer, learning_rate=choice.learning_rate
        ),
    )


def _choice(given: Any, field: str) -> OptimizerChoice:
    """One of them. Its rate is checked here: the service would refuse it after the work of those before."""
    if isinstance(given, OptimizerChoice):
        given = given.optimizer if given.learning_rate is None else (given.optimizer, given.learning_rate)
    if isinstance(given, Sequence) and not isinstance(given, str) and len(given) == 2:
        rate = any_number(given[1], field)
        if not 0 < rate <= _HIGHEST_RATE:
            raise InvalidInput(
                f"{rate:g} is no learning rate: more than 0 and at most {_HIGHEST_RATE:,.0f}", field=field
            )
        return OptimizerChoice(choose(Optimizer, given[0], field), rate)
    return OptimizerChoice(choose(Optimizer, given, field))
