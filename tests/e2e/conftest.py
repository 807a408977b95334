"""One cluster for the tests of this folder: its processes take seconds each to start."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest
from gramlet.types import Array, Pixels

from tests.e2e.cluster import Cluster, Envoy, GramletServer, SeaweedFS

LONG = bool(os.environ.get("GRAMLET_LONG_TESTS"))
"""Whether the tests take the minutes that the issue asks for, and not the seconds that everyday needs."""


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def seaweedfs(cluster: Cluster) -> SeaweedFS:
    store = cluster.seaweedfs()
    store.wait_until_ready()
    return store


@pytest.fixture(scope="session")
def replicas(cluster: Cluster) -> list[GramletServer]:
    """Three FeatureServices whose device takes at least 50 ms a picture, whatever else this machine does."""
    replicas = [
        cluster.features("--drain-delay-seconds=2", "--queue-limit=32", seconds_per_picture=0.05) for _ in range(3)
    ]
    for replica in replicas:
        replica.wait_until_ready()
    return replicas


@pytest.fixture(scope="session")
def edge(cluster: Cluster, replicas: list[GramletServer]) -> Envoy:
    """Envoy in front of the three."""
    envoy = cluster.envoy(feature=[replica.address for replica in replicas])
    envoy.wait_for_replicas(feature=3)
    return envoy


@pytest.fixture(scope="session")
def pictures() -> list[Array]:
    """Two hundred small pictures, no two alike."""
    random = np.random.default_rng(7)
    return list(random.random((200, 3, 48, 48), dtype=np.float32))


@pytest.fixture(scope="session")
def content() -> Pixels:
    return np.random.default_rng(1).integers(0, 256, (48, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def style() -> Pixels:
    return np.random.default_rng(2).integers(0, 256, (56, 64, 3), dtype=np.uint8)
