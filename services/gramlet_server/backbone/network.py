"""A frozen network cut into named stages: pictures in, activations out, differentiable with respect to the pictures."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator
from functools import cached_property

import torch
from gramlet.feature.types import Stage
from torch import Tensor

from gramlet_server.backbone.architecture import MEAN, architecture
from gramlet_server.backbone.half import with_scaled_gradient
from gramlet_server.backbone.layers import WeightsLoader, parts_of
from gramlet_server.backbone.precision import Precision, check_precision, set_arithmetic
from gramlet_server.backbone.projection import ProjectingNetwork
from gramlet_server.backbone.resnet import resnet50
from gramlet_server.backbone.tape import Tape
from gramlet_server.backbone.vgg import vgg
from gramlet_server.backbone.weights import Weights


class Network:
    """A pretrained network without its classifier.

    The batch norms are folded into the convolutions before them (in float64), except where a stage lies between the
    two. Tensors are channels_last in memory. Activations that were returned are never written to again.

    Args:
        weights: As `weights.load` returns them.
        device: Where the network computes.
        precision: What it computes in.
        pixels: The name of the way in which its pictures are decoded and resized, where it is not the default.

    Attributes:
        architecture: Its stages and shapes.
        weights: The weights as they were read, on the CPU.
        device: Where it computes.
        precision: What it computes in.
        pixels: How its pictures are decoded and resized; empty: as by default.

    Raises:
        FailedPrecondition: The device cannot compute in that precision.
    """

    def __init__(
        self,
        weights: Weights,
        device: torch.device | str = "cpu",
        precision: Precision = Precision.FLOAT32,
        pixels: str = "",
    ) -> None:
        self.architecture = architecture(weights.backbone)
        self.weights = weights
        self.device = torch.device(device)
        self.precision = precision
        self.pixels = pixels
        check_precision(self.device, precision)
        self._mean = torch.tensor(MEAN, device=self.device).view(1, 3, 1, 1)
        make = resnet50 if self.name == "resnet50" else vgg
        exact, reduced, float32 = (
            WeightsLoader(weights, self.device, dtype) for dtype in (precision.dtype, precision.reduced, torch.float32)
        )
        body = make(exact)
        self._path = body(exact)
        # Near its end, an optimizer's steps are smaller than the rounding of a picture to half precision; it would
        # learn its curvatures from noise. So for gradients the picture and the first layer are in float32.
        self._smooth = self._path if exact.dtype == float32.dtype else body(float32)
        self._reduced = self._smooth if exact.dtype == reduced.dtype else make(reduced)(float32)

    @property
    def name(self) -> str:
        """The name of the architecture, such as `resnet50`."""
        return self.architecture.name

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All stages, in the order of the forward pass."""
        return self.architecture.stages

    @property
    def digest(self) -> str:
        """SHA-256 of the weights, then `+` and `pixels`, if any: equal digests mean equal features of a picture."""
        return f"{self.weights.digest}+{self.pixels}" if self.pixels else self.weights.digest

    @property
    def can_antialias(self) -> bool:
        """Whether the network has strides that can be antialiased."""
        return self._path.antialiased is not None

    @cached_property
    def projecting(self) -> ProjectingNetwork:
        """The same network for projections. It is built, with weights of its own, when it is first asked for."""
        return ProjectingNetwork(self.weights, self.device, self._mean)

    def set_arithmetic(self) -> None:
        """Sets how CUDA's libraries compute, before a pass of this network; see `precision.set_arithmetic`."""
        set_arithmetic(self.device, self.precision)

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
            reduced: A network of MIXED precision computes the layers after that in bfloat16.

        Returns:
            (N, C, H', W') each, in the element type of the network's precision; `avgpool` is (N, C, 1, 1). They hold
            the graph back to `pictures` if those require a gradient, and are then float32 where the precision is
            float16. Do not write to them.

        Raises:
            InvalidInput: There is no such stage.
        """

        def run(pictures: Tensor) -> dict[str, Tensor]:
            return dict(self.by_stage(pictures, stages, antialiased=antialiased, smooth=smooth, reduced=reduced))

        is_half = self.precision is Precision.FLOAT16 and pictures.requires_grad
        return with_scaled_gradient(pictures, run) if is_half else run(pictures)

    def tape(
        self,
        pictures: Tensor,
        stages: Collection[str],
        *,
        antialiased: bool = False,
        reduced: bool = False,
        in_parts: bool = False,
    ) -> Generator[None, None, Tape]:
        """A forward pass for a gradient, as `activations` with `smooth`.

        Args:
            pictures, stages, antialiased, reduced: As for `activations`.
            in_parts: Yield after each part of the work, at most a block, and differentiate by such parts, which takes a
                millisecond more. Not in float16.
        """
        pictures = pictures.detach().requires_grad_()
        if in_parts:
            computed = self.by_part(pictures, stages, antialiased=antialiased, smooth=True, reduced=reduced)
            return (yield from Tape.record(pictures, computed))
        found = self.activations(pictures, stages, antialiased=antialiased, smooth=True, reduced=reduced)
        return Tape([("", pictures)], found)

    def by_stage(
        self,
        pictures: Tensor,
        stages: Collection[str],
        *,
        antialiased: bool = False,
        smooth: bool = False,
        reduced: bool = False,
    ) -> Iterator[tuple[str, Tensor]]:
        """The same, each stage as soon as it is computed: its activations can be used and freed before the next."""
        parts = self.by_part(pictures, stages, antialiased=antialiased, smooth=smooth, reduced=reduced)
        return ((name, activations) for name, activations in parts if name)

    def by_part(
        self,
        pictures: Tensor,
        stages: Collection[str],
        *,
        antialiased: bool = False,
        smooth: bool = False,
        reduced: bool = False,
    ) -> Iterator[tuple[str, Tensor]]:
        """The same, and it yields an empty name after each part of the work as well, where other work may run.

        Without a gradient, a part is at most a convolution; with one, a block.
        """
        wanted = {self.architecture.stage(name).name for name in stages}
        path = self._reduced if reduced else self._smooth if smooth else self._path
        x = (pictures - self._mean).to(path.dtype, memory_format=torch.channels_last)
        found = 0
        for name, step in path.toward(wanted, antialiased):
            if found == len(wanted):
                return
            for part in parts_of(step, x):
                x = part
                yield "", x
            if name in wanted:
                found += 1
                yield name, x
