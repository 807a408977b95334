"""The pretrained networks, cut into named stages, and their weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gramlet.errors import FailedPrecondition

if TYPE_CHECKING:
    from gramlet_server.backbone.network import Network


def load_network(
    backbone: str, weights: str, device: str = "auto", precision: str = "auto", pixels: str = ""
) -> Network:
    """Loads a network onto its device.

    Args:
        backbone: `resnet50`, `vgg16` or `vgg19`.
        weights: As `weights.load` takes them.
        device: `cpu`, `cuda`, `cuda:N`; `auto` is CUDA where there is such a device.
        precision: `auto`, `float32`, `mixed`, `tf32`, `bfloat16` or `float16`.
        pixels: As for `Network`.

    Raises:
        InvalidInput: There is no such backbone.
        FailedPrecondition: torch, the weights or the device are missing, or the device cannot compute in the precision.
    """
    try:
        import torch

        from gramlet_server.backbone.network import Network
        from gramlet_server.backbone.precision import choose_precision
        from gramlet_server.backbone.weights import load
    except ImportError as error:
        raise FailedPrecondition(f"{error}: pip install 'gramlet-server[feature]'") from error
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and (torch.device(device).index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count() or "no"
        raise FailedPrecondition(f"{device}: torch {torch.__version__} finds {count} CUDA device(s)", field="device")
    return Network(load(backbone, weights), device, choose_precision(torch.device(device), precision), pixels)
