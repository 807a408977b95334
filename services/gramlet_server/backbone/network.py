"""A frozen network cut into named stages: pictures in, activations out, differentiable in the pictures alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from enum import Enum

import torch
from gramlet.errors import FailedPrecondition
from gramlet.feature.types import Stage
from torch import Tensor
from torch.nn import functional

from gramlet_server.backbone import onednn
from gramlet_server.backbone.architecture import DEVIATION, MEAN, RESNET50_LAYERS, VGG_CONVOLUTIONS, architecture
from gramlet_server.backbone.half import with_scaled_gradient
from gramlet_server.backbone.weights import Weights

EPSILON = 1e-5
"""What torchvision's batch norms add to the variance."""


class Precision(Enum):
    """The element type that the network computes in. TF32 and FLOAT16 are for CUDA devices.

    MIXED is float32, but for passes that say that the element type of half the size will do.
    """

    FLOAT32 = "float32"
    TF32 = "tf32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    MIXED = "mixed"

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights and of the activations."""
        return {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(self.value, torch.float32)

    @property
    def reduced(self) -> torch.dtype:
        """The same in passes that need not be exact."""
        return torch.bfloat16 if self is Precision.MIXED else self.dtype


Step = tuple[str, Callable[[Tensor], Tensor]]
"""A stage's name, and what leads to it from the stage before."""


@dataclass(frozen=True)
class _Path:
    """A way through the network.

    Attributes:
        steps: From the picture on.
        joined_stem: Leads from the picture to the second stage where nobody asks for the first: the batch norm between
            the two then folds as everywhere else.
        antialiased: The same way with its strides antialiased.
    """

    dtype: torch.dtype
    steps: list[Step]
    joined_stem: Step | None = None
    antialiased: _Path | None = None

    def toward(self, wanted: Collection[str], antialiased: bool) -> Iterator[Step]:
        """The steps to take for these stages."""
        if antialiased and self.antialiased is not None:
            yield from self.antialiased.toward(wanted, antialiased=False)
        elif self.joined_stem is None or self.steps[0][0] in wanted:
            yield from self.steps
        else:
            yield self.joined_stem
            yield from self.steps[2:]


