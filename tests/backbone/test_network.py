"""The folded, frozen network computes what torchvision's does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from gramlet.errors import FailedPrecondition, InvalidInput
from gramlet_server.backbone import load_network, onednn
from gramlet_server.backbone.architecture import DEVIATION, MEAN, architecture
from gramlet_server.backbone.network import Network
from gramlet_server.backbone.precision import Precision, choose_precision
from gramlet_server.backbone.torchvision_cpu import import_torchvision
from gramlet_server.backbone.trainable import late_stages, stage_before
from gramlet_server.backbone.weights import load
from torch import Tensor, nn
from torch.nn import functional

BACKBONES = ("resnet50", "vgg16", "vgg19")


def torchvision_activations(network: Network, pictures: Tensor) -> dict[str, Tensor]:
    """Every stage by torchvision's own modules, in the precision of the pictures: the oracle."""
    whole: Any = getattr(import_torchvision().models, network.name)(weights=None).eval().requires_grad_(False)
    missing, unexpected = whole.load_state_dict(dict(network.weights.state), strict=False)
    assert not unexpected
    assert all(name.startswith(("fc.", "classifier.")) or name.endswith("num_batches_tracked") for name in missing)
    whole.to(pictures.dtype)
    x = (pictures - pictures.new_tensor(MEAN).view(1, 3, 1, 1)) / pictures.new_tensor(DEVIATION).view(1, 3, 1, 1)
    found: dict[str, Tensor] = {}
    if network.name == "resnet50":
        for name, module in whole.named_children():
            if name != "fc":
                x = module(x)
                found[name] = x.clone()  # torchvision's next layer may write into it
    else:
        block, number = 1, 1
        for module in whole.features:
            x = module(x)
            if isinstance(module, nn.ReLU):
                found[f"relu{block}_{number}"] = x.clone()
                number += 1
            elif isinstance(module, nn.MaxPool2d):
                found[f"pool{block}"] = x.clone()
                block, number = block + 1, 1
        found["avgpool"] = x.mean((2, 3), keepdim=True)
    return {stage.name: found[stage.name] for stage in network.stages}


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    """Two pictures of odd sides, so that rounding of strides shows."""
    return torch.rand(2, 3, 35, 43, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=BACKBONES)
def network(request: pytest.FixtureRequest) -> Network:
    return Network(load(request.param, "random:3"))


@pytest.fixture(scope="module")
def resnet50() -> Network:
    return Network(load("resnet50", "random:3"))


def names(network: Network) -> list[str]:
    return [stage.name for stage in network.stages]


def test_every_stage_equals_torchvisions(network: Network, pictures: Tensor) -> None:
    expected = torchvision_activations(network, pictures.double())
    with torch.inference_mode():
        found = network.activations(pictures, names(network))
    assert list(found) == names(network)
    for name in found:
        assert found[name].shape == expected[name].shape
        assert relative(found[name], expected[name]) < 1e-5, name


@pytest.mark.weights
def test_every_stage_equals_torchvisions_with_real_weights(resnet50_weights: Path, pictures: Tensor) -> None:
    network = Network(load("resnet50", str(resnet50_weights)))
    expected = torchvision_activations(network, pictures.double())
    found = network.activations(pictures, names(network))
    for name in found:
        assert relative(found[name], expected[name]) < 1e-5, name


@pytest.mark.parametrize("stage", ["conv1", "maxpool", "layer2", "avgpool"])
def test_a_stage_does_not_depend_on_the_others_that_are_asked_for(
    resnet50: Network, pictures: Tensor, stage: str
) -> None:
    """The batch norm after conv1 is folded only where conv1 is not asked for."""
    single = resnet50.activations(pictures, [stage])[stage]
    among_all = resnet50.activations(pictures, names(resnet50))[stage]
    assert relative(single, among_all) < 1e-6


@pytest.mark.parametrize("backbone", ["resnet50", "vgg16"])
def test_gradients_are_as_exact_as_torchvisions(backbone: str, pictures: Tensor) -> None:
    """A ReLU's gradient jumps where rounding moves its input across 0, so torchvision's float32 is the reference."""
    network = Network(load(backbone, "random:3"))

    def gradient(activations: Any, pictures: Tensor) -> Tensor:
        x = pictures.clone().requires_grad_()
        sum(a.double().square().mean() for a in activations(x).values()).backward()
        assert x.grad is not None
        return x.grad

    def oracle(x: Tensor) -> dict[str, Tensor]:
        return torchvision_activations(network, x)

    exact = gradient(oracle, pictures[:1].double())
    theirs = relative(gradient(oracle, pictures[:1]), exact)
    ours = relative(gradient(lambda x: network.activations(x, names(network)), pictures[:1]), exact)
    assert ours < 2 * theirs + 1e-4


