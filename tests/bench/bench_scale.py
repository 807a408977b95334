"""What FeatureService gains from replicas, what Envoy costs, and what a lost replica costs, on loopback.

    .venv/bin/python tests/bench/bench_scale.py [--seconds-per-picture 0.1] [--replicas 3]

The devices are simulated: each takes a fixed time a picture, so that replicas on one machine do not share it. What is
measured is all the rest: balancing, transport, failover. tests/e2e checks the same for being right.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from gramlet import Client
from gramlet.stylize.types import Iteration
from gramlet.types import Array

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.e2e.cluster import Cluster, GramletServer

STREAMS = 6


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds-per-picture", type=float, default=0.1)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=100, help="of each stream")
    chosen = parser.parse_args()
    pictures = list(np.random.default_rng(0).random((chosen.pictures, 3, 48, 48), dtype=np.float32))
    with tempfile.TemporaryDirectory() as folder, Cluster(Path(folder)) as cluster:
        seconds = chosen.seconds_per_picture
        replicas = [cluster.features(seconds_per_picture=seconds) for _ in range(chosen.replicas)]
        plain = cluster.features()
        for replica in [*replicas, plain]:
            replica.wait_until_ready()
        growth(cluster, replicas, pictures)
        overhead(cluster, plain, pictures[0])
        failover(cluster, replicas)


def growth(cluster: Cluster, replicas: list[GramletServer], pictures: list[Array]) -> None:
    """Pictures a second with 1, 2, ... replicas."""
    print(f"\n{STREAMS} extractions of {len(pictures)} pictures each, or as many single calls")
    print("| through | replicas | pictures/s | growth | busiest replica / mean |\n|---|---|---|---|---|")
    for name, work in (("Envoy, streams", in_streams), ("Envoy, calls", in_calls), ("round robin, calls", in_calls)):
        first = 0.0
        for number in range(1, len(replicas) + 1):
            some = replicas[:number]
            address = ",".join(replica.address for replica in some)
            if "Envoy" in name:
                envoy = cluster.envoy(feature=[replica.address for replica in some])
                envoy.wait_for_replicas(feature=number)
                address = envoy.address
            before = [replica.metric("gramlet_device_seconds_total") for replica in some]
            began = time.perf_counter()
            work(address, pictures)
            rate = STREAMS * len(pictures) / (time.perf_counter() - began)
            busy = [r.metric("gramlet_device_seconds_total") - b for r, b in zip(some, before, strict=True)]
            first = first or rate
            uneven = max(busy) / statistics.mean(busy)
            print(f"| {name} | {number} | {rate:.1f} | {rate / first:.2f} | {uneven:.3f} |")


def in_streams(address: str, pictures: list[Array]) -> None:
    """Each stream of a client of its own."""

    def extract(_: int) -> None:
        with Client(address) as client:
            list(client.features(pictures, stages=["conv1"], pooled=True))

    with ThreadPoolExecutor(STREAMS) as pool:
        list(pool.map(extract, range(STREAMS)))


def in_calls(address: str, pictures: list[Array]) -> None:
    """One client, two calls under way for each stream that there might have been."""
    with Client(address) as client, ThreadPoolExecutor(2 * STREAMS) as pool:
        list(pool.map(lambda picture: client.features(picture, stages=["conv1"], pooled=True), pictures * STREAMS))


def overhead(cluster: Cluster, server: GramletServer, picture: Array) -> None:
    """Milliseconds that Envoy adds to a call."""
    envoy = cluster.envoy(feature=[server.address])
    envoy.wait_for_replicas(feature=1)
    print("\n| call | straight, median ms | through Envoy, median ms |\n|---|---|---|")
    calls: dict[str, Callable[[Client], object]] = {
        "GetModel": lambda client: client.model(),
        "Extract, conv1 of 48 x 48": lambda client: client.features(picture, stages=["conv1"], pooled=True),
    }
    for name, call in calls.items():
        times = [milliseconds(address, call) for address in (server.address, envoy.address)]
        print(f"| {name} | {times[0]:.2f} | {times[1]:.2f} |")


def milliseconds(address: str, call: Callable[[Client], object]) -> float:
    """Median of two hundred calls, after twenty."""
    times = []
    with Client(address) as client:
        for _ in range(220):
            began = time.perf_counter()
            call(client)
            times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times[20:])


def failover(cluster: Cluster, replicas: list[GramletServer]) -> None:
    """The pause of a stylization whose replica is killed."""
    envoy = cluster.envoy(feature=[replica.address for replica in replicas])
    envoy.wait_for_replicas(feature=len(replicas))
    stylize = cluster.server("stylize", f"--features={envoy.address}", f"--store={cluster.folder / 'bench'}")
    stylize.wait_until_ready()
    content, style = np.random.default_rng(0).random((2, 3, 48, 48), dtype=np.float32)
    pauses = []
    for _ in range(5):
        before = [replica.metric("gramlet_gradient_evaluations_total") for replica in replicas]
        times = []
        with Client(stylize.address) as client:
            for event in client.stylize(content, style, size=48, iterations=30, state_seconds=0):
                if isinstance(event, Iteration):
                    times.append(time.perf_counter())
                if isinstance(event, Iteration) and event.iteration == 15:
                    after = [replica.metric("gramlet_gradient_evaluations_total") for replica in replicas]
                    [victim] = [r for r, a, b in zip(replicas, after, before, strict=True) if a > b]
                    victim.kill()
        pauses.append(max(np.diff(times)))
        victim.start()
        victim.wait_until_ready()
        envoy.wait_for_replicas(feature=len(replicas))
    typical, worst = statistics.median(pauses), max(pauses)
    print(f"\nkill -9 of the replica of a stylization: a pause of {typical:.2f} s (median of 5), {worst:.2f} s at most")


if __name__ == "__main__":
    main()
