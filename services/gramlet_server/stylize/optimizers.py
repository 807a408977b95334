"""How a picture takes a step down: L-BFGS, written for points of millions of numbers, and torch's Adam."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.optim.lbfgs import _strong_wolfe  # not public; scipy's public one gives up where this takes the best trial

LEAST_CURVATURE = float(np.finfo(np.float32).eps)
"""A step must change so much of the slope where it began, or what it tells of the curvature is rounding. The rule of
L-BFGS-B (Zhu, Byrd, Lu, Nocedal, 1997), for losses of any scale; torch's bound, 1e-10, is for some."""

Loss = Callable[[Tensor], tuple[float, Tensor]]
"""The loss at a point (N,), and its gradient there (N,), which stays as it is."""

State = Mapping[str, Any]
"""What an optimiser remembers, in a form that `torch.load(weights_only=True)` reads."""


class Stepper(Protocol):
    """An optimiser, a step at a time."""

    def step(self, point: Tensor, loss: Loss) -> Tensor:
        """A new point (N,), one step from this one.

        Args:
            point: (N,) float32. The first is any, all others are what the step before returned.
            loss: Is first asked at the point. If it raises, the step has not been, and can be taken again.
        """
        ...

    def state(self) -> State:
        """What it remembers. With it, another one takes exactly the steps that this one would have taken."""
        ...

    def restore(self, state: State) -> None:
        """Goes on from what another one remembered."""
        ...


class LBFGS:
    """Limited-memory BFGS (Liu, Nocedal, "On the limited memory BFGS method for large scale optimization", 1989).

    The steps are those of torch.optim.LBFGS but for rounding. The two loops that turn a gradient into a direction take
    nothing but inner products and linear combinations of the same 2m + 1 vectors. So they run over the coefficients of
    the vectors, given their inner products (Chen, Wang, Zhou, "Large-scale L-BFGS using MapReduce", NIPS 2014): one
    matrix product gives those of what is new with the history, another one the direction. The history is read twice,
    by one thread at the speed of memory.

    Args:
        size: N, of a point.
        rate: What a direction is multiplied by; with a line search, at its first trial.
        pairs: Most pairs of vectors to remember: m.
        searches: Look along each direction for a point that satisfies the strong Wolfe conditions.
    """

    def __init__(self, size: int, rate: float, pairs: int, *, searches: bool = False) -> None:
        self._rate = rate
        self._pairs = pairs
        self._searches = searches
        # Rows 2i and 2i + 1 are a step and the change of the gradient over it; the newest pair overwrites the oldest.
        self._rows = torch.empty(2 * pairs, size)
        self._products = np.zeros((2 * pairs, 2 * pairs))  # of the rows with each other
        self._count = 0  # pairs ever remembered
        self._last: tuple[Tensor, Tensor] | None = None  # the last step, and the gradient where it began

    def step(self, point: Tensor, loss: Loss) -> Tensor:
        """See Stepper."""
        value, gradient = loss(point)
        count, direction = self._direction(gradient)
        slope, begins = float(direction.dot(gradient)), self._last is None
        if slope > 0:  # rounding has spoiled the history
            count, direction, slope, begins = 0, -gradient, -float(gradient.dot(gradient)), True
        # Where nothing is known of the length of gradients, all pixels are moved by 1 in sum, at most.
        rate = self._rate / max(1.0, float(gradient.abs().sum())) if begins else self._rate
        if self._searches:
            rate = _strong_wolfe(  # type: ignore[no-untyped-call]
                lambda x, t, d: loss(x + t * d), point, rate, direction, value, gradient, slope
            )[2]
        # Until here nothing is changed but the pair to be overwritten, which a step that is taken again writes again.
        step = direction.mul_(rate)
        self._count, self._last = count, (step, gradient)
        return point + step

    def _direction(self, gradient: Tensor) -> tuple[int, Tensor]:
        """How many pairs have ever been remembered, the last step's included; and where to go (N,)."""
        count, vectors = self._count, [gradient]
        newest = 2 * (count % self._pairs)
        if self._last is not None:
            step, before = self._last
            change = gradient - before
            if float(step.dot(change)) > LEAST_CURVATURE * abs(float(step.dot(before))):
                self._rows[newest], self._rows[newest + 1] = step, change
                count, vectors = count + 1, [gradient, step, change]
        if not count:
            return 0, -gradient
        rows = self._rows[: 2 * min(count, self._pairs)]
        along, *new = linear(torch.stack(vectors), rows).double().numpy()  # inner products with the rows
        for index, products in enumerate(new, start=newest):
            self._products[index, : len(rows)] = self._products[: len(rows), index] = products
        of_gradient, of_rows = self._coefficients(along, count)
        direction = torch.from_numpy(of_rows.astype(np.float32)) @ rows
        return count, direction.add_(gradient, alpha=of_gradient).neg_()

    def _coefficients(self, along: np.ndarray, count: int) -> tuple[float, np.ndarray]:
        """Of the gradient and of the rows in the inverse Hessian's product with the gradient: the two loops.

        Args:
            along: Inner products of the rows with the gradient.
            count: Pairs ever remembered, the newest included.
        """
        products = self._products[: len(along), : len(along)]
        steps = [2 * (pair % self._pairs) for pair in range(max(0, count - self._pairs), count)]  # oldest to newest
        of_rows = np.zeros(len(along))
        shares = {}
        for step in reversed(steps):
            change = step + 1
            shares[step] = (along[step] + products[step] @ of_rows) / products[step, change]
            of_rows[change] -= shares[step]
        newest = steps[-1]
        of_gradient = products[newest, newest + 1] / products[newest + 1, newest + 1]
        of_rows *= of_gradient
        for step in steps:
            change = step + 1
            along_change = of_gradient * along[change] + products[change] @ of_rows
            of_rows[step] += shares[step] - along_change / products[step, change]
        return float(of_gradient), of_rows

    def state(self) -> State:
        """See Stepper."""
        kept = 2 * min(self._count, self._pairs)
        last = {} if self._last is None else dict(zip(("step", "gradient"), self._last, strict=True))
        products = torch.from_numpy(self._products[:kept, :kept].copy())
        return {"rows": self._rows[:kept].clone(), "products": products, "count": self._count, **last}

    def restore(self, state: State) -> None:
        """See Stepper."""
        kept = len(state["rows"])
        self._rows[:kept] = state["rows"]
        self._products[:kept, :kept] = state["products"].numpy()
        self._count = state["count"]
        self._last = (state["step"], state["gradient"]) if "step" in state else None


class Adam:
    """torch's Adam (Kingma, Ba, 2015).

    Args:
        size: N, of a point.
        rate: About how far a step moves each number of a point.
    """

    def __init__(self, size: int, rate: float) -> None:
        self._point = torch.zeros(size, requires_grad=True)
        self._adam = torch.optim.Adam([self._point], lr=rate)

    def step(self, point: Tensor, loss: Loss) -> Tensor:
        """See Stepper."""
        _, self._point.grad = loss(point)
        with torch.no_grad():
            self._point.copy_(point)
        self._adam.step()
        return self._point.detach().clone()

    def state(self) -> State:
        """See Stepper."""
        return self._adam.state_dict()

    def restore(self, state: State) -> None:
        """See Stepper."""
        self._adam.load_state_dict(dict(state))
