"""Preset `classic` written directly with torchvision's network and torch's L-BFGS (docs/architecture.md)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gramlet_server.backbone.torchvision_cpu import import_torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

STAGES = {"conv1": 64, "maxpool": 64, "layer1": 256, "layer2": 512, "layer3": 1024, "layer4": 2048}


def torchvision_resnet50(weights: Path) -> nn.Module:
    """torchvision's network with the weights of a file, in eval mode."""
    import_torchvision()
    from torchvision.models import resnet50

    network: nn.Module = resnet50()
    state = {name: tensor.float() for name, tensor in load_file(weights).items()}
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    return network.eval().requires_grad_(False)


def stages_of(network: Any, picture: Tensor) -> dict[str, Tensor]:
    """Activations of a picture (3, H, W) in 0..1 at the six stages, (C, H·W) each."""
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=picture.dtype)[:, None, None]
    deviation = torch.tensor([0.229, 0.224, 0.225], dtype=picture.dtype)[:, None, None]
    x = network.conv1(((picture - mean) / deviation)[None])
    found = {"conv1": x}
    x = network.maxpool(torch.relu(network.bn1(x)))
    found["maxpool"] = x
    for layer in ("layer1", "layer2", "layer3", "layer4"):
        x = getattr(network, layer)(x)
        found[layer] = x
    return {stage: activations[0].flatten(1) for stage, activations in found.items()}


def classic_loss(network: nn.Module, content: Tensor, style: Tensor) -> Callable[[Tensor], Tensor]:
    """1000 · Σ 1/n² · mean((G - G_style)²) + mean((F_layer3 - F_content)²)."""
    with torch.no_grad():
        wanted = {stage: f @ f.T for stage, f in stages_of(network, style).items()}
        kept = stages_of(network, content)["layer3"]

    def loss(picture: Tensor) -> Tensor:
        found = stages_of(network, picture)
        style_loss = sum(((found[s] @ found[s].T - wanted[s]) ** 2).mean() / n**2 for s, n in STAGES.items())
        return 1000 * style_loss + ((found["layer3"] - kept) ** 2).mean()

    return loss


@dataclass(frozen=True)
class DirectStep:
    """One step of torch's L-BFGS: where it began, loss and gradient there, what the optimizer knew, where it led.

    Attributes:
        history: The state of torch.optim.LBFGS before the step; empty before the first.
    """

    point: Tensor
    loss: float
    gradient: Tensor
    history: Mapping[str, Any]
    after: Tensor


def steps_of_lbfgs(loss: Callable[[Tensor], Tensor], start: Tensor, steps: int, **options: Any) -> list[DirectStep]:
    """The steps of torch's L-BFGS from a picture, each (3, H, W)."""
    picture = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([picture], max_iter=1, tolerance_grad=0, tolerance_change=0, **options)
    taken = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(picture)
        value.backward()
        return value

    for _ in range(steps):
        point, history = picture.detach().clone(), copy.deepcopy(dict(optimizer.state[picture]))
        value = float(optimizer.step(closure).detach())
        assert picture.grad is not None
        taken.append(DirectStep(point, value, picture.grad.clone(), history, picture.detach().clone()))
    return taken
