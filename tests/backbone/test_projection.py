"""What a position sees, and the projection of its activation back to pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gramlet.feature.see_types import Projection
from gramlet_server.backbone.architecture import DEVIATION, MEAN
from gramlet_server.backbone.network import Network
from gramlet_server.backbone.torchvision_cpu import import_torchvision
from gramlet_server.backbone.weights import load
from gramlet_server.feature.fields import Field
from torch import Tensor, nn

SIDE = 320


@pytest.fixture(scope="module", params=["resnet50", "vgg16"])
def network(request: pytest.FixtureRequest) -> Network:
    return Network(load(request.param, "random:3"))


def field_of(network: Network, stage: str) -> Field:
    stride = network.architecture.stride(stage)
    return Field(stride, network.architecture.receptive_field(stage) if stride else range(0), 0)


def noise(side: int, seed: int = 1) -> Tensor:
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(seed))


def at(network: Network, picture: Tensor, stage: str, row: int, column: int) -> Tensor:
    """The activations of all channels at one position."""
    return network.activations(picture, [stage])[stage][0, :, row, column]


def test_the_receptive_field_is_where_the_gradient_is(network: Network) -> None:
    picture = noise(SIDE).requires_grad_()
    for stage in network.stages:
        if not stage.stride or stage.channels > 1024 or stage.name > "relu5":
            continue  # larger than the picture
        middle = SIDE // stage.stride // 2
        seen = at(network, picture, stage.name, middle, middle - 1)
        weights = torch.randn(len(seen), generator=torch.Generator().manual_seed(0))
        (gradient,) = torch.autograd.grad((seen * weights).sum(), [picture])
        rows, columns = np.nonzero(gradient[0].abs().sum(0).numpy())
        box = field_of(network, stage.name).whole_box(middle, middle - 1, SIDE, SIDE)
        found = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        assert found == (box.left, box.top, box.left + box.width, box.top + box.height), stage.name


def test_pixels_outside_of_the_receptive_field_change_nothing(network: Network) -> None:
    stage = network.stages[3 if network.name == "resnet50" else 8]
    row, column = 6, 7
    box = field_of(network, stage.name).whole_box(row, column, 160, 160)
    assert min(box.left, box.top) > 0
    inside, other = noise(160), noise(160, seed=2)
    rows, columns = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
    other[:, :, rows, columns] = inside[:, :, rows, columns]
    with torch.no_grad():
        found = at(network, other, stage.name, row, column)
        torch.testing.assert_close(found, at(network, inside, stage.name, row, column), rtol=1e-5, atol=1e-6)
        other[:, :, box.top, columns] = 1 - other[:, :, box.top, columns]
        assert not torch.equal(at(network, other, stage.name, row, column), found)


def reference(network: Network, picture: Tensor, stage: str, place: tuple[int, int, int], rule: Projection) -> Tensor:
    """The projection by torchvision's modules with hooks at every ReLU, in float64."""
    whole: Any = getattr(import_torchvision().models, network.name)(weights=None).eval().requires_grad_(False)
    whole.load_state_dict(dict(network.weights.state), strict=False)
    whole.double()

    def hook(module: nn.Module, to_input: Any, to_output: Any) -> tuple[Tensor]:
        return ((to_input if rule is Projection.GUIDED else to_output)[0].clamp(min=0),)

    for module in whole.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
            module.register_full_backward_hook(hook)
    pixels = picture.double().requires_grad_()
    x = (pixels - pixels.new_tensor(MEAN).view(1, 3, 1, 1)) / pixels.new_tensor(DEVIATION).view(1, 3, 1, 1)
    if network.name == "resnet50":
        # The network pools before it rectifies, so that the switch of a window without a positive value is its largest.
        layers = [whole.conv1, whole.bn1, whole.maxpool, whole.relu, whole.layer1, whole.layer2]
        assert stage == "layer2"
    else:
        layers = list(whole.features[:16])
        assert stage == "relu3_3"
    for layer in layers:
        x = layer(x)
    (gradient,) = torch.autograd.grad(x[(0, *place)], [pixels])
    return gradient[0]


@pytest.mark.parametrize("rule", [Projection.DECONVNET, Projection.GUIDED])
def test_a_projection_is_the_gradient_with_that_rule_at_every_relu(network: Network, rule: Projection) -> None:
    stage = "layer2" if network.name == "resnet50" else "relu3_3"
    picture = noise(64)
    channel, row, column = place = 7, 3, 4
    found = network.projecting.project(picture, stage, channel, row, column, rule)
    expected = reference(network, picture, stage, place, rule)
    assert float(expected.norm()) > 0
    assert float((found.double() - expected).norm() / expected.norm()) < 1e-4
    plain_picture = picture.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(at(network, plain_picture, stage, row, column)[channel], [plain_picture])
    assert float((found - gradient[0]).norm() / gradient[0].norm()) > 0.1


def test_a_gradient_that_passes_the_relus_is_there_where_a_channel_is_zero(network: Network) -> None:
    stage = network.stages[3].name
    picture = noise(48).requires_grad_()
    activations = network.projecting.passing(picture, stage)
    torch.testing.assert_close(activations, network.activations(picture, [stage])[stage], rtol=1e-3, atol=1e-4)
    channel, row, column = np.argwhere(activations[0].detach().numpy() == 0)[0]
    (gradient,) = torch.autograd.grad(activations[0, channel, row, column], [picture])
    assert float(gradient.abs().max()) > 0


def test_avgpool_sees_the_whole_picture(network: Network) -> None:
    assert network.projecting.project(noise(64), "avgpool", 3, 0, 0, Projection.GUIDED).shape == (3, 64, 64)
    box = field_of(network, "avgpool").whole_box(0, 0, 40, 60)
    assert (box.left, box.top, box.width, box.height) == (0, 0, 60, 40)
