"""L-BFGS and gradient descent take torch's steps, can be interrupted, and do not depend on the scale of a loss."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from gramlet_server.feature.lbfgs import LBFGS, Adam, GradientDescent, Optimizer
from safetensors.torch import load, save
from torch import Tensor

Loss = Callable[[Tensor], tuple[float, Tensor]]

START = torch.linspace(-1.5, 1.5, 24)


def rosenbrock(point: Tensor) -> Tensor:
    """Chained: a curved valley with the minimum 0 at (1, ..., 1)."""
    return (100 * (point[1:] - point[:-1].square()).square() + (1 - point[:-1]).square()).sum()


def valley(point: Tensor) -> Tensor:
    """A parabola whose axes differ by a factor of 100."""
    return 0.5 * (torch.linspace(0.1, 10, len(point)) * (point - 1).square()).sum()


def loss_of(formula: Callable[[Tensor], Tensor], scale: float = 1.0) -> Loss:
    def loss(point: Tensor) -> tuple[float, Tensor]:
        point = point.clone().requires_grad_()
        value = scale * formula(point)
        (gradient,) = torch.autograd.grad(value, point)
        return float(value.detach()), gradient

    return loss


class Searching(LBFGS):
    """L-BFGS that searches along every direction."""

    def __init__(self, size: int, rate: float, history: int, loss: Loss) -> None:
        super().__init__(size, rate, history)
        self._loss = loss

    def step(self, point: Tensor, gradient: Tensor) -> Tensor:
        search = self.search(point, self._loss(point)[0], gradient)
        try:
            trial = next(search)
            while True:
                trial = search.send(self._loss(trial))
        except StopIteration as ended:
            reached: Tensor = ended.value[0]
            return reached


def points(optimizer: Optimizer, loss: Loss, steps: int, start: Tensor = START) -> list[Tensor]:
    found = [start]
    for _ in range(steps):
        found.append(optimizer.step(found[-1], loss(found[-1])[1]))
    return found[1:]


def points_of_torch(loss: Loss, steps: int, history: int, searches: bool) -> list[Tensor]:
    parameter = START.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [parameter],
        max_iter=1,
        max_eval=26,  # the first one and 25 trials of a line search
        history_size=history,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn="strong_wolfe" if searches else None,
    )

    def closure() -> float:
        value, parameter.grad = loss(parameter.detach())
        return value

    found = []
    for _ in range(steps):
        optimizer.step(closure)
        found.append(parameter.detach().clone())
    return found


def hilltop(point: Tensor) -> Tensor:
    """Curves downward everywhere, so that no pair is valid."""
    return -0.5 * point.square().sum()


@pytest.mark.parametrize("history", [1, 3, 20])
@pytest.mark.parametrize(
    ("formula", "searches"), [(valley, False), (valley, True), (rosenbrock, True), (hilltop, False)]
)
def test_its_steps_are_those_of_torch(formula: Callable[[Tensor], Tensor], searches: bool, history: int) -> None:
    loss = loss_of(formula)
    optimizer = Searching(len(START), 1.0, history, loss) if searches else LBFGS(len(START), 1.0, history)
    ours = points(optimizer, loss, 12)
    for step, (one, other) in enumerate(zip(ours, points_of_torch(loss, 12, history, searches), strict=True)):
        # Rounding grows from step to step.
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * 2**step)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_gradient_descent_takes_torchs_steps_at_a_rate_by_the_first_gradient(momentum: float) -> None:
    loss, parameter = loss_of(valley), START.clone().requires_grad_()
    rate = 0.01 * len(START) / float(loss(START)[1].abs().sum())
    optimizer = torch.optim.SGD([parameter], rate, momentum)
    ours = points(GradientDescent(len(START), 0.01, momentum), loss, 12)
    assert float((ours[0] - START).abs().mean()) == pytest.approx(0.01, rel=1e-5)
    for point in ours:
        parameter.grad = loss(parameter.detach())[1]
        optimizer.step()
        torch.testing.assert_close(point, parameter.detach())


def test_with_a_line_search_it_reaches_the_minimum() -> None:
    loss = loss_of(rosenbrock)
    assert loss(points(Searching(len(START), 1.0, 10, loss), loss, 150)[-1])[0] < 1e-6


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_the_scale_of_a_loss_does_not_matter(scale: float) -> None:
    loss = loss_of(valley, scale)
    one, other = (points(GradientDescent(len(START), 0.1, 0.5), loss_of(valley, s), 5)[-1] for s in (1.0, scale))
    torch.testing.assert_close(one, other)
    assert loss(points(LBFGS(len(START), 1.0, 10), loss, 60)[-1])[0] < 1e-6 * loss(START)[0]


def test_at_the_minimum_it_stays() -> None:
    minimum = torch.ones(24)
    for optimizer in (LBFGS(24, 1.0, 5), GradientDescent(24, 1.0, 0.9)):
        for point in points(optimizer, loss_of(valley), 3, start=minimum):
            assert torch.equal(point, minimum)


def test_a_pair_without_curvature_changes_nothing() -> None:
    """A gradient that stays the same along a step says nothing of curvature: the next step is the first again."""
    optimizer, gradient = LBFGS(24, 1.0, 3), torch.full((24,), 0.01)
    first = optimizer.step(START, gradient) - START
    for _ in range(5):
        torch.testing.assert_close(optimizer.step(START, gradient) - START, first)


OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {
    "L-BFGS": lambda: LBFGS(len(START), 1.0, 3),
    "strong Wolfe": lambda: Searching(len(START), 1.0, 3, loss_of(valley)),
    "Adam": lambda: Adam(len(START), 0.05),
    "gradient descent": lambda: GradientDescent(len(START), 0.05, 0.0),
    "momentum": lambda: GradientDescent(len(START), 0.05, 0.9),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("after", [0, 1, 2, 3, 5])
def test_another_one_goes_on_at_the_same_bits(make: Callable[[], Optimizer], after: int) -> None:
    loss, optimizer, other = loss_of(valley), make(), make()
    reached = [START, *points(optimizer, loss, after)][-1]
    other.restore(load(save({name: tensor.clone() for name, tensor in optimizer.state().items()})))
    for one, same in zip(points(optimizer, loss, 5, reached), points(other, loss, 5, reached), strict=True):
        assert torch.equal(one, same)
