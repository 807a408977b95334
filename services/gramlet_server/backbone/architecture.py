"""The networks that gramlet knows: their stages, and the name and shape of every tensor they need. No torch here.

Names are torchvision's, for stages as for tensors. Stages of the VGG networks are named as in the style literature:
`relu3_1` is the first rectified convolution of the third block, `pool3` the max pooling that ends it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from gramlet.errors import InvalidInput
from gramlet.feature.types import Stage, find_stage

MEAN = (0.485, 0.456, 0.406)
"""ImageNet's mean color, RGB in 0..1: what the networks' inputs are centered on."""
DEVIATION = (0.229, 0.224, 0.225)
"""ImageNet's standard deviation of each channel, RGB in 0..1."""

RESNET50_LAYERS = (("layer1", 64, 3), ("layer2", 128, 4), ("layer3", 256, 6), ("layer4", 512, 3))
"""Name, width and number of bottlenecks of ResNet-50's residual stages; each outputs four times its width."""

VGG_CHANNELS = (64, 128, 256, 512, 512)
VGG_CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
"""How many convolutions each of the five blocks has."""


@dataclass(frozen=True)
class Window:
    """What a convolution or pooling sees along each axis: `size` positions, starting `padding` before its own."""

    size: int
    stride: int
    padding: int


@dataclass(frozen=True)
class Architecture:
    """A network without its weights.

    Attributes:
        name: As in torchvision.models.
        stages: In the order of the forward pass.
        shapes: Shape of every parameter and buffer that the stages need, by torchvision's name.
        unused: Prefixes of the names of tensors that a weights file may hold and no stage needs: the classifier.
        windows: The operations from the stage before to each stage that see more than one position. Under False with
            the network's own strides; under True with antialiased ones, where the network has strides to antialias.
        rounds_up: Whether a stage's height is the picture's over the stride rounded up (ResNet pads), or down (VGG).
    """

    name: str
    stages: tuple[Stage, ...]
    shapes: Mapping[str, tuple[int, ...]]
    unused: tuple[str, ...]
    windows: Mapping[bool, Mapping[str, tuple[Window, ...]]]
    rounds_up: bool

    def stage(self, name: str, field: str = "stages") -> Stage:
        """The stage of that name; see `find_stage`."""
        return self._known.get(name) or find_stage(name, self.stages, self.name, field)

    @cached_property
    def _known(self) -> dict[str, Stage]:
        return {stage.name: stage for stage in self.stages}

    def activation_shape(self, stage: str, height: int, width: int, antialiased: bool = False) -> tuple[int, int, int]:
        """(C, H, W) of a stage's activations of a picture of that size. H or W is 0 where the picture is too small."""
        found = self.stage(stage)
        # avgpool has no stride. It averages the output of the last stage, which is empty for a VGG under 32 pixels.
        stride = self.stride(stage, antialiased) or 32
        up = stride - 1 if self.rounds_up else 0
        rows, columns = (height + up) // stride, (width + up) // stride
        if not found.stride:
            rows, columns = min(rows, 1), min(columns, 1)
        return found.channels, rows, columns

    def stride(self, stage: str, antialiased: bool = False) -> int:
        """Pixels between two positions of a stage; 0 for a stage without positions. conv1 has 1 when antialiased."""
        if not self.stage(stage).stride:
            return 0
        return self._strides[antialiased][stage]

    @cached_property
    def _strides(self) -> dict[bool, dict[str, int]]:
        return {
            antialiased: {
                stage.name: math.prod(window.stride for window in self._windows_until(stage.name, antialiased))
                for stage in self.stages
            }
            for antialiased in (False, True)
        }

    def reach(self, stage: str, antialiased: bool = False) -> int:
        """The radius of a stage's receptive field: how many pixels a position sees beyond its own stride."""
        seen = self.receptive_field(stage, antialiased)
        return max(-seen.start, seen.stop - self.stride(stage, antialiased))

    def receptive_field(self, stage: str, antialiased: bool = False) -> range:
        """The pixels along each axis that the first position of a stage sees; those below 0 are padding.

        Position i sees the same pixels, i times the stride further. Not for a stage without positions, which sees all.
        """
        first = last = 0
        stride = 1
        for window in self._windows_until(stage, antialiased):
            first -= window.padding * stride
            last += (window.size - 1 - window.padding) * stride
            stride *= window.stride
        return range(first, last + 1)

    def _windows_until(self, stage: str, antialiased: bool) -> list[Window]:
        self.stage(stage)
        found: list[Window] = []
        for name, windows in self.windows[antialiased and True in self.windows].items():
            found += windows
            if name == stage:
                break
        return found


