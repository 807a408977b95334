"""From what the network gives to calibrated probabilities: heads, the late stages before them, and their weights."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from gramlet.errors import FailedPrecondition
from gramlet.feature.types import Extraction, Features, Form
from gramlet.json_codec import from_json, to_json
from gramlet.train.configuration import HeadKind
from gramlet.train.types import Head, Outcome
from gramlet.types import Resize, ResizeMode, short_digest
from numpy.typing import NDArray
from safetensors.torch import load
from torch import Tensor, nn

from gramlet_server.backbone.tensor_file import metadata_of_file, parts_of_file
from gramlet_server.backbone.weights import Weights
from gramlet_server.process.memory_budget import PROCESS
from gramlet_server.train.arrays import Floats, Labels

EMBEDDING = "avgpool"
"""The stage whose pooled activations a head on the frozen network takes."""
HIDDEN = 500
"""Width of the mlp's hidden layer."""

EXPONENT = 0.75
"""Of the activations that a head takes."""
LEAST_ACTIVATION = 1e-3
"""Activations are about 0.5 on average; smaller ones than this count as this."""

State = dict[str, Tensor]


# What a head takes from the network


def extraction(stages: Sequence[str], size: int) -> Extraction:
    """Asks the network for the embedding (where `stages` has it) and for the activations of the other stages.

    Args:
        stages: Stages of the network.
        size: Side of the square that the network sees, in pixels: the shorter side is resized to it, then cropped.
    """
    forms = {Form.POOLED if stage == EMBEDDING else Form.ACTIVATIONS for stage in stages}
    return Extraction(
        stages=tuple(stages),
        forms=tuple(sorted(forms, key=lambda form: form.value)),
        resize=Resize(ResizeMode.CENTER_CROP, size),
    )


def feature_of(features: Features, stage: str) -> NDArray[np.float32]:
    """The embedding (C,), or the activations (C, H, W) of another stage."""
    return features.pooled[stage] if stage == EMBEDDING else features.activations[stage]


# Heads


def build_head(kind: HeadKind, channels: int, classes: int, seed: int) -> nn.Sequential:
    """A new head: (N, channels) → (N, classes) logits. A linear probe takes the activations as they are, others their
    powers.

    The first weights are distributed as those of torch's Linear, but drawn from a generator of their own: the same seed
    gives the same head, whatever else the process draws.
    """
    head = _layers(kind, channels, classes, power=kind is not HeadKind.LINEAR)
    generator = torch.Generator().manual_seed(seed)
    for layer in head:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
            bound = 1 / math.sqrt(layer.in_features)
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return head


class PowerNormalization(nn.Module):
    """(N, C) activations x → x^exponent, scaled to a mean square of 1 for every picture.

    Power normalization (Perronnin, Sánchez and Mensink, ECCV 2010) keeps a few large activations from deciding alone.
    The exponent was chosen by measurement (docs/heads.md): smaller ones help with few pictures, larger ones with many.
    """

    exponent: Tensor

    def __init__(self, exponent: float = EXPONENT) -> None:
        super().__init__()
        self.register_buffer("exponent", torch.tensor(exponent))

    def forward(self, x: Tensor) -> Tensor:
        """The powers of a batch."""
        # Less has no gradient: that of a power below 1 grows without bound towards 0.
        powers = x.clamp(min=LEAST_ACTIVATION) ** self.exponent
        return powers * powers.square().mean(dim=1, keepdim=True).rsqrt()


def _layers(kind: HeadKind, channels: int, classes: int, *, power: bool) -> nn.Sequential:
    layers: dict[str, nn.Module] = {"power": PowerNormalization()} if power else {}
    if kind is HeadKind.MLP:
        layers |= {
            "hidden": nn.Linear(channels, HIDDEN),
            "norm": nn.BatchNorm1d(HIDDEN, momentum=None),
            "relu": nn.ReLU(),
        }
    layers["output"] = nn.Linear(HIDDEN if kind is HeadKind.MLP else channels, classes)
    return nn.Sequential(OrderedDict(layers))


# Weights


def to_safetensors(description: str, states: Mapping[str, State]) -> bytes:
    """Several states in one safetensors file, each below its name (`head.output.weight`), and a description."""
    named = {f"{name}.{key}": value for name, state in states.items() for key, value in state.items()}
    return b"".join(parts_of_file(dict(sorted(named.items())), {"gramlet": description}))