class Network:
    """A pretrained network without its classifier.

    The batch norms are folded into the convolutions before them (in float64), except where a stage lies between the
    two. Tensors are channels_last in memory. Activations that were returned are never written to again.

    Args:
        weights: What `weights.load` gave.
        device: Where the network lives.
        precision: What it computes in.

    Attributes:
        name: Of the architecture, such as `resnet50`.
        stages: All stages, in the order of the forward pass.
        weights: The weights as they were read, on the CPU.

    Raises:
        FailedPrecondition: The device cannot compute in that precision.
    """

    def __init__(
        self, weights: Weights, device: torch.device | str = "cpu", precision: Precision = Precision.FLOAT32
    ) -> None:
        self.architecture = architecture(weights.backbone)
        self.weights = weights
        self.device = torch.device(device)
        self.precision = precision
        _check(self.device, precision)
        self._mean = torch.tensor(MEAN, device=self.device).view(1, 3, 1, 1)
        make = _resnet50 if self.name == "resnet50" else _vgg
        exact, reduced, float32 = (
            _Place(weights, self.device, dtype) for dtype in (precision.dtype, precision.reduced, torch.float32)
        )
        body = make(exact)
        self._path = body(exact)
        # Rounded to half the bits, a picture moves by steps as large as those of an optimiser near its end, which then
        # learns its curvatures from noise. So gradients see the picture, and the first layer, in float32.
        self._smooth = self._path if exact.dtype == float32.dtype else body(float32)
        self._reduced = self._smooth if exact.dtype == reduced.dtype else make(reduced)(float32)

    @property
    def name(self) -> str:
        """Of the architecture, such as `resnet50`."""
        return self.architecture.name

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All stages, in the order of the forward pass."""
        return self.architecture.stages

    @property
    def digest(self) -> str:
        """SHA-256 of the weights: equal digests mean equal networks."""
        return self.weights.digest

    @property
    def can_antialias(self) -> bool:
        """Whether the network has strides that can be antialiased."""
        return self._path.antialiased is not None

    def set_arithmetic(self) -> None:
        """Sets how CUDA's libraries compute, for a pass of this network. The settings are the process's."""
        if self.device.type != "cuda":
            return
        # By default cuDNN rounds float32 to TF32, which would be felt where half precision keeps float32 on purpose: in
        # the first layer, and in Gram matrices.
        rounded = self.precision is Precision.TF32
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = rounded
        # A resumed stylization ends at the same bits: no sums in the order in which threads finish, and no algorithm
        # (benchmark) that won a race.
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False

    def activations(
        self,
        pictures: Tensor,
        stages: Collection[str],
        *,
        antialiased: bool = False,
        smooth: bool = False,
        reduced: bool = False,
    ) -> dict[str, Tensor]:
        """Activations of a batch, by stage, in the order of the forward pass, which ends at the last stage asked for.

        Args:
            pictures: (N, 3, H, W) float32, RGB in 0..1, on the network's device.
            stages: Names of stages.
            antialiased: Replace every stride of 2 by a stride of 1, a 3 x 3 binomial blur, and every second position
                (Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019). The weights stay as they
                are. conv1 then has the picture's own size.
            smooth: Compute the first layer in float32, whatever the precision, so that activations follow small changes
                of a picture: for gradients, and for what they are compared with.
            reduced: A network of MIXED precision computes the layers after that in its reduced element type.

        Returns:
            (N, C, H', W') each, in the element type of the network's precision; `avgpool` is (N, C, 1, 1). They hold
            the graph back to `pictures` if those require a gradient, and are then float32 where the precision is
            float16. Do not write to them.

        Raises:
            InvalidInput: There is no such stage.
        """

        def run(pictures: Tensor) -> dict[str, Tensor]:
            return dict(self.in_turn(pictures, stages, antialiased=antialiased, smooth=smooth, reduced=reduced))

        is_half = self.precision is Precision.FLOAT16 and pictures.requires_grad
        return with_scaled_gradient(pictures, run) if is_half else run(pictures)

    def in_turn(
        self,
        pictures: Tensor,
        stages: Collection[str],
        *,
        antialiased: bool = False,
        smooth: bool = False,
        reduced: bool = False,
    ) -> Iterator[tuple[str, Tensor]]:
        """The same, stage by stage: what was made of one need not wait for the next, nor stay in memory."""
        wanted = {self.architecture.stage(name).name for name in stages}
        path = self._reduced if reduced else self._smooth if smooth else self._path
        x = (pictures - self._mean).to(path.dtype, memory_format=torch.channels_last)
        found = 0
        for name, step in path.toward(wanted, antialiased):
            if found == len(wanted):
                return
            x = step(x)
            if name in wanted:
                found += 1
                yield name, x


_OF_CUDA = (Precision.TF32, Precision.FLOAT16)
_OF_AMPERE = (Precision.TF32, Precision.BFLOAT16, Precision.MIXED)


def _check(device: torch.device, precision: Precision) -> None:
    if device.type != "cuda":
        if precision in _OF_CUDA:
            raise FailedPrecondition(
                f"precision {precision.value} needs a CUDA device; on {device} use bfloat16 or float32",
                field="precision",
            )
    elif precision in _OF_AMPERE and torch.cuda.get_device_capability(device) < (8, 0):
        raise FailedPrecondition(
            f"{torch.cuda.get_device_name(device)} has no {precision.value}: use float16 or float32", field="precision"
        )


class _Place:
    """Brings weights where they will be used: cast, channels_last, without gradients."""

    def __init__(self, weights: Weights, device: torch.device, dtype: torch.dtype) -> None:
        self.weights = weights
        self.device = device
        self.dtype = dtype
        self.packs = onednn.available(device, dtype)

    def read(self, name: str) -> Tensor:
        return self.weights.state[name].double()

    def convolution(self, name: str, batch_norm: str | None = None, stride: int = 1) -> _Convolution:
        """The convolution of that name, with the batch norm after it folded in."""
        weight = self.read(f"{name}.weight")
        bias = self.read(f"{name}.bias") if f"{name}.bias" in self.weights.state else None
        if batch_norm is not None:
            scale, shift = self.batch_norm(batch_norm)
            weight, bias = weight * scale.view(-1, 1, 1, 1), shift
        if weight.shape[1] == 3:
            # The first layer takes pictures less the mean. Zero padding is the mean color in either scale, so dividing
            # the weights by the deviation is exact; adding the mean to the bias would not be, at the borders.
            weight = weight / torch.tensor(DEVIATION, dtype=weight.dtype).view(1, 3, 1, 1)
        padding = weight.shape[-1] // 2
        return _Convolution(
            weight.to(self.device, self.dtype, memory_format=torch.channels_last),
            None if bias is None else bias.to(self.device, self.dtype),
            stride,
            padding,
        )

    def batch_norm(self, name: str) -> tuple[Tensor, Tensor]:
        """Scale and shift, (C,) float64 each, of a batch norm that no longer learns."""
        scale = self.read(f"{name}.weight") / torch.sqrt(self.read(f"{name}.running_var") + EPSILON)
        return scale, self.read(f"{name}.bias") - scale * self.read(f"{name}.running_mean")

    def batch_norm_of_stem(self) -> tuple[Tensor, Tensor]:
        """Of ResNet-50's first convolution, (1, C, 1, 1) each: a stage lies between the two."""
        scale, shift = (part.to(self.device, self.dtype).view(1, -1, 1, 1) for part in self.batch_norm("bn1"))
        return scale, shift