def test_no_stage_is_written_to_by_a_later_one(resnet50: Network, pictures: Tensor) -> None:
    for name in ("conv1", "maxpool", "layer1"):
        up_to_here = resnet50.activations(pictures, ["conv1", name])[name]
        among_all = resnet50.activations(pictures, ["conv1", name, "layer2"])[name]
        assert torch.equal(up_to_here, among_all), name


def test_the_forward_pass_stops_at_the_last_stage_asked_for(network: Network, pictures: Tensor) -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        network.activations(pictures, [network.stages[0].name])
    convolutions = ("aten::conv2d", "mkldnn::_convolution_pointwise")
    assert [event.count for event in profile.key_averages() if event.key in convolutions] == [1]


def test_nothing_learns(network: Network, pictures: Tensor) -> None:
    before = {name: tensor.clone() for name, tensor in network.weights.state.items()}
    x = pictures.clone().requires_grad_()
    sum(a.mean() for a in network.activations(x, names(network)).values()).backward()
    for name, tensor in network.weights.state.items():
        assert not tensor.requires_grad
        assert tensor.grad is None
        assert torch.equal(tensor, before[name])


def test_random_weights_keep_activations_in_range(network: Network, pictures: Tensor) -> None:
    for name, activations in network.activations(pictures, names(network)).items():
        assert activations.isfinite().all(), name
        assert 0.05 < float(activations.std()) < 50, name


def test_unknown_stages_are_refused_by_name(resnet50: Network, pictures: Tensor) -> None:
    with pytest.raises(InvalidInput, match=r"no stage 'layer5'; it has conv1, maxpool") as caught:
        resnet50.activations(pictures, ["layer1", "layer5"])
    assert caught.value.field == "stages"


def test_shapes_are_known_before_the_pass(network: Network) -> None:
    for height, width in ((35, 43), (33, 32)):
        found = network.activations(torch.rand(1, 3, height, width), names(network))
        for name, activations in found.items():
            assert network.architecture.activation_shape(name, height, width) == activations.shape[1:]


def test_too_small_pictures_show_in_the_shape() -> None:
    assert architecture("vgg16").activation_shape("relu5_1", 15, 64) == (512, 0, 4)
    assert architecture("vgg16").activation_shape("avgpool", 31, 64) == (512, 0, 1)
    assert architecture("resnet50").activation_shape("avgpool", 1, 1) == (2048, 1, 1)


def test_bfloat16_is_near(resnet50: Network, pictures: Tensor) -> None:
    network = Network(resnet50.weights, precision=Precision.BFLOAT16)
    exact = resnet50.activations(pictures, names(network))
    for name, activations in network.activations(pictures, names(network)).items():
        assert activations.dtype == torch.bfloat16
        assert 0 < relative(activations, exact[name]) < 0.03, name


def test_gradients_in_bfloat16_see_small_changes_of_the_picture(resnet50: Network, pictures: Tensor) -> None:
    network = Network(resnet50.weights, precision=Precision.BFLOAT16)
    for antialiased in (False, True):
        options = {"antialiased": antialiased, "smooth": True}
        exact, found = (each.activations(pictures, names(network), **options) for each in (resnet50, network))
        for stem in ("conv1", "maxpool"):
            assert torch.equal(found[stem], exact[stem])
        assert found["layer1"].dtype == torch.bfloat16
        assert 0 < relative(found["layer4"], exact["layer4"]) < 0.03


