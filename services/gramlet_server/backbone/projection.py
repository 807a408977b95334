"""One activation of a network projected back to the pixels of the picture: the gradient, with other ReLUs on the way.

The gradient of a single activation with respect to the picture is a noisy picture: the ReLU passes a signal wherever it
passed something forward, also what is negative of it, which comes from neurons that speak against the activation. A
deconvnet (Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014) passes back what is
positive of the signal, wherever it is. Guided backpropagation (Springenberg et al., "Striving for Simplicity", 2015)
asks for both. In all of them convolutions are transposed, and max poolings pass a signal to where the maximum was (the
"switches"), as in the gradient.

In a deconvnet only the switches tell one picture from another. VGG networks have five poolings; ResNet-50 has one, its
other strides are convolutions, so that its deconvnet shows the pattern that the channel responds to at best, and guided
backpropagation is the rule for it. The sum of a residual block passes the signal to both of its branches.

Both rules restore what the picture has there more than they explain the activation (Nie, Zhang, Patel, ICML 2018;
Adebayo et al., NeurIPS 2018): they show where the channel looks, and with which detail, not why it responds.
"""

from __future__ import annotations

from typing import Any

import torch
from gramlet.feature.see_types import Projection
from torch import Tensor

from gramlet_server.backbone.layers import WeightsLoader
from gramlet_server.backbone.resnet import resnet50
from gramlet_server.backbone.vgg import vgg
from gramlet_server.backbone.weights import Weights


class ProjectingNetwork:
    """A network in float32 whose ReLUs pass signals back by a rule.

    Args:
        weights: As of the network.
        device: Where it computes.
        center: (1, 3, 1, 1): what is subtracted from pictures.
    """

    def __init__(self, weights: Weights, device: torch.device, center: Tensor) -> None:
        self._center = center
        self._rule: Projection | None = None
        loader = WeightsLoader(weights, device, torch.float32, self._rectify)
        make = resnet50 if weights.backbone == "resnet50" else vgg
        self._path = make(loader)(loader)

    def project(self, picture: Tensor, stage: str, channel: int, row: int, column: int, rule: Projection) -> Tensor:
        """What in a picture leads to one activation: (3, H, W), around 0, like a gradient.

        Args:
            picture: (1, 3, H, W), RGB in 0..1, on the device.
            stage: The stage of the activation.
            channel, row, column: Its place.
            rule: Of the ReLUs.
        """
        self._rule = rule
        with torch.enable_grad():
            pixels = picture.detach().requires_grad_()
            activations = self._forward(pixels, stage)
            (signal,) = torch.autograd.grad(activations[0, channel, row, column], [pixels])
        return signal[0]

    def passing(self, pictures: Tensor, stage: str) -> Tensor:
        """Activations (N, C, H', W') whose gradient passes every ReLU as it is, also where the ReLU passed nothing.

        Where a channel is 0 everywhere, its gradient is 0 as well, and this one still says what would change that.
        """
        self._rule = None
        return self._forward(pictures, stage)

    def _forward(self, pictures: Tensor, stage: str) -> Tensor:
        x = (pictures - self._center).to(memory_format=torch.channels_last)
        for name, step in self._path.toward({stage}, antialiased=False):
            x = step(x)
            if name == stage:
                break
        return x

    def _rectify(self, x: Tensor) -> Tensor:
        result: Tensor = _Rectified.apply(x, self._rule)  # type: ignore[no-untyped-call]
        return result


class _Rectified(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rule: Projection | None) -> Tensor:
        result = x.clamp(min=0)
        ctx.rule = rule
        if rule is Projection.GUIDED:
            ctx.save_for_backward(result)
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        if ctx.rule is None:
            return upstream, None
        signal = upstream.clamp(min=0)
        for result in ctx.saved_tensors:
            signal = signal * (result > 0)
        return signal, None