def _batch_norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}


def _resnet50() -> Architecture:
    stages = [Stage("conv1", 64, 2), Stage("maxpool", 64, 4)]
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7), **_batch_norm("bn1", 64)}
    entering, stride = 64, 4
    for layer, width, blocks in RESNET50_LAYERS:
        for index in range(blocks):
            block = f"{layer}.{index}"
            for number, shape in enumerate(
                [(width, entering, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)], start=1
            ):
                shapes[f"{block}.conv{number}.weight"] = shape
                shapes |= _batch_norm(f"{block}.bn{number}", shape[0])
            if index == 0:
                shapes[f"{block}.downsample.0.weight"] = (4 * width, entering, 1, 1)
                shapes |= _batch_norm(f"{block}.downsample.1", 4 * width)
            entering = 4 * width
        stages.append(Stage(layer, entering, stride))
        stride *= 2
    stages.append(Stage("avgpool", entering, 0))
    windows = {antialiased: _resnet50_windows(antialiased) for antialiased in (False, True)}
    return Architecture("resnet50", tuple(stages), MappingProxyType(shapes), ("fc.",), windows, rounds_up=True)


def _resnet50_windows(antialiased: bool) -> dict[str, tuple[Window, ...]]:
    convolution, blur = Window(3, 1, 1), Window(3, 2, 1)
    # Where strides are antialiased, a blur takes the stride of the operation before it.
    halving = (convolution, blur) if antialiased else (Window(3, 2, 1),)
    first = Window(7, 1, 3) if antialiased else Window(7, 2, 3)
    windows = {"conv1": (first,), "maxpool": (blur, *halving) if antialiased else halving}
    for layer, _, blocks in RESNET50_LAYERS:
        windows[layer] = (convolution,) * blocks if layer == "layer1" else (*halving, *(convolution,) * (blocks - 1))
    return windows


def _vgg(name: str) -> Architecture:
    stages: list[Stage] = []
    shapes: dict[str, tuple[int, ...]] = {}
    entering, position = 3, 0
    for block, (channels, count) in enumerate(zip(VGG_CHANNELS, VGG_CONVOLUTIONS[name], strict=True), start=1):
        stride = 2 ** (block - 1)
        for number in range(1, count + 1):
            shapes[f"features.{position}.weight"] = (channels, entering, 3, 3)
            shapes[f"features.{position}.bias"] = (channels,)
            stages.append(Stage(f"relu{block}_{number}", channels, stride))
            entering = channels
            position += 2  # the convolution and its ReLU
        stages.append(Stage(f"pool{block}", channels, 2 * stride))
        position += 1
    stages.append(Stage("avgpool", entering, 0))
    windows = {s.name: (Window(2, 2, 0) if s.name.startswith("pool") else Window(3, 1, 1),) for s in stages if s.stride}
    return Architecture(
        name, tuple(stages), MappingProxyType(shapes), ("classifier.",), {False: windows}, rounds_up=False
    )


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {architecture.name: architecture for architecture in (_resnet50(), _vgg("vgg16"), _vgg("vgg19"))}
)


def architecture(name: str) -> Architecture:
    """The network of that name.

    Raises:
        InvalidInput: gramlet has no such network.
    """
    if name not in ARCHITECTURES:
        raise InvalidInput(f"no backbone {name!r}; there are {', '.join(ARCHITECTURES)}", field="backbone")
    return ARCHITECTURES[name]