@pytest.mark.parametrize("kernel", [3, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(32, 48), (33, 35), (31, 64)])
def test_the_stems_gradient_equals_torchs(size: tuple[int, int], stride: int, kernel: int) -> None:
    if not onednn.available(torch.device("cpu"), torch.float32):
        pytest.skip("oneDNN is not used here")
    weight, picture = torch.randn(8, 3, kernel, kernel), torch.randn(2, 3, *size, requires_grad=True)
    found = functional.conv2d(picture, weight, None, stride, kernel // 2)
    upstream = torch.randn_like(found)
    (expected,) = torch.autograd.grad(found, picture, upstream)
    (gradient,) = torch.autograd.grad(onednn.PackedStem(weight, None, stride)(picture), picture, upstream)
    assert relative(gradient, expected) < 1e-6


def test_mixed_precision_is_float32_unless_reduced_is_asked_for(resnet50: Network, pictures: Tensor) -> None:
    network = Network(resnet50.weights, precision=Precision.MIXED)
    for smooth in (False, True):
        found = network.activations(pictures, ["layer2"], smooth=smooth)["layer2"]
        assert torch.equal(found, resnet50.activations(pictures, ["layer2"])["layer2"])
    assert network.activations(pictures, ["layer2"], reduced=True)["layer2"].dtype == torch.bfloat16


@pytest.mark.parametrize("precision", [Precision.TF32, Precision.FLOAT16])
def test_a_cpu_refuses_the_precisions_of_cuda(resnet50: Network, precision: Precision) -> None:
    with pytest.raises(FailedPrecondition, match="needs a CUDA device"):
        Network(resnet50.weights, "cpu", precision)


def test_shapes_and_names_equal_torchvisions(network: Network) -> None:
    with torch.device("meta"):
        whole = getattr(import_torchvision().models, network.name)()
    theirs = {
        name: tuple(tensor.shape)
        for name, tensor in whole.state_dict().items()
        if not name.startswith(network.architecture.unused) and not name.endswith("num_batches_tracked")
    }
    assert dict(network.architecture.shapes) == theirs


@pytest.mark.parametrize(
    ("backbone", "first", "before"),
    [
        ("resnet50", "maxpool", "conv1"),
        ("resnet50", "layer4", "layer3"),
        ("resnet50", "avgpool", "layer4"),
        ("vgg16", "relu5_2", "relu5_1"),
        ("vgg19", "pool4", "relu4_4"),
        ("vgg19", "relu5_1", "pool4"),
    ],
)
def test_late_stages_continue_from_the_stage_before_them(
    backbone: str, first: str, before: str, pictures: Tensor
) -> None:
    network = Network(load(backbone, "random:3"))
    assert stage_before(backbone, first) == before
    whole = network.activations(pictures, [before, "avgpool"])
    kept = whole[before].clone()
    late = late_stages(network.weights, first)
    assert relative(late(whole[before]).detach(), whole["avgpool"]) < 1e-5
    assert torch.equal(whole[before], kept)


def test_training_late_stages_does_not_change_the_network(resnet50: Network, pictures: Tensor) -> None:
    late = late_stages(resnet50.weights, "layer4")
    parameters = dict(late.named_parameters())
    assert "layer4.0.conv1.weight" in parameters
    assert all(parameter.requires_grad for parameter in parameters.values())
    activations = resnet50.activations(pictures, ["layer3", "avgpool"])
    optimizer = torch.optim.SGD(late.parameters(), lr=0.1)
    late.train()
    late(activations["layer3"]).square().mean().backward()
    optimizer.step()
    assert not torch.equal(parameters["layer4.0.conv1.weight"], resnet50.weights.state["layer4.0.conv1.weight"])
    assert torch.equal(resnet50.activations(pictures, ["avgpool"])["avgpool"], activations["avgpool"])
    assert load("resnet50", "random:3").digest == resnet50.digest


def test_the_first_stage_has_none_before() -> None:
    with pytest.raises(InvalidInput, match="none before it"):
        stage_before("resnet50", "conv1")


def test_load_network_names_a_missing_device() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    assert load_network("resnet50", "random:0", "auto").device.type == "cpu"
    with pytest.raises(FailedPrecondition, match="finds no CUDA device"):
        load_network("resnet50", "random:0", "cuda")


@pytest.mark.parametrize(
    ("device", "capability", "chosen"),
    [("cpu", None, "float32"), ("cuda", (8, 0), "tf32"), ("cuda", (9, 0), "tf32"), ("cuda", (7, 5), "float32")],
)
def test_the_automatic_precision_is_what_the_device_is_good_at(
    device: str, capability: tuple[int, int] | None, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert choose_precision(torch.device(device), "auto").value == chosen
    assert choose_precision(torch.device(device), "bfloat16").value == "bfloat16"