@dataclass(frozen=True)
class _Convolution:
    weight: Tensor
    bias: Tensor | None
    stride: int
    padding: int

    def __call__(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight, self.bias, self.stride, self.padding)

    def packed(self) -> onednn.PackedConvolution:
        """The same for oneDNN."""
        return onednn.PackedConvolution(self.weight, self.bias, self.stride, self.padding)


# In-place operations below write only to the fresh output of a convolution, which no stage and no backward pass holds:
# a convolution's gradient needs its input, a ReLU's its output.


@dataclass(frozen=True)
class _Bottleneck:
    reduce: _Convolution
    convolve: _Convolution
    expand: _Convolution
    downsample: _Convolution | None

    def __call__(self, x: Tensor) -> Tensor:
        y = torch.relu_(self.reduce(x))
        y = torch.relu_(self.convolve(y))
        y = self.expand(y)
        y += x if self.downsample is None else self.downsample(x)
        return torch.relu_(y)


@dataclass(frozen=True)
class _BlurredBottleneck:
    """A bottleneck whose stride is antialiased on both of its ways."""

    whole: _Bottleneck
    blur: _Blur

    def __call__(self, x: Tensor) -> Tensor:
        whole = self.whole
        assert whole.downsample is not None
        y = torch.relu_(whole.reduce(x))
        y = self.blur(torch.relu_(replace(whole.convolve, stride=1)(y)))
        y = whole.expand(y)
        y += replace(whole.downsample, stride=1)(self.blur(x))
        return torch.relu_(y)