def from_safetensors(data: bytes, names: Sequence[str]) -> tuple[str, dict[str, State]]:
    """The description and the named states of a file that `to_safetensors` wrote; a state may be empty."""
    tensors = load(data)
    states = {
        name: {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        for name in names
    }
    return metadata_of_file(data)["gramlet"], states


@dataclass(frozen=True)
class HeadWeights:
    """What training made.

    Attributes:
        head: The head's state.
        delta: Tensors of the unfrozen stages, less the network's own; those that did not change are left out.
        evidence: What prediction sets and typicality are computed from; empty until the head is registered.
    """

    head: State
    delta: State
    evidence: State = field(default_factory=dict)

    def states(self) -> dict[str, State]:
        """Its tensors by part."""
        return {"head": self.head, "delta": self.delta, "evidence": self.evidence}

    def to_bytes(self, description: str) -> bytes:
        """A safetensors file with a description in its metadata."""
        return to_safetensors(description, self.states())

    @classmethod
    def from_bytes(cls, data: bytes) -> tuple[str, HeadWeights]:
        """The description, and the weights."""
        description, states = from_safetensors(data, ("head", "delta", "evidence"))
        return description, cls(**states)


@dataclass(frozen=True)
class OutOfFold:
    """Predictions of training pictures by models that were not trained on them.

    Attributes:
        pictures: (m,) positions in the training set.
        logits: (m, classes), calibrated by temperatures that other pictures gave.
    """

    pictures: Labels
    logits: Floats


@dataclass(frozen=True)
class TrainedHead:
    """The result of a recipe.

    Attributes:
        weights: Of the best epoch.
        stages: The stages that were trained with the head, empty where that epoch left the network frozen.
        outcome: Its reports and its history.
        out_of_fold: Predictions of the training set.
        logits: (n, classes) of every other set, calibrated.
    """

    weights: HeadWeights
    stages: tuple[str, ...]
    outcome: Outcome
    out_of_fold: OutOfFold
    logits: Mapping[str, Floats]

    def to_bytes(self) -> bytes:
        """For the store; `from_bytes` gives back the same."""
        arrays = {"pictures": self.out_of_fold.pictures, "logits": self.out_of_fold.logits}
        states = {
            **self.weights.states(),
            "out_of_fold": {name: torch.from_numpy(array) for name, array in arrays.items()},
            "sets": {name: torch.from_numpy(array) for name, array in self.logits.items()},
        }
        return to_safetensors(to_json(_Described(self.stages, self.outcome)).decode(), states)

    @classmethod
    def from_bytes(cls, data: bytes) -> TrainedHead:
        """What `to_bytes` wrote."""
        names = ("head", "delta", "evidence", "out_of_fold", "sets")
        description, states = from_safetensors(data, names)
        described = from_json(_Described, description.encode())
        out_of_fold, sets = (
            {name: tensor.numpy() for name, tensor in states.pop(part).items()} for part in ("out_of_fold", "sets")
        )
        logits = {name: sets[name] for name in (found.set for found in described.outcome.reports) if name in sets}
        return cls(HeadWeights(**states), described.stages, described.outcome, OutOfFold(**out_of_fold), logits)


@dataclass(frozen=True)
class _Described:
    stages: tuple[str, ...]
    outcome: Outcome


def difference(base: State, trained: State) -> State:
    """Trained less base, for all tensors that differ."""
    return {name: value - base[name] for name, value in trained.items() if not torch.equal(value, base[name])}


def added(base: State, delta: State) -> State:
    """Base plus delta, for all tensors of the base."""
    return {name: value + delta[name] if name in delta else value for name, value in base.items()}


# The network's late stages, and the classifier


class BaseStages:
    """The late stages of the network at its own weights, from which unfrozen stages are trained and restored.

    Args:
        weights: Reads the weights, once, when they are first needed. None: this process has none, and serves heads on
            frozen networks only.
    """

    def __init__(self, weights: Callable[[], Weights] | None) -> None:
        self._read = weights
        self._weights: Weights | None = None

    def weights(self, digest: str) -> Weights:
        """The weights of that digest.

        Raises:
            FailedPrecondition: This process has no weights, or others.
            Overloaded: There is no memory for them.
        """
        if self._weights is None:
            if self._read is None:
                raise FailedPrecondition(
                    "unfrozen stages need the network's weights in this process: start it with --weights"
                )
            weights = self._read()
            PROCESS.reserve(sum(tensor.nbytes for tensor in weights.state.values())).move_to(weights)
            self._weights = weights
        if self._weights.digest != digest.partition("+")[0]:
            raise FailedPrecondition(
                f"this process has weights {short_digest(self._weights.digest)}, the network {short_digest(digest)}: "
                "start it with the same --weights as the FeatureService"
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
    """Unfrozen stages (or none), a head and a temperature: (N, C[, H, W]) → (N, classes) logits over temperature."""

    def __init__(self, late: nn.Module | None, head: nn.Module, temperature: float) -> None:
        super().__init__()
        self.late = late
        self.head = head
        self.temperature = temperature
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Calibrated logits of a batch."""
        if self.late is not None:
            x = self.late(x).flatten(1)
        scaled: Tensor = self.head(x) / self.temperature
        return scaled

    def probabilities(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, classes), rows that sum to 1, of a batch (N, C[, H, W])."""
        with torch.inference_mode():
            result: NDArray[np.float32] = self(torch.from_numpy(inputs)).softmax(dim=1).numpy()
        return result


def restore(head: Head, weights: HeadWeights, base: BaseStages) -> Classifier:
    """The classifier that a stored head describes.

    Raises:
        FailedPrecondition: It has unfrozen stages, and this process lacks the network weights that they differ from.
    """
    late = None
    if head.stages:
        late = base.build(head.weights_digest, head.stages[0])
        late.load_state_dict(added(late.state_dict(), weights.delta))
    channels = weights.head["hidden.weight" if head.kind is HeadKind.MLP else "output.weight"].shape[1]
    layers = _layers(head.kind, channels, len(head.classes), power="power.exponent" in weights.head)
    layers.load_state_dict(weights.head)
    return Classifier(late, layers, head.outcome.temperature)
