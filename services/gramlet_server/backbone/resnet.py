"""ResNet-50 (He et al., CVPR 2016) of frozen layers, also with antialiased strides (Zhang, ICML 2019)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from gramlet_server.backbone import onednn
from gramlet_server.backbone.architecture import RESNET50_LAYERS
from gramlet_server.backbone.layers import (
    Body,
    Convolution,
    Layer,
    Path,
    Sequential,
    Step,
    WeightsLoader,
    average,
    blur,
    cast_first,
)


def resnet50(loader: WeightsLoader) -> Body:
    """The residual stages."""
    layers: list[Step] = []
    antialiased: list[Step] = []
    for layer, _, blocks in RESNET50_LAYERS:
        bottlenecks = [_bottleneck(loader, layer, index) for index in range(blocks)]
        first, *rest = (_packed(each) if loader.packs else each for each in bottlenecks)
        blurred = first if layer == "layer1" else BlurredBottleneck(bottlenecks[0])
        layers.append((layer, Sequential((first, *rest))))
        antialiased.append((layer, Sequential((blurred, *rest))))

    def path(stem: WeightsLoader) -> Path:
        return replace(
            _with_stem(stem, loader, 2, partial(_pool, loader.rectify), layers),
            antialiased=_with_stem(stem, loader, 1, partial(_antialiased_pool, loader.rectify), antialiased),
        )

    return path


def _with_stem(stem: WeightsLoader, loader: WeightsLoader, stride: int, pool: Layer, layers: list[Step]) -> Path:
    """The whole way, whose first convolution has that stride."""
    scale, shift = stem.batch_norm("bn1")  # not folded: the stage conv1 lies between the convolution and the batch norm
    conv1, joined = (
        onednn.PackedStem(each.weight, each.bias, stride) if stem.packs else each
        for each in (stem.convolution("conv1", None, stride), stem.convolution("conv1", "bn1", stride))
    )
    steps: list[Step] = [("conv1", conv1), ("maxpool", Sequential((lambda x: torch.addcmul(shift, x, scale), pool)))]
    steps += [*cast_first(layers, loader.dtype, stem), ("avgpool", average)]
    return Path(stem.dtype, steps, ("maxpool", Sequential((joined, pool))))


def _antialiased_pool(rectify: Layer, x: Tensor) -> Tensor:
    return blur(functional.max_pool2d(blur(rectify(x)), kernel_size=3, stride=1, padding=1))


def _pool(rectify: Layer, x: Tensor) -> Tensor:
    # torchvision rectifies first. Both orders give the same values; this one rectifies a quarter of the elements.
    return rectify(functional.max_pool2d(x, kernel_size=3, stride=2, padding=1))


@dataclass(frozen=True)
class Bottleneck:
    """A residual block: relu(expand(relu(convolve(relu(reduce(x))))) + shortcut(x))."""

    reduce: Convolution
    convolve: Convolution
    expand: Convolution
    downsample: Convolution | None
    rectify: Layer

    def __call__(self, x: Tensor) -> Tensor:
        y = self.rectify(self.reduce(x))
        y = self.rectify(self.convolve(y))
        y = self.expand(y)
        y += x if self.downsample is None else self.downsample(x)
        return self.rectify(y)


@dataclass(frozen=True)
class BlurredBottleneck:
    """A bottleneck with a stride of 2, antialiased in both branches: a stride of 1, then a blur."""

    whole: Bottleneck

    def __call__(self, x: Tensor) -> Tensor:
        whole = self.whole
        assert whole.downsample is not None
        y = whole.rectify(whole.reduce(x))
        y = blur(whole.rectify(replace(whole.convolve, stride=1)(y)))
        y = whole.expand(y)
        y += replace(whole.downsample, stride=1)(blur(x))
        return whole.rectify(y)


def _bottleneck(loader: WeightsLoader, layer: str, index: int) -> Bottleneck:
    block = f"{layer}.{index}"
    stride = 2 if index == 0 and layer != "layer1" else 1
    return Bottleneck(
        loader.convolution(f"{block}.conv1", f"{block}.bn1"),
        loader.convolution(f"{block}.conv2", f"{block}.bn2", stride),
        loader.convolution(f"{block}.conv3", f"{block}.bn3"),
        loader.convolution(f"{block}.downsample.0", f"{block}.downsample.1", stride) if index == 0 else None,
        loader.rectify,
    )


def _packed(block: Bottleneck) -> onednn.PackedBottleneck:
    downsample = None if block.downsample is None else block.downsample.packed()
    return onednn.PackedBottleneck(block.reduce.packed(), block.convolve.packed(), block.expand.packed(), downsample)
