"""docker/Dockerfile: every RUN step works, and every image starts as its user on a read-only root."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pip._internal.models.index import PyPI

from tests.docker.image_builder import Builder, Image, healthy, registry_settings, started

DOCKER = Path(__file__).parents[2] / "docker"
TARGETS = ("feature", "stylize", "train", "embed", "all")


def can_mount() -> bool:
    try:
        return subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


pytestmark = [
    pytest.mark.skipif(not os.environ.get("GRAMLET_LONG_TESTS"), reason="takes minutes; GRAMLET_LONG_TESTS=1 runs it"),
    pytest.mark.skipif(not can_mount(), reason="needs the right to mount file systems (root on Linux)"),
    pytest.mark.timeout(1200),
]


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    work = tmp_path_factory.mktemp("images")
    # In memory: a layer cannot lie within the root that it is laid over.
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8G", "tmpfs", work], check=True)
    # This machine's own build of torch, where it has one: the registry's, with its libraries for GPUs, is gigabytes.
    yield Builder(DOCKER / "Dockerfile", DOCKER.parent, work, WEIGHTS="random:0", TORCH_INDEX=torch_index())
    subprocess.run(["umount", work], check=True)


def torch_index() -> str:
    return registry_settings().get("PIP_INDEX_URL") or PyPI.simple_url


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_builds_and_serves(builder: Builder, target: str, tmp_path: Path, unused_tcp_port: int):
    image = builder.build(target)
    assert image.user == "10001:10001"
    settings = {"GRAMLET_PORT": str(unused_tcp_port), "GRAMLET_METRICS_PORT": "0", "GRAMLET_HOST": "127.0.0.1"}
    if target not in ("feature", "all"):
        settings["GRAMLET_FEATURES"] = "127.0.0.1:1"
    data = tmp_path / "data"
    with started(image, data, **settings) as process:
        wait_until_healthy(image, data, process, settings)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, data.with_suffix(".log").read_text()


def wait_until_healthy(image: Image, data: Path, process: subprocess.Popen[bytes], settings: dict[str, str]) -> None:
    for _ in range(60):
        if healthy(image, data, **settings).returncode == 0:
            return
        assert process.poll() is None, data.with_suffix(".log").read_text()
        time.sleep(0.5)
    pytest.fail(f"never healthy:\n{data.with_suffix('.log').read_text()}")


@pytest.mark.parametrize("target", ["stylize", "embed"])
def test_the_services_without_a_network_have_no_torch(builder: Builder, target: str):
    layers = builder.build(target).layers
    assert [path for layer in layers for path in layer.glob("opt/gramlet/lib/*/site-packages/torch")] == []


def test_weights_are_baked_by_argument(builder: Builder):
    assert builder.build("feature").environment["GRAMLET_WEIGHTS"] == "random:0"


def test_the_image_for_gpus_gets_a_python(builder: Builder):
    image = builder.build("cuda")
    assert image.environment["NVIDIA_VISIBLE_DEVICES"] == "all"


def test_no_run_step_was_left_out(builder: Builder):
    for target in (*TARGETS, "cuda"):
        builder.build(target)
    assert sorted(builder.ran) == sorted(builder.run_steps)
