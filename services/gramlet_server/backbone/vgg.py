"""VGG-16 and VGG-19 (Simonyan and Zisserman, ICLR 2015) of frozen layers."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from gramlet_server.backbone import onednn
from gramlet_server.backbone.architecture import VGG_CONVOLUTIONS
from gramlet_server.backbone.layers import Body, Layer, Path, Step, WeightsLoader, average, cast_first


def vgg(loader: WeightsLoader) -> Body:
    """All layers but the first convolution."""
    rest: list[Step] = []
    position = 0  # of the layer in torchvision's `features`
    for block, count in enumerate(VGG_CONVOLUTIONS[loader.weights.backbone], start=1):
        for number in range(1, count + 1):
            if position:
                rest.append((f"relu{block}_{number}", _rectified(loader, f"features.{position}")))
            position += 2
        rest.append((f"pool{block}", _pool))
        position += 1

    def path(stem: WeightsLoader) -> Path:
        first = ("relu1_1", _rectified(stem, "features.0"))
        return Path(stem.dtype, [first, *cast_first(rest, loader.dtype, stem), ("avgpool", average)])

    return path


def _rectified(loader: WeightsLoader, name: str) -> Layer:
    convolution = loader.convolution(name)
    if loader.packs:
        return onednn.PackedRectified(convolution.packed())
    return lambda x: loader.rectify(convolution(x))


def _pool(x: Tensor) -> Tensor:
    return functional.max_pool2d(x, kernel_size=2, stride=2)
