"""The late stages of a network as torchvision's modules, batch norms included, for further training."""

from __future__ import annotations

from collections import OrderedDict

import torch
from gramlet.errors import InvalidInput
from torch import nn

from gramlet_server.backbone.architecture import Architecture, architecture
from gramlet_server.backbone.torchvision_cpu import import_torchvision
from gramlet_server.backbone.weights import Weights


def stage_before(backbone: str, first: str) -> str:
    """The stage whose activations are the input of `late_stages` from `first`.

    Raises:
        InvalidInput: There is no such stage, or none before it.
    """
    network = architecture(backbone)
    names = [stage.name for stage in network.stages]
    at = names.index(network.stage(first).name)
    if at == 0:
        raise InvalidInput(f"{first} is the first stage of {backbone}: there is none before it", field="stages")
    return names[at - 1]


def late_stages(weights: Weights, first: str) -> nn.Module:
    """The network from a stage through the average pool, ready to be trained.

    Its parameters are copies, named as in torchvision (`layer4.0.conv1.weight`), and require gradients. It is in
    evaluation mode, so batch norms keep their statistics until the caller switches to training mode.

    Args:
        weights: Of the whole network.
        first: The first stage to train. Its input is the activations of `stage_before`.

    Returns:
        A module from (N, C, H, W) activations, as `Network.activations` gives them, to (N, C', 1, 1).

    Raises:
        InvalidInput: There is no such stage, or none before it.
        FailedPrecondition: torchvision is missing.
    """
    network = architecture(weights.backbone)
    stage_before(weights.backbone, first)
    with torch.device("meta"):
        whole = getattr(import_torchvision().models, network.name)()
    late = _resnet(whole, first) if network.name == "resnet50" else _vgg(whole, network, first)
    late = late.to_empty(device="cpu").eval()
    late.load_state_dict(
        {
            # num_batches_tracked is not among the weights. torchvision uses it only without momentum; it starts at 0.
            name: weights.state[name].clone() if name in weights.state else torch.zeros_like(tensor)
            for name, tensor in late.state_dict().items()
        }
    )
    return late


def _resnet(whole: nn.Module, first: str) -> nn.Module:
    modules = OrderedDict((name, module) for name, module in whole.named_children() if name != "fc")
    names = list(modules)
    start = names.index("bn1" if first == "maxpool" else first)
    return nn.Sequential(OrderedDict(list(modules.items())[start:]))


def _vgg(whole: nn.Module, network: Architecture, first: str) -> nn.Module:
    start = 0
    for stage in network.stages:
        if stage.name == first:
            break
        start += 2 if stage.name.startswith("relu") else 1
    features = OrderedDict(list(whole.get_submodule("features").named_children())[start:])
    pool = nn.AdaptiveAvgPool2d(1)  # gramlet's embedding is the mean over all positions; torchvision keeps 7 x 7
    return nn.Sequential(OrderedDict([("features", nn.Sequential(features)), ("avgpool", pool)]))
