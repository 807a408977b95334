"""A descent: the picture with its optimizer, one iteration at a time. Its state can be stored between iterations."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from gramlet.errors import FailedPrecondition
from gramlet.feature.types import Evaluation
from gramlet.json_codec import from_json, to_json
from gramlet.stylize.types import Colors, LineSearch, Optimizer, StylizeSettings
from gramlet.types import Array
from safetensors.torch import load, save
from torch import Tensor
from torch.nn import functional

from gramlet_server.stylize.colors import luminance
from gramlet_server.stylize.optimizers import LBFGS, Adam, Stepper

DIVERGED = 1e3
"""The descent has diverged when the loss exceeds DIVERGED × the first loss and the loss of the inverted picture. The
second test matters when the start is already the optimum: the first loss is then only rounding error. The factor is
large because steps without a line search may overshoot and recover."""

MOST_RESTARTS = 40
"""The descent fails after this many restarts. Steps are then 2^40 times shorter and cannot be the cause."""

RESTART_RATE = 0.5
"""Each restart multiplies the learning rate by this."""

HISTORY_BYTES = 2**30
"""The most memory for the history of L-BFGS, which a state contains: 20 pairs at 2 megapixels, 3 pairs at 12."""

Evaluate = Callable[[Array], Evaluation]
"""Loss and gradient at a picture or a canvas; the gradient has its shape."""


class Canvas(Protocol):
    """The part of a picture that a descent moves: (C, H, W), of pictures (3, H, W)."""

    def of(self, picture: Array) -> Array:
        """The canvas of a picture."""
        ...

    def shown(self, canvas: Array) -> Array:
        """The picture that people see."""
        ...

    def evaluating(self, evaluate: Evaluate) -> Evaluate:
        """Evaluates canvases, given the evaluation of the pictures that the network sees."""
        ...


class WholePicture:
    """The canvas that is the picture itself."""

    def of(self, picture: Array) -> Array:
        return picture

    def shown(self, canvas: Array) -> Array:
        return canvas

    def evaluating(self, evaluate: Evaluate) -> Evaluate:
        return evaluate


class LuminanceOnly:
    """The canvas that is the luminance, (1, H, W).

    The network sees it as a gray picture, people see it with the chroma of the content.

    Args:
        content: (3, H, W).
    """

    def __init__(self, content: Array) -> None:
        self._content = content
        self._own = luminance(content)

    def of(self, picture: Array) -> Array:
        return luminance(picture)

    def shown(self, canvas: Array) -> Array:
        """Adds the same to red, green and blue, which leaves I and Q of YIQ as they are: both are differences."""
        return self._content + (canvas - self._own)

    def evaluating(self, evaluate: Evaluate) -> Evaluate:
        """The gradient is the sum over the channels, by the chain rule."""

        def evaluated(canvas: Array) -> Evaluation:
            evaluation = evaluate(np.repeat(canvas, 3, axis=0))
            return dataclasses.replace(evaluation, gradient=evaluation.gradient.sum(axis=0, keepdims=True))

        return evaluated


def make_canvas(settings: StylizeSettings, content: Array) -> Canvas:
    """The canvas that the settings ask for, given the content (3, H, W)."""
    return LuminanceOnly(content) if settings.colors is Colors.CONTENT_LUMINANCE else WholePicture()


@dataclass(frozen=True)
class _Losses:
    """The losses of an `Evaluation`, as the state stores them."""

    loss: float
    style_loss: float
    content_loss: float
    total_variation_loss: float
    stage_losses: Mapping[str, float]


@dataclass(frozen=True)
class _Progress:
    """The part of the state that is no tensor. The fields are those of `Descent`."""

    settings: StylizeSettings
    adjustments: int
    iteration: int
    evaluations: int
    queue_seconds: float
    compute_seconds: float
    restarts: int
    bound: float
    best: _Losses | None


class Descent:
    """A picture, or a canvas of it, with the optimizer that moves it.

    Args:
        initial: The canvas to start from, (C, H, W) float32.
        settings: Complete: none is None.

    Attributes:
        settings: The settings in force.
        adjustments: The number of adjustments that they contain.
        iteration: The number of iterations done.
        evaluations: The number of evaluations of loss and gradient.
        queue_seconds, compute_seconds: The sums of the evaluations' timings.
    """

    def __init__(self, initial: Array, settings: StylizeSettings) -> None:
        self.settings = settings
        self.adjustments = 0
        self.iteration = 0
        self.evaluations = 0
        self.queue_seconds = 0.0
        self.compute_seconds = 0.0
        self._picture = torch.tensor(initial)
        self._here: Evaluation | None = None  # at the picture, if the step that led there has evaluated it
        self._best: tuple[Tensor, Evaluation] | None = None  # since the last reset; the gradient is dropped
        self._bound = math.nan  # a larger loss is divergence
        self._restarts = 0
        self._optimizer = self._new_optimizer()

    @property
    def picture(self) -> Array:
        """A copy of the picture or canvas now, (C, H, W)."""
        return self._picture.numpy().copy()

    def resize(self, height: int, width: int) -> None:
        """Goes on at another size, in pixels, or at the same size in another precision.

        At another size the history and the best picture are forgotten: losses of two sizes cannot be compared.
        """
        self._here = None
        if self._picture.shape[1:] == (height, width):
            return
        picture = functional.interpolate(self._picture[None], (height, width), mode="bicubic")[0]
        self._picture = picture.contiguous()
        self._restarts = 0
        self._reset()

    def adjust(self, settings: StylizeSettings, adjustments: int) -> None:
        """Goes on with other settings. The history is forgotten: its curvature is that of another loss.

        Args:
            settings: Complete.
            adjustments: The number of adjustments that they contain.
        """
        self.settings, self.adjustments = settings, adjustments
        self._reset()

    def _reset(self) -> None:
        self._here, self._best = None, None
        self._optimizer = self._new_optimizer()

    def step(self, evaluate: Evaluate) -> Evaluation | None:
        """One iteration.

        If `evaluate` raises, the picture and the history are as before, and the step can be taken again.

        Returns:
            The evaluation at the picture where the step began. None if the descent had diverged there: it has gone back
            to its best picture, with shorter steps and no history, and no iteration was done.

        Raises:
            FailedPrecondition: The loss is not finite at the first picture, or after MOST_RESTARTS restarts.
        """
        start = self._here or self._evaluate(self._picture, evaluate)
        if self._has_diverged(start, evaluate):
            self._restart()
            return None
        if self._best is None or start.loss < self._best[1].loss:
            self._best = self._picture, dataclasses.replace(start, gradient=np.zeros(0, np.float32))

        # The optimizer asks for the loss at the picture first, which is known. A line search then asks for the loss at
        # some pictures on the way. It ends at one of these, which is where the next step begins.
        evaluated = [(self._picture, start)]

        def loss(point: Tensor) -> tuple[float, Tensor]:
            picture = point.view_as(self._picture)
            evaluation = _find(picture, evaluated)
            if evaluation is None:
                evaluation = self._evaluate(picture, evaluate)
                evaluated.append((picture, evaluation))
            return evaluation.loss, torch.tensor(evaluation.gradient).flatten()

        self._picture = self._optimizer.step(self._picture.flatten(), loss).view_as(self._picture)
        self._here = _find(self._picture, evaluated)
        self.iteration += 1
        return start

    def finish(self, evaluate: Evaluate) -> tuple[Array, Evaluation]:
        """The best picture (C, H, W) since the last reset, including the last one, with its evaluation."""
        last = self._here or self._evaluate(self._picture, evaluate)
        if self._best is None or last.loss <= self._best[1].loss:
            return self.picture, last
        picture, evaluation = self._best
        return picture.numpy(), evaluation

    def _evaluate(self, picture: Tensor, evaluate: Evaluate) -> Evaluation:
        evaluation = evaluate(picture.numpy())
        self.evaluations += 1
        self.queue_seconds += evaluation.timing.queue_seconds
        self.compute_seconds += evaluation.timing.compute_seconds
        return evaluation

    def _has_diverged(self, evaluation: Evaluation, evaluate: Evaluate) -> bool:
        """Whether the loss at the picture is not finite, or exceeds the bound; see DIVERGED."""
        if self._best is None:
            if not math.isfinite(evaluation.loss):
                raise FailedPrecondition("the loss at the initial picture is not a number")
            self._bound = DIVERGED * evaluation.loss
        elif self._bound < evaluation.loss < math.inf:
            # The inverted picture: each level is as far from the best picture's as it can be.
            inverted = self._evaluate((self._best[0] < 0.5).float(), evaluate).loss
            self._bound = max(self._bound, inverted if math.isfinite(inverted) else 0.0)
        return not evaluation.loss <= self._bound  # NaN has diverged as well

    def _restart(self) -> None:
        """Goes back to the best picture, with shorter steps and no history."""
        self._restarts += 1
        if self._restarts > MOST_RESTARTS:
            raise FailedPrecondition("the loss is not a number, however short the steps are: try other settings")
        if self._best is not None:
            self._picture, self._here = self._best[0], None
        self._optimizer = self._new_optimizer()

    def _new_optimizer(self) -> Stepper:
        settings, size = self.settings, self._picture.numel()
        rate = (settings.learning_rate or 1.0) * RESTART_RATE**self._restarts
        if settings.optimizer is Optimizer.ADAM:
            return Adam(size, rate)
        pairs = max(1, min(settings.history_size or 20, HISTORY_BYTES // (2 * 4 * size)))
        # After a divergence every step is searched for. The steps are then short; without a search the first of them
        # would change the gradient by little more than rounding error, and tell nothing of the curvature.
        searches = settings.line_search is LineSearch.STRONG_WOLFE or self._restarts > 0
        return LBFGS(size, rate, pairs, searches=searches)

    def to_bytes(self) -> bytes:
        """The state as a safetensors file. A descent that is made from it takes the same steps, bit by bit."""
        tensors = {"picture": self._picture}
        tensors |= {f"optimizer.{name}": tensor for name, tensor in self._optimizer.state().items()}
        best = None
        if self._best is not None:
            picture, evaluation = self._best
            best = _losses(evaluation)
            if picture is not self._picture:  # no tensor is stored twice
                tensors["best"] = picture
        progress = _Progress(
            settings=self.settings,
            adjustments=self.adjustments,
            iteration=self.iteration,
            evaluations=self.evaluations,
            queue_seconds=self.queue_seconds,
            compute_seconds=self.compute_seconds,
            restarts=self._restarts,
            bound=self._bound,
            best=best,
        )
        return save(tensors, {"progress": to_json(progress).decode()})

    @classmethod
    def from_bytes(cls, data: bytes) -> Descent:
        """The descent that `to_bytes` wrote."""
        tensors = load(data)
        progress = from_json(_Progress, _metadata(data)["progress"].encode())
        descent = cls(tensors["picture"].numpy(), progress.settings)
        descent.adjustments = progress.adjustments
        descent.iteration = progress.iteration
        descent.evaluations = progress.evaluations
        descent.queue_seconds = progress.queue_seconds
        descent.compute_seconds = progress.compute_seconds
        descent._restarts = progress.restarts
        descent._bound = progress.bound
        if progress.best is not None:
            evaluation = Evaluation(**vars(progress.best), gradient=np.zeros(0, np.float32))
            descent._best = tensors.get("best", descent._picture), evaluation
        descent._optimizer = descent._new_optimizer()
        prefix = "optimizer."
        descent._optimizer.restore(
            {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        )
        return descent


def _losses(evaluation: Evaluation) -> _Losses:
    return _Losses(
        loss=evaluation.loss,
        style_loss=evaluation.style_loss,
        content_loss=evaluation.content_loss,
        total_variation_loss=evaluation.total_variation_loss,
        stage_losses=dict(evaluation.stage_losses),
    )


def _find(picture: Tensor, evaluated: Sequence[tuple[Tensor, Evaluation]]) -> Evaluation | None:
    return next((evaluation for point, evaluation in evaluated if torch.equal(point, picture)), None)


def _metadata(safetensors: bytes) -> dict[str, str]:
    """The metadata in the header of a safetensors file, which `load` does not return."""
    size = int.from_bytes(safetensors[:8], "little")
    metadata: dict[str, str] = json.loads(safetensors[8 : 8 + size])["__metadata__"]
    return metadata
