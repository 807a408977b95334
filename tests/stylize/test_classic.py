"""Preset `classic` is exactly the formulas of docs/architecture.md, "The mathematics".

L-BFGS without a line search amplifies rounding from step to step: two right implementations, or one on two kinds of
processor, soon take different ways. So each step is compared with torch's from the same picture and the same history,
and the losses of a whole descent only as far as torch's own stay the same when the picture is changed by a millionth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gramlet.feature.types import PictureStyle
from gramlet.stylize.types import Iteration, Stylization, StylizeSettings
from gramlet.types import Limits
from gramlet_server.backbone import load_network
from gramlet_server.feature.engine import Engine
from gramlet_server.feature.lbfgs import LBFGS
from gramlet_server.stylize.prepare import prepare_stylization
from gramlet_server.stylize.stylization import stylize
from torch import Tensor

from .direct import DirectStep, classic_loss, steps_of_lbfgs, torchvision_resnet50

pytestmark = pytest.mark.weights

ITERATIONS = 10
NOISE = 1e-6
STABLE = 5e-3
"""The losses are compared up to the first one of the reference that noise changes by more than this share."""


@dataclass(frozen=True)
class Descent:
    """The product's job, and the same loss written down directly."""

    engine: Engine
    job: Any
    loss: Callable[[Tensor], Tensor]

    @cached_property
    def steps(self) -> list[DirectStep]:
        """Torch's steps from the content."""
        return self.direct(torch.tensor(self.job.pictures.content))

    def direct(self, start: Tensor) -> list[DirectStep]:
        """Torch's steps from a picture."""
        settings = self.job.settings
        options = {"lr": settings.learning_rate, "history_size": settings.history_size}
        return steps_of_lbfgs(self.loss, start, ITERATIONS, **options)


@pytest.fixture(scope="module")
def descent(resnet50_weights: Path, samples: Path) -> Iterator[Descent]:
    engine = Engine(load_network("resnet50", str(resnet50_weights), "cpu"))
    order = Stylization(
        (samples / "content/tubingen.jpg").read_bytes(),
        (PictureStyle((samples / "style/starry_night.jpg").read_bytes()),),
        StylizeSettings(preset="classic", size=256, iterations=ITERATIONS),
    )
    job = prepare_stylization(order, engine, Limits())
    assert job.pictures.styles[0].picture.shape == job.pictures.content.shape
    content, style = torch.tensor(job.pictures.content), torch.tensor(job.pictures.styles[0].picture)
    loss = classic_loss(torchvision_resnet50(resnet50_weights), content, style)
    yield Descent(engine, job, loss)
    engine.close()


def test_loss_and_gradient_are_those_of_a_direct_transcription(descent: Descent) -> None:
    elsewhere = torch.tensor(descent.job.pictures.content).flip(2).requires_grad_()
    loss = descent.loss(elsewhere)
    loss.backward()
    with descent.engine.differentiate(descent.job.objective()) as differentiation:
        evaluation = differentiation.evaluate(elsewhere.detach().numpy())
    assert elsewhere.grad is not None
    gradient = elsewhere.grad.numpy()
    assert evaluation.loss == pytest.approx(loss.item(), rel=1e-4)
    assert np.abs(evaluation.gradient - gradient).max() < 1e-4 * np.abs(gradient).max()


def test_loss_and_gradient_stay_so_along_a_descent(descent: Descent) -> None:
    with descent.engine.differentiate(descent.job.objective()) as differentiation:
        for step in descent.steps[1::2]:
            evaluation = differentiation.evaluate(step.point.numpy())
            assert evaluation.loss == pytest.approx(step.loss, rel=1e-4)
            # Not pixel by pixel: where two activations are almost equal, rounding decides which one a maximum takes.
            error = np.linalg.norm(evaluation.gradient - step.gradient.numpy())
            assert error < 1e-3 * float(step.gradient.norm())


@pytest.mark.parametrize("number", range(ITERATIONS))
def test_a_step_is_the_one_that_torch_takes_from_the_same_history(number: int, descent: Descent) -> None:
    step, settings = descent.steps[number], descent.job.settings
    ours = LBFGS(step.point.numel(), settings.learning_rate, settings.history_size)
    if step.history:
        ours.restore(_state(step.history))
    reached = ours.step(step.point.flatten(), step.gradient.flatten())
    expected = step.after.flatten()
    # A short step from a large point is known no better than the point's own float32 rounding.
    rounding = torch.finfo(torch.float32).eps * float(step.point.norm())
    assert float((reached - expected).norm()) < 1e-4 * float((step.after - step.point).norm()) + rounding


def test_the_losses_are_the_same_as_far_as_rounding_allows(descent: Descent) -> None:
    expected = np.array([step.loss for step in descent.steps])
    moved = np.zeros(ITERATIONS)
    for seed in range(2):
        content = torch.tensor(descent.job.pictures.content)
        noise = torch.randn(content.shape, generator=torch.Generator().manual_seed(seed))
        losses = np.array([step.loss for step in descent.direct(content + NOISE * noise)])
        moved = np.maximum(moved, np.abs(losses / expected - 1))
    stable = int(np.argmax(np.append(moved, np.inf) > STABLE))
    assert stable >= 3, moved  # or there is nothing to compare
    ours = [event.loss for event in stylize(descent.job, descent.engine) if isinstance(event, Iteration)]
    assert len(ours) == ITERATIONS
    assert ours[:stable] == pytest.approx(expected[:stable], rel=10 * STABLE)
    assert ours[-1] < 0.01 * ours[0]


def _state(history: Any) -> dict[str, Any]:
    """What torch's optimizer remembers, as ours does."""
    pairs = zip(history.get("old_stps") or [], history.get("old_dirs") or [], strict=True)
    rows = [vector for step, change in pairs for vector in (step, change)]
    stacked = torch.stack(rows) if rows else torch.empty(0, len(history["d"]))
    exact, gradient = stacked.double(), history["prev_flat_grad"]
    return {
        "rows": stacked,
        "products": exact @ exact.T,
        "along": exact @ gradient.double(),
        "valid": torch.ones(len(rows) // 2, dtype=torch.float64),
        "scale": torch.as_tensor(history["H_diag"], dtype=torch.float64),
        "pairs": torch.tensor(len(rows) // 2),
        "step": history["d"] * history["t"],
        "gradient": gradient,
    }
