"""The two heads: from a network's embedding to the logits of the classes."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping

import torch
from gramlet.train.configuration import HeadKind
from torch import Tensor, nn

HIDDEN = 500
"""Width of the mlp's hidden layer."""


def build(kind: HeadKind, channels: int, classes: int, seed: int) -> nn.Sequential:
    """A new head: (N, channels) → (N, classes) logits.

    First values are those of torch's Linear, from a generator of their own: the same seed gives the same head, whatever
    else the process draws.
    """
    head = _layers(kind, channels, classes)
    generator = torch.Generator().manual_seed(seed)
    for layer in head:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
            bound = 1 / math.sqrt(layer.in_features)
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return head


def restore(kind: HeadKind, channels: int, classes: int, state: Mapping[str, Tensor]) -> nn.Sequential:
    """The head whose state dict this is, ready to classify."""
    head = _layers(kind, channels, classes)
    head.load_state_dict(dict(state))
    return head.eval()


def _layers(kind: HeadKind, channels: int, classes: int) -> nn.Sequential:
    if kind is HeadKind.LINEAR:
        return nn.Sequential(OrderedDict(output=nn.Linear(channels, classes)))
    return nn.Sequential(
        OrderedDict(
            hidden=nn.Linear(channels, HIDDEN),
            norm=nn.BatchNorm1d(HIDDEN),
            relu=nn.ReLU(),
            output=nn.Linear(HIDDEN, classes),
        )
    )
