"""Latency of good callers while one connection floods the server with frames, straight and through Envoy.

    python tests/bench/bench_floods.py [--seconds 8] [--rounds 2]

A connection sends frames of one kind as fast as they are taken, and reads all replies. In turns, for each kind and each
way: single GetModel calls, one after the other, on a connection of their own, quiet and beside the flood. The flood
comes from a process of its own, which shares the machine with the server: a part of what it costs is its own work,
which `idle` shows, a process that only computes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gramlet import Client

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.e2e.cluster import SERVICES, Cluster
from tests.e2e.http2 import FLOODS, Connection

PAUSE = 0.02
"""Seconds between two good calls."""


def main(arguments: list[str] | None = None) -> None:
    """Prints a row for each flood and way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--flood", nargs=2, metavar=("ADDRESS", "KIND"), help="be the flood")
    chosen = parser.parse_args(arguments)
    if chosen.flood:
        flood(*chosen.flood, chosen.seconds)
        return
    with tempfile.TemporaryDirectory() as name, Cluster(Path(name)) as cluster:
        server = cluster.server("all", "--weights=random:0", f"--store={name}/store")
        server.wait_until_ready()
        envoy = cluster.envoy(**{service: [server.address] for service in SERVICES})
        envoy.wait_for_replicas(feature=1)
        for way, address in (("straight", server.address), ("envoy", envoy.address)):
            latencies(address, 1.0)  # the first calls are slower
            for kind in ("idle", *FLOODS):
                print(json.dumps(measure(way, address, kind, chosen.seconds, chosen.rounds)), flush=True)


def measure(way: str, address: str, kind: str, seconds: float, rounds: int) -> dict[str, object]:
    """The row of a flood."""
    quiet: list[float] = []
    beside: list[float] = []
    floods = []
    for _ in range(rounds):
        quiet += latencies(address, seconds)
        command = [sys.executable, __file__, "--flood", address, kind, "--seconds", str(seconds + 1)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()  # it has begun
            beside += latencies(address, seconds)
            floods.append(json.loads(process.communicate()[0]))
    return {
        "bench": "floods",
        "way": way,
        "flood": kind,
        **{f"quiet_{name}": value for name, value in percentiles(quiet).items()},
        **{f"beside_{name}": value for name, value in percentiles(beside).items()},
        "ratio_p50": round(statistics.median(beside) / statistics.median(quiet), 2),
        **{name: max(each[name] for each in floods) for name in ("frames", "ended_after_seconds")},
    }


def latencies(address: str, seconds: float, token: str | None = None, pause: float = PAUSE) -> list[float]:
    """Of good calls, none of which is tried twice."""
    found, until = [], time.monotonic() + seconds
    with Client(address, token=token, patience=0.0) as client:
        client.model()
        while time.monotonic() < until:
            began = time.monotonic()
            client.model()
            found.append(time.monotonic() - began)
            time.sleep(pause)
    return found


def flood(address: str, kind: str, seconds: float) -> None:
    """Sends frames until the time is over or the connection has ended; prints how many, and when it ended."""
    began, sent = time.monotonic(), 0
    print("begun", flush=True)
    if kind == "idle":
        while time.monotonic() < began + seconds:
            sent += 1
        print(json.dumps({"frames": 0, "ended_after_seconds": 0.0}))
        return
    ended = 0.0
    with Connection(address) as connection:
        frames = FLOODS[kind] * 500
        while time.monotonic() < began + seconds:
            if not connection.send(frames):
                ended = time.monotonic() - began
                break
            sent += 500
    print(json.dumps({"frames": sent, "ended_after_seconds": round(ended, 2)}))


def percentiles(found: list[float]) -> dict[str, float]:
    """In milliseconds."""
    cuts = statistics.quantiles(found, n=100)
    wanted = {"p50": cuts[49], "p99": cuts[98], "max": max(found)}
    return {"calls": len(found), **{f"{name}_ms": round(1e3 * value, 1) for name, value in wanted.items()}}


if __name__ == "__main__":
    main()