class _Blur:
    """[1 2 1] x [1 2 1] / 16 at every second position, the border continued."""

    def __init__(self, place: _Place) -> None:
        row = torch.tensor([0.25, 0.5, 0.25], device=place.device, dtype=place.dtype)
        self._kernel = (row[:, None] * row)[None, None]

    def __call__(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = self._kernel.expand(channels, 1, 3, 3)
        return functional.conv2d(_continued(x), kernel, stride=2, groups=channels)


def _continued(x: Tensor) -> Tensor:
    """The border continued by one position on each side."""
    if x.device.type != "cuda":
        return functional.pad(x, (1, 1, 1, 1), mode="replicate")
    # There the gradient of padding is summed in the order in which threads finish.
    x = torch.cat([x[:, :, :1], x, x[:, :, -1:]], dim=2)
    return torch.cat([x[:, :, :, :1], x, x[:, :, :, -1:]], dim=3)


@dataclass(frozen=True)
class _InTurn:
    steps: tuple[Callable[[Tensor], Tensor], ...]

    def __call__(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x


def _resnet_pool(x: Tensor) -> Tensor:
    # torchvision rectifies first; the maximum of the rectified is the rectified maximum, on a quarter of the elements.
    return torch.relu_(functional.max_pool2d(x, kernel_size=3, stride=2, padding=1))


def _average(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3), keepdim=True)


Body = Callable[[_Place], _Path]
"""Puts the stem, in an element type of its own, before layers that are there already."""


def _resnet50(place: _Place) -> Body:
    layers: list[Step] = []
    antialiased: list[Step] = []
    blur = _Blur(place)
    for layer, _, blocks in RESNET50_LAYERS:
        bottlenecks = [_bottleneck(place, layer, index) for index in range(blocks)]
        first, *rest = (_packed(each) if place.packs else each for each in bottlenecks)
        blurred = first if layer == "layer1" else _BlurredBottleneck(bottlenecks[0], blur)
        layers.append((layer, _InTurn((first, *rest))))
        antialiased.append((layer, _InTurn((blurred, *rest))))

    def path(stem: _Place) -> _Path:
        blurs = _Blur(stem)

        def antialiased_pool(x: Tensor) -> Tensor:
            return blurs(functional.max_pool2d(blurs(torch.relu_(x)), kernel_size=3, stride=1, padding=1))

        return replace(
            _resnet50_path(stem, place, 2, _resnet_pool, layers),
            antialiased=_resnet50_path(stem, place, 1, antialiased_pool, antialiased),
        )

    return path


def _resnet50_path(
    stem: _Place, place: _Place, stride: int, pool: Callable[[Tensor], Tensor], layers: list[Step]
) -> _Path:
    """From a convolution of that stride on."""
    scale, shift = stem.batch_norm_of_stem()
    conv1, joined = (
        onednn.PackedStem(each.weight, each.bias, stride) if stem.packs else each
        for each in (stem.convolution("conv1", None, stride), stem.convolution("conv1", "bn1", stride))
    )
    steps: list[Step] = [("conv1", conv1), ("maxpool", lambda x: pool(torch.addcmul(shift, x, scale)))]
    steps += [*_cast(layers, stem, place), ("avgpool", _average)]
    return _Path(stem.dtype, steps, ("maxpool", lambda x: pool(joined(x))))


def _cast(steps: list[Step], stem: _Place, place: _Place) -> list[Step]:
    """Steps that take what the stem gives."""
    if stem.dtype == place.dtype:
        return steps
    name, first = steps[0]
    inner = first.steps if isinstance(first, _InTurn) else (first,)
    return [(name, _InTurn((lambda x: x.to(place.dtype), *inner))), *steps[1:]]


def _bottleneck(place: _Place, layer: str, index: int) -> _Bottleneck:
    block = f"{layer}.{index}"
    stride = 2 if index == 0 and layer != "layer1" else 1
    return _Bottleneck(
        place.convolution(f"{block}.conv1", f"{block}.bn1"),
        place.convolution(f"{block}.conv2", f"{block}.bn2", stride),
        place.convolution(f"{block}.conv3", f"{block}.bn3"),
        place.convolution(f"{block}.downsample.0", f"{block}.downsample.1", stride) if index == 0 else None,
    )


def _packed(block: _Bottleneck) -> onednn.PackedBottleneck:
    downsample = None if block.downsample is None else block.downsample.packed()
    return onednn.PackedBottleneck(block.reduce.packed(), block.convolve.packed(), block.expand.packed(), downsample)


def _rectified(place: _Place, name: str) -> Callable[[Tensor], Tensor]:
    convolution = place.convolution(name)
    if place.packs:
        return onednn.PackedRectified(convolution.packed())
    return lambda x: torch.relu_(convolution(x))


def _vgg_pool(x: Tensor) -> Tensor:
    return functional.max_pool2d(x, kernel_size=2, stride=2)


def _vgg(place: _Place) -> Body:
    rest: list[Step] = []
    position = 0
    for block, count in enumerate(VGG_CONVOLUTIONS[place.weights.backbone], start=1):
        for number in range(1, count + 1):
            if position:
                rest.append((f"relu{block}_{number}", _rectified(place, f"features.{position}")))
            position += 2
        rest.append((f"pool{block}", _vgg_pool))
        position += 1

    def path(stem: _Place) -> _Path:
        first = ("relu1_1", _rectified(stem, "features.0"))
        return _Path(stem.dtype, [first, *_cast(rest, stem, place), ("avgpool", _average)])

    return path
