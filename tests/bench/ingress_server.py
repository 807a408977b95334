"""`gramlet-server` whose network costs nothing: its activations are zeros of the right shapes.

    python ingress_server.py [arguments of gramlet-server]

What is left is everything but the network. `bench_ingress.py` measures it.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from typing import Any

import torch
from gramlet_server.__main__ import main
from gramlet_server.backbone.network import Network
from torch import Tensor

_real = Network.by_stage


def free(network: Network, pictures: Tensor, stages: Collection[str], **how: Any) -> Iterator[tuple[str, Tensor]]:
    """Zeros in place of each stage's activations (N, C, H', W'); gradients, which warm the server up, are real."""
    if not torch.is_inference_mode_enabled():
        yield from _real(network, pictures, stages, **how)
        return
    count, _, height, width = pictures.shape
    for stage in network.stages:
        if stage.name in stages:
            yield stage.name, torch.zeros(count, *network.architecture.activation_shape(stage.name, height, width))


if __name__ == "__main__":
    Network.by_stage = free  # type: ignore[method-assign,assignment]
    sys.exit(main())
