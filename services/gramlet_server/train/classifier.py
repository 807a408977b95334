"""A trained head with what it stands on: from what the network gives to calibrated probabilities."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from gramlet.errors import FailedPrecondition
from gramlet.feature.types import Model
from gramlet.train.configuration import HeadKind
from gramlet.train.types import Head
from numpy.typing import NDArray
from torch import Tensor, nn

from gramlet_server.backbone.weights import Weights
from gramlet_server.train import head as heads
from gramlet_server.train.fit import State


class BaseStages:
    """The late stages of the network at its own weights, for training to start from and for heads that changed them.

    Args:
        weights: Reads the weights, once, when they are first needed. None: this process has none, and serves frozen
            networks only.
    """

    def __init__(self, weights: Callable[[], Weights] | None) -> None:
        self._source = weights
        self._weights: Weights | None = None

    def weights(self, digest: str) -> Weights:
        """The weights, if they are those.

        Raises:
            FailedPrecondition: This process has no weights, or others.
        """
        if self._weights is None:
            if self._source is None:
                raise FailedPrecondition(
                    "unfrozen stages need the network's weights in this process: start it with --weights"
                )
            self._weights = self._source()
        if self._weights.digest != digest:
            raise FailedPrecondition(
                f"this process has weights {self._weights.digest[:12]}, the network {digest[:12]}: start it with the "
                "same --weights as the FeatureService"
            )
        return self._weights

    def build(self, digest: str, first: str) -> nn.Module:
        """A copy of the stages from `first` on: (N, C, H, W) → (N, C', 1, 1).

        Raises:
            FailedPrecondition: This process has no weights, or others.
        """
        from gramlet_server.backbone.trainable import late_stages

        return late_stages(self.weights(digest), first)


class Classifier(nn.Module):
    """Unfrozen stages (or none), a head and a temperature: (N, C[, H, W]) → (N, classes) scaled logits."""

    def __init__(self, late: nn.Module | None, head: nn.Module, temperature: float) -> None:
        super().__init__()
        self.late = late
        self.head = head
        self.temperature = temperature
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Scaled logits of a batch."""
        if self.late is not None:
            x = self.late(x).flatten(1)
        scaled: Tensor = self.head(x) / self.temperature
        return scaled

    def probabilities(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, classes) of a batch."""
        with torch.inference_mode():
            result: NDArray[np.float32] = self(torch.from_numpy(inputs)).softmax(dim=1).numpy()
        return result


def restore(head: Head, head_state: State, late_delta: State, base: BaseStages) -> Classifier:
    """The classifier that a head in the store describes.

    Raises:
        FailedPrecondition: It has unfrozen stages, and this process not the weights that they differ from.
    """
    late = None
    if head.stages:
        late = base.build(head.weights_digest, head.stages[0])
        late.load_state_dict(added(late.state_dict(), late_delta))
    channels = head_state["output.weight" if head.kind is HeadKind.LINEAR else "hidden.weight"].shape[1]
    return Classifier(late, heads.restore(head.kind, channels, len(head.classes), head_state), head.outcome.temperature)


def difference(base: State, trained: State) -> State:
    """What training changed: the differences of all tensors that are not as they were."""
    return {name: value - base[name] for name, value in trained.items() if not torch.equal(value, base[name])}


def added(base: State, delta: State) -> State:
    """The weights that a difference leads to."""
    return {name: value + delta[name] if name in delta else value for name, value in base.items()}


def check_weights(head: Head, model: Model) -> None:
    """Refuses a head that was trained on another network.

    Raises:
        FailedPrecondition: It was.
    """
    if head.weights_digest != model.weights_digest:
        raise FailedPrecondition(
            f"head {head.name}/{head.version} was trained on {head.backbone} with weights {head.weights_digest[:12]}; "
            f"this network is {model.backbone} with weights {model.weights_digest[:12]}",
            field="head",
        )
