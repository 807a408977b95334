"""Optimizers that are called for one step at a time: L-BFGS for points of millions of numbers, and torch's Adam."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.optim.lbfgs import _strong_wolfe  # scipy's public search gives up where this one takes its best trial

LEAST_CURVATURE = float(np.finfo(np.float32).eps)
"""A step s with the change y of the gradient is remembered only if s·y > LEAST_CURVATURE * |s·g|, g being the gradient
where the step began; otherwise s·y is rounding error. The test is that of L-BFGS-B (Zhu, Byrd, Lu, Nocedal, 1997) and
holds for losses of any scale. torch's test, s·y > 1e-10, depends on the scale."""

Loss = Callable[[Tensor], tuple[float, Tensor]]
"""Returns the loss at a point (N,) and its gradient there (N,), which nobody changes afterwards."""

State = Mapping[str, Tensor]
"""What an optimizer remembers, by name."""


class Stepper(Protocol):
    """An optimizer that takes one step at a time."""

    def step(self, point: Tensor, loss: Loss) -> Tensor:
        """A new point (N,), one step away.

        Args:
            point: (N,) float32. After the first step it is the point that the step before returned.
            loss: Called at `point` first. If it raises, nothing has changed, and the step can be taken again.
        """
        ...

    def state(self) -> State:
        """What it remembers. An optimizer that this is restored to takes the same steps, bit by bit.

        The tensors are those that the next step changes: serialize or copy them before it.
        """
        ...

    def restore(self, state: State) -> None:
        """Makes another optimizer's state its own. Both have the same size and settings."""
        ...


class LBFGS:
    """Limited-memory BFGS (Liu, Nocedal, "On the limited memory BFGS method for large scale optimization", 1989).

    The steps are those of torch.optim.LBFGS but for rounding. The two loops that turn a gradient into a direction need
    only inner products and linear combinations of the same 2m + 1 vectors. So they run over the coefficients of these
    vectors, given their inner products (Chen, Wang, Zhou, "Large-scale L-BFGS using MapReduce", NIPS 2014). One matrix
    product computes the inner products of the new vectors with the history, a second one the direction. The history is
    read twice in all, at the speed of memory.

    Args:
        size: N, the size of a point.
        rate: The factor of each direction; with a line search, the first factor that it tries.
        pairs: m, the number of pairs of vectors that are remembered.
        searches: Search along each direction for a point that satisfies the strong Wolfe conditions.
    """

    def __init__(self, size: int, rate: float, pairs: int, *, searches: bool = False) -> None:
        self._rate = rate
        self._pairs = pairs
        self._searches = searches
        # Rows 2i and 2i + 1 are a step and the change of the gradient over it. The newest pair replaces the oldest.
        self._rows = torch.empty(2 * pairs, size)
        self._products = np.zeros((2 * pairs, 2 * pairs))  # inner products of the rows with each other
        self._count = 0  # pairs remembered so far, including those that were replaced
        self._last: tuple[Tensor, Tensor] | None = None  # the last step, and the gradient where it began

    def step(self, point: Tensor, loss: Loss) -> Tensor:
        """See Stepper."""
        value, gradient = loss(point)
        count, direction = self._direction(gradient)
        slope, begins = float(direction.dot(gradient)), self._last is None
        if slope > 0:  # uphill, because of rounding errors in the history: forget it
            count, direction, slope, begins = 0, -gradient, -float(gradient.dot(gradient)), True
        # Without a history the scale of the gradient is unknown: all numbers together are changed by at most 1.
        rate = self._rate / max(1.0, float(gradient.abs().sum())) if begins else self._rate
        if self._searches:
            rate = _strong_wolfe(  # type: ignore[no-untyped-call]
                lambda x, t, d: loss(x + t * d), point, rate, direction, value, gradient, slope
            )[2]
        # `loss` may have raised until here. So far only the pair that is to be replaced has changed, and a step that is
        # taken again writes the same pair there.
        step = direction.mul_(rate)
        self._count, self._last = count, (step, gradient)
        return point + step

    def _direction(self, gradient: Tensor) -> tuple[int, Tensor]:
        """The count of pairs with the last step's, and the direction of the next step (N,)."""
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
        """The two loops: coefficients of the gradient and of the rows in the product H g.

        H is the estimate of the inverse Hessian, g the gradient.

        Args:
            along: Inner products of the rows with the gradient.
            count: Pairs remembered so far, including the newest.
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
        return {"rows": self._rows[:kept], "products": products, "count": torch.tensor(self._count), **last}

    def restore(self, state: State) -> None:
        """See Stepper."""
        kept = len(state["rows"])
        self._rows[:kept] = state["rows"]
        self._products[:kept, :kept] = state["products"].numpy()
        self._count = int(state["count"])
        self._last = (state["step"], state["gradient"]) if "step" in state else None


class Adam:
    """torch's Adam (Kingma, Ba, "Adam: a method for stochastic optimization", 2015).

    Args:
        size: N, the size of a point.
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
        return dict(self._adam.state[self._point])  # empty before the first step

    def restore(self, state: State) -> None:
        """See Stepper."""
        own = self._adam.state_dict()
        self._adam.load_state_dict({**own, "state": {0: dict(state)} if state else {}})
