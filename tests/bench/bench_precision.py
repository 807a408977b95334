"""What each --precision costs in exactness: relative errors of activations, Gram matrices and gradients, by stage.

    python tests/bench/bench_precision.py [--sizes 224,512] [--precisions float32,tf32,...] [--device cpu]

The gradient of a stage is that of its style loss alone, raw Gram matrices, at the content picture, and has the first
layer in float32 as in a stylization; that of `classic` is the preset's. An error is |found - expected| / |expected|, in
the Euclidean norm, the mean over the pairs of sample pictures: two below 512 pixels, one from there on. float32 is
compared with torchvision's own modules and the formulas in float64, below 512 pixels and with one pair; the others with
float32.

Without a CUDA device, tf32 is simulated: what a tensor core multiplies is rounded to TF32 first. float16 is computed in
float16, by the same code as on a CUDA device.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from gramlet.feature.types import GramNormalization
from gramlet_server.backbone import layers, load_network, network, onednn
from gramlet_server.backbone.network import Network
from gramlet_server.feature.gram import energy, gram_matrix, style_loss
from gramlet_server.process.allocator import ALLOCATOR
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.bench.bench_stylize import SAMPLES, WEIGHTS, picture
from tests.stylize.direct import STAGES, stages_of, torchvision_resnet50

PAIRS = (("tubingen", "starry_night"), ("golden_gate", "starry_night"))
LARGE = 512
PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
RAW = GramNormalization.NONE
Found = dict[tuple[str, str], Tensor]
"""(what, stage) to values."""


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Runs the rows, prints each, and returns them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="224,512")
    parser.add_argument("--precisions", default=",".join(PRECISIONS))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    chosen = parser.parse_args(arguments)
    ALLOCATOR.keep_large_blocks()
    rows = []
    for size in map(int, chosen.sizes.split(",")):
        rows += compared(size, chosen.precisions.split(","), chosen.device)
    return rows


def compared(size: int, precisions: list[str], device: str) -> list[dict[str, Any]]:
    """One row a precision and stage, at one size."""
    errors: dict[tuple[str, str], dict[str, list[float]]] = {}
    pairs = PAIRS if size < LARGE else PAIRS[:1]
    for pair in pairs:
        content, style = (
            torch.tensor(picture(SAMPLES / kind / f"{name}.jpg", size), device=device)
            for kind, name in zip(("content", "style"), pair, strict=True)
        )
        single = in_precision("float32", content, style)
        for precision in precisions:
            if precision != "float32":
                expected, found = single, in_precision(precision, content, style)
            elif size < LARGE and pair == pairs[0]:
                expected, found = in_float64(content, style), single
            else:
                continue
            for (what, stage), value in found.items():
                of_stage = errors.setdefault((precision, stage), {})
                of_stage.setdefault(what, []).append(relative(value, expected[what, stage]))
    rows = []
    for (precision, stage), measured in errors.items():
        row: dict[str, Any] = {"bench": "precision", "size": size, "precision": precision, "stage": stage}
        row |= {what: float(f"{statistics.mean(values):.2g}") for what, values in measured.items()}
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def relative(found: Tensor, expected: Tensor) -> float:
    """|found - expected| / |expected|."""
    found, expected = found.double().cpu(), expected.double().cpu()
    return float((found - expected).norm() / expected.norm())


def in_float64(content: Tensor, style: Tensor) -> Found:
    """torchvision's modules and the formulas as they stand."""
    network = oracle()
    with torch.no_grad():
        targets = {stage: f @ f.T for stage, f in stages_of(network, style.cpu().double()).items()}
    x = content.cpu().double().requires_grad_()
    activations = stages_of(network, x)
    grams = {stage: f @ f.T for stage, f in activations.items()}
    losses = {stage: (gram - targets[stage]).square().mean() for stage, gram in grams.items()}
    return found(x, activations, grams, losses)


@cache
def oracle() -> Any:
    """torchvision's network in float64."""
    return torchvision_resnet50(WEIGHTS).double()


def in_precision(precision: str, content: Tensor, style: Tensor) -> Found:
    """gramlet's network, and its losses."""
    device = content.device.type
    prepared = prepared_network(precision, device)
    prepared.set_arithmetic()
    rounding = mock.patch.object(layers.Convolution, "__call__", convolution_in_tf32)
    with rounding if is_simulated(precision, device) else nullcontext():
        with torch.no_grad():
            activations = {stage: f[0] for stage, f in prepared.activations(content[None], STAGES).items()}
            grams = {stage: gram_matrix(f, RAW) for stage, f in activations.items()}
            of_style = prepared.activations(style[None], STAGES, smooth=True)
            targets = {stage: gram_matrix(f[0], RAW) for stage, f in of_style.items()}
        x = content[None].clone().requires_grad_()
        smooth = prepared.activations(x, STAGES, smooth=True)
        losses = {stage: style_loss(f[0], targets[stage], RAW, energy(targets[stage])) for stage, f in smooth.items()}
        return found(x, {stage: f.flatten(1) for stage, f in activations.items()}, grams, losses)


def found(x: Tensor, activations: dict[str, Tensor], grams: dict[str, Tensor], losses: dict[str, Tensor]) -> Found:
    """All that is compared."""
    # Of `classic` at the content picture, where its content loss is 0.
    losses["classic"] = torch.stack([1000 / STAGES[stage] ** 2 * loss for stage, loss in losses.items()]).sum()
    values: Found = {("activations", stage): f.detach() for stage, f in activations.items()}
    values |= {("gram", stage): gram.detach() for stage, gram in grams.items()}
    for stage, loss in losses.items():
        (values["gradient", stage],) = torch.autograd.grad(loss, [x], retain_graph=True)
    return values


@cache
def prepared_network(precision: str, device: str) -> Network:
    """The network in a precision; on a CPU also in those that are not for it."""
    simulated = is_simulated(precision, device)
    packs = {"return_value": False} if simulated else {"wraps": onednn.available}
    with mock.patch.object(network, "check_precision"), mock.patch.object(onednn, "available", **packs):
        return load_network("resnet50", str(WEIGHTS), device, "float32" if simulated else precision)


def is_simulated(precision: str, device: str) -> bool:
    """Whether the arithmetic is made of float32's."""
    return precision == "tf32" and device == "cpu"


def convolution_in_tf32(self: Any, x: Tensor) -> Tensor:
    """As tensor cores compute it: factors rounded to TF32, sums in float32; forward and backward."""
    rounded: Any = RoundedToTf32.apply
    result = functional.conv2d(rounded(x), rounded(self.weight), None, self.stride, self.padding)
    result = RoundedGradient.apply(result)
    return result if self.bias is None else result + self.bias.view(1, -1, 1, 1)


class RoundedToTf32(torch.autograd.Function):
    """Rounds what goes in."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """10 of the 23 bits of the mantissa."""
        return tf32(x)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        """Lets the gradient pass."""
        return upstream


class RoundedGradient(torch.autograd.Function):
    """Rounds what comes back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Lets values pass."""
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        """10 of the 23 bits of the mantissa."""
        return tf32(upstream)


def tf32(x: Tensor) -> Tensor:
    """Rounded to the nearest number of 10 bits of mantissa."""
    return ((x.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


if __name__ == "__main__":
    main()
