"""What tests share: a network, and where the project's pictures and weights are, which stay outside the repository."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before torch is imported, here and in the servers that tests start: the last bits of a network depend on the number of
# its threads, and the tests share few cores with each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from gramlet_server.backbone import load_network
from gramlet_server.feature.engine import Engine
from gramlet_server.process.allocator import ALLOCATOR
from gramlet_server.runtime.memory import resident_bytes

SHARED = Path(__file__).parents[2] / "shared"


def _shared(variable: str, default: str) -> Path:
    path = Path(os.environ.get(variable) or SHARED / default)
    if not path.exists():
        pytest.skip(f"{path} is absent; {variable} may name another place")
    return path


_most = 1.5 * 2**30


@pytest.fixture(autouse=True)
def _returned_memory() -> Iterator[None]:
    """Returns freed memory to the kernel when it has grown by a gigabyte: without this, a worker keeps up to 7."""
    global _most
    yield
    if resident_bytes() > _most:
        gc.collect()
        ALLOCATOR.trim()
        _most = resident_bytes() + 2**30


@pytest.fixture(scope="session")
def resnet50_weights() -> Path:
    """Real ImageNet weights of ResNet-50. Mark tests that use them with `weights`."""
    return _shared("GRAMLET_TEST_WEIGHTS", "weights/resnet50.safetensors")


@pytest.fixture(scope="session")
def vgg16_weights() -> Path:
    """Real ImageNet weights of VGG-16's convolutions. Mark tests that use them with `weights`."""
    return _shared("GRAMLET_TEST_VGG16_WEIGHTS", "weights/vgg16_features.safetensors")


@pytest.fixture(scope="session")
def samples() -> Path:
    """Content and style pictures: content/*.jpg and style/*.jpg."""
    return _shared("GRAMLET_TEST_SAMPLES", "samples")


@pytest.fixture(scope="session")
def malformed() -> Path:
    """Hostile and odd pictures, and the manifest.json that says what to expect of each."""
    return _shared("GRAMLET_TEST_MALFORMED", "malformed")


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A ResNet-50 with random weights: enough for every promise that is not about how pictures look."""
    engine = Engine(load_network("resnet50", "random:0", "cpu"))
    yield engine
    engine.close()
