"""L-BFGS, Adam and gradient descent for points of millions of numbers, as torch code that runs where the point is.

Nothing here waits for the device: a step takes a gradient and returns the next point, and every decision on the way (is
this pair of use? does the direction go down?) is made by the device itself. So the host can start the next gradient
before it has read anything.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.optim.lbfgs import _strong_wolfe  # not public; scipy's public one gives up where this takes the best trial

LEAST_CURVATURE = float(np.finfo(np.float32).eps)
"""A pair is used only if the slope along the step changed by more than this share of what it was: less is rounding.

The rule of L-BFGS-B (Zhu, Byrd, Lu, Nocedal, 1997), which holds for losses of any scale. torch's own
bound, 1e-10, does not.
"""

LEAST_GRADIENT = 1e-20
"""A gradient whose sum is smaller is one of 0, at the optimum."""

State = Mapping[str, Tensor]
"""What an optimizer remembers, as tensors by name."""

Search = Generator[Tensor, tuple[float, Tensor], tuple[Tensor, int]]
"""A line search: yields the points (N,) at which it needs loss and gradient (N,), and is sent them. Returns the next
point, and which of them it is, counted from 1; 0 is the point where the search began."""


class Optimizer(Protocol):
    """An optimizer, one step at a time. Points and gradients are (N,), float32, on one device."""

    def step(self, point: Tensor, gradient: Tensor) -> Tensor:
        """The next point. `point` is any at first, and afterwards what the step before returned.

        If it raises, the optimizer is as it was before, and the step can be taken again.
        """
        ...

    def state(self) -> State:
        """Everything that the next steps depend on, as views: the next step may overwrite them."""
        ...

    def restore(self, state: State) -> None:
        """Continues from another optimizer's state: the steps are the same, bit for bit.

        Raises:
            KeyError, ValueError: It is the state of an optimizer of another kind or size.
        """
        ...


@dataclass(frozen=True)
class _Memory:
    """What L-BFGS remembers of its pairs, beside the pairs and their inner products with each other.

    Attributes:
        pairs: Slots ever written. The newest pair overwrites the oldest.
        along: Inner products of the rows and the last gradient.
        valid: 1 where a slot's pair is used, 0 elsewhere.
        scale: γ.
    """

    pairs: int
    along: Tensor
    valid: Tensor
    scale: Tensor


class LBFGS:
    """Limited-memory BFGS (Liu, Nocedal, "On the limited memory BFGS method for large scale optimization", 1989).

    The steps are those of torch.optim.LBFGS, except for rounding. The product of the inverse Hessian with the gradient
    is computed in its compact form (Byrd, Nocedal, Schnabel, "Representations of quasi-Newton matrices and their use in
    limited memory methods", 1994, theorem 2.2):

        H g = γ g + S p - γ Y u,   u = R⁻¹ Sᵀg,   p = R⁻ᵀ ((D + γ YᵀY) u - γ Yᵀg)

    S and Y hold the remembered steps and changes of the gradient, R is the upper triangle of SᵀY, D its diagonal, and γ
    is sᵀy / yᵀy of the newest pair. An iteration reads the history twice, at the speed of memory: once for the inner
    products with the gradient, once for the direction. Everything else is algebra on matrices of the history's length,
    in float64 on the device.

    Args:
        size: N.
        rate: What a direction is multiplied by.
        history: Most pairs to remember. Each takes 8 N bytes.
        device: Where the points are.
    """

    def __init__(self, size: int, rate: float, history: int, device: torch.device | str = "cpu") -> None:
        self._rate = rate
        self._history = history
        # Rows 2i and 2i + 1 are the step of slot i and the change of the gradient along it.
        self._rows = torch.empty(2 * history, size, device=device)
        self._products = torch.zeros(2 * history, 2 * history, dtype=torch.float64, device=device)  # row by row
        along = torch.zeros(2 * history, dtype=torch.float64, device=device)
        self._memory = _Memory(0, along, along[:history].clone(), torch.ones_like(along[0]))
        self._last: tuple[Tensor, Tensor] | None = None  # the last step, and the gradient where it began

    def step(self, point: Tensor, gradient: Tensor) -> Tensor:
        """See Optimizer."""
        direction, _, rate, memory = self._direct(gradient)
        return self._move(point, gradient, direction.mul_(rate), memory)

    def search(self, point: Tensor, value: float, gradient: Tensor) -> Search:
        """A step in the same direction whose length satisfies the strong Wolfe conditions.

        Args:
            point: (N,).
            value: The loss there.
            gradient: (N,): the gradient there.
        """
        direction, slope, rate, memory = self._direct(gradient)
        known: dict[float, tuple[float, Tensor]] = {}

        def loss(_: Tensor, multiple: float | Tensor, __: Tensor) -> tuple[float, Tensor]:
            if float(multiple) not in known:
                raise _Unknown(float(multiple))
            return known[float(multiple)]

        # torch's search calls a function for the loss. It runs from its beginning again after each answer, which takes
        # a few inner products and no evaluation: so that this is a generator, and others have the device in between.
        while True:
            try:
                multiple = _strong_wolfe(  # type: ignore[no-untyped-call]
                    loss, point, float(rate), direction, value, gradient, float(slope)
                )[2]
            except _Unknown as asked:
                known[asked.multiple] = yield point + asked.multiple * direction
            else:
                which = [0.0, *known].index(float(multiple))
                return self._move(point, gradient, direction.mul_(multiple), memory), which

    def state(self) -> State:
        """See Optimizer."""
        memory, used = self._memory, 2 * self._used(self._memory.pairs)
        state = {
            "rows": self._rows[:used],
            "products": self._products[:used, :used],
            "along": memory.along[:used],
            "valid": memory.valid[: used // 2],
            "scale": memory.scale,
            "pairs": torch.tensor(memory.pairs),
        }
        if self._last is not None:
            state["step"], state["gradient"] = self._last
        return state

    def restore(self, state: State) -> None:
        """See Optimizer."""
        pairs = int(state["pairs"])
        used = 2 * self._used(pairs)
        size = self._rows.shape[1]
        shapes = {"rows": (used, size), "products": (used, used), "along": (used,), "valid": (used // 2,), "scale": ()}
        _check_shapes(state, shapes | ({"step": (size,), "gradient": (size,)} if "step" in state else {}))
        self._rows[:used] = state["rows"]
        self._products[:used, :used] = state["products"]
        along, valid = torch.zeros_like(self._memory.along), torch.zeros_like(self._memory.valid)
        along[:used] = state["along"]
        valid[: used // 2] = state["valid"]
        self._memory = _Memory(pairs, along, valid, state["scale"].to(self._memory.scale))
        self._last = None
        if "step" in state:
            self._last = state["step"].to(self._rows), state["gradient"].to(self._rows)

    def _used(self, pairs: int) -> int:
        return min(pairs, self._history)

    def _move(self, point: Tensor, gradient: Tensor, step: Tensor, memory: _Memory) -> Tensor:
        # Nothing was changed before but the slot to be overwritten, so a step that failed can be taken again.
        reached = point + step
        self._memory, self._last = memory, (step, gradient)
        return reached

    def _direct(self, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, _Memory]:
        """The direction (N,), the slope along it, what to multiply it by, and the memory with the pair that ended."""
        # Nothing is known of the length of a gradient without a history: all numbers together move by the rate at most.
        steepest, careful = -gradient, self._rate / torch.linalg.vector_norm(gradient, 1).clamp(min=1.0)
        if self._last is None:
            return steepest, -gradient.dot(gradient), careful, self._memory
        memory = self._remember(gradient, *self._last)
        direction = self._quasi_newton(gradient, memory)
        slope = direction.dot(gradient)
        # A direction that goes up says that rounding has spoiled the history: no pair of it is used again.
        begins = slope > 0
        memory = replace(memory, valid=memory.valid * ~begins)
        unknown = memory.valid.sum() == 0
        return (
            torch.where(unknown, steepest, direction),
            torch.where(unknown, -gradient.dot(gradient), slope),
            # Where the loss curves downward, no pair is valid. Careful steps would then not leave that place.
            torch.where(begins, careful, self._rate),
            memory,
        )

    def _remember(self, gradient: Tensor, step: Tensor, before: Tensor) -> _Memory:
        """Writes the pair of the last step into its slot, and its inner products with the rows into theirs."""
        memory, change = self._memory, gradient - before
        slot = memory.pairs % self._history
        of_step, of_change = 2 * slot, 2 * slot + 1
        self._rows[of_step], self._rows[of_change] = step, change
        used = 2 * self._used(memory.pairs + 1)
        along, valid = memory.along.clone(), memory.valid.clone()
        along[:used] = torch.mv(self._rows[:used], gradient)  # inner products with the gradient: the first pass
        # The change is the gradient minus the one before, whose products are known. So no further pass is needed.
        products = along[:used] - memory.along[:used]
        curvature, length = step.dot(change).double(), change.dot(change).double()
        products[of_step], products[of_change] = curvature, length
        self._products[of_change, :used] = self._products[:used, of_change] = products
        valid[slot] = useful = curvature > LEAST_CURVATURE * step.dot(before).abs()
        return _Memory(memory.pairs + 1, along, valid, torch.where(useful, curvature / length, memory.scale))

    def _quasi_newton(self, gradient: Tensor, memory: _Memory) -> Tensor:
        """-H g, (N,)."""
        count = self._used(memory.pairs)
        used = 2 * count
        # Rolled so that the oldest pair comes first. A pair that is not valid becomes one of zeros, with 1 for its
        # place in R, so that no equation depends on it.
        oldest = memory.pairs % self._history if memory.pairs > self._history else 0
        products = self._products[:used, :used].roll((-2 * oldest, -2 * oldest), (0, 1))
        along, valid = memory.along[:used].roll(-2 * oldest), memory.valid[:count].roll(-oldest)
        both = valid[:, None] * valid
        steps_changes, changes = products[0::2, 1::2] * both, products[1::2, 1::2] * both
        upper = steps_changes.triu() + torch.diag(1 - valid)
        u = _solve(upper, along[0::2] * valid, upper=True)
        right = steps_changes.diagonal() * u + memory.scale * (changes @ u - along[1::2] * valid)
        p = _solve(upper.T, right, upper=False)
        weights = torch.stack([p, -memory.scale * u], dim=1).flatten().roll(2 * oldest)  # of the rows
        direction = torch.mv(self._rows[:used].T, weights.float())  # the second pass
        return direction.add_(gradient * memory.scale.float()).neg_()


class _Unknown(Exception):
    """A line search needs the loss at this multiple of its direction."""

    def __init__(self, multiple: float) -> None:
        super().__init__(multiple)
        self.multiple = multiple


def _solve(matrix: Tensor, right: Tensor, *, upper: bool) -> Tensor:
    solution: Tensor = torch.linalg.solve_triangular(matrix, right[:, None], upper=upper)[:, 0]
    return solution


def _check_shapes(state: State, shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name, shape in shapes.items():
        if state[name].shape != shape:
            raise ValueError(f"{name} is {tuple(state[name].shape)}, not {shape}")


class Adam:
    """torch's Adam (Kingma, Ba, "Adam: a method for stochastic optimization", ICLR 2015).

    Args:
        size: N.
        rate: About how far a step moves each number.
        device: Where the points are.
    """

    def __init__(self, size: int, rate: float, device: torch.device | str = "cpu") -> None:
        self._point = torch.zeros(size, device=device, requires_grad=True)
        self._adam = torch.optim.Adam([self._point], lr=rate)

    def step(self, point: Tensor, gradient: Tensor) -> Tensor:
        """See Optimizer."""
        with torch.no_grad():
            self._point.copy_(point)
        self._point.grad = gradient.clone()
        self._adam.step()
        return self._point.detach().clone()

    def state(self) -> State:
        """See Optimizer."""
        return dict(self._adam.state[self._point])

    def restore(self, state: State) -> None:
        """See Optimizer."""
        if state:
            size = self._point.shape
            _check_shapes(state, {"step": (), "exp_avg": size, "exp_avg_sq": size})
            self._adam.load_state_dict({**self._adam.state_dict(), "state": {0: dict(state)}})


class GradientDescent:
    """x - s v, where v is the gradient plus `momentum` times the v before (Polyak, 1964), and s is constant.

    A loss may have any scale, and its gradient with it. So the rate is a distance, and the first gradient g gives
    s = rate * N / |g|_1: with every loss the first step moves the numbers by the rate on average.

    Args:
        size: N.
        rate: How far the first step moves the numbers on average.
        momentum: 0 or more, less than 1.
        device: Where the points are.
    """

    def __init__(self, size: int, rate: float, momentum: float, device: torch.device | str = "cpu") -> None:
        self._size, self._rate, self._momentum, self._device = size, rate, momentum, device
        self._scale: Tensor | None = None  # s, ()
        self._velocity: Tensor | None = None  # v, (N,); kept only where there is a momentum

    def step(self, point: Tensor, gradient: Tensor) -> Tensor:
        """See Optimizer."""
        scale, velocity = self._scale, gradient
        if scale is None:
            scale = self._rate * self._size / torch.linalg.vector_norm(gradient, 1).clamp(min=LEAST_GRADIENT)
        if self._velocity is not None:
            velocity = torch.add(gradient, self._velocity, alpha=self._momentum)
        reached = point - scale * velocity
        self._scale, self._velocity = scale, velocity if self._momentum else None
        return reached

    def state(self) -> State:
        """See Optimizer."""
        state = {"scale": self._scale, "velocity": self._velocity}
        return {name: tensor for name, tensor in state.items() if tensor is not None}

    def restore(self, state: State) -> None:
        """See Optimizer."""
        if state:
            _check_shapes(state, {"scale": (), **({"velocity": (self._size,)} if self._momentum else {})})
            held = {name: tensor.to(self._device) for name, tensor in state.items()}
            self._scale, self._velocity = held["scale"], held.get("velocity")
