"""How long small calls wait beside a caller of large pictures, and what that costs the large caller.

    python tests/bench/bench_turns.py [--work extract|differentiate|descend] [--size 4096x1536] [--before FOLDER]

A server with random weights, and beside it one with the code of another folder, to compare with (`--before`). In turns,
for each: latency of single Extract calls of 224 x 224 pixels, one after the other, alone and beside a caller that has
large pictures worked on without pause; then seconds and processor seconds of each of them, or of each iteration, alone.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from gramlet import Client
from gramlet.feature.descent_types import DescentIteration, DescentStart
from gramlet.feature.types import Extraction, Form, Objective, Style
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.e2e.cluster import Cluster, GramletServer

WHAT = Extraction(("avgpool",), (Form.POOLED,))
PAUSE = 0.05
"""Seconds between two small calls: beside a caller that never pauses, one without pauses has half of the device."""


def main(arguments: list[str] | None = None) -> None:
    """Prints a row for each kind of server."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=30, help="small calls, quiet and beside, in a round")
    parser.add_argument("--pictures", type=int, default=5, help="large pictures in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", choices=LARGE, default="extract", help="on the large pictures")
    parser.add_argument("--size", default="4096x1536", help="of the large pictures")
    parser.add_argument("--before", type=Path, help="the services/ folder of other code to compare with")
    chosen = parser.parse_args(arguments)
    width, height = map(int, chosen.size.split("x"))
    environments = {"now": {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(os.cpu_count()))}}
    if chosen.before:
        path = f"{chosen.before}:{os.environ.get('PYTHONPATH', '')}"
        environments["before"] = {**environments["now"], "PYTHONPATH": path}
    with tempfile.TemporaryDirectory() as name, Cluster(Path(name)) as cluster:
        options = ("--weights=random:0", "--feature-cache-bytes=0", "--max-network-pixels=9437184")
        servers = {
            code: cluster.server("feature", *options, environment=environment)
            for code, environment in environments.items()
        }
        for server in servers.values():
            server.wait_until_ready()
        large_work = LARGE[chosen.work]
        found = measure(servers, large_work, jpeg(width, height), chosen.calls, chosen.pictures, chosen.rounds)
    for code, numbers in found.items():
        print(json.dumps({"bench": "turns", "code": code, "work": chosen.work, "size": chosen.size, **numbers}))


def measure(
    servers: dict[str, GramletServer], large_work: LargeWork, picture: bytes, calls: int, pictures: int, rounds: int
) -> dict[str, dict[str, float]]:
    """Numbers for each server, from as many rounds, in each of which all servers have their turn."""
    quiet, beside, seconds, cpu = (defaultdict[str, list[float]](list) for _ in range(4))
    for server in servers.values():
        large_work(server.address, picture, 1, threading.Event())
    for _ in range(rounds):
        for code, server in servers.items():
            quiet[code] += small_calls(server.address, calls)
            ended = threading.Event()
            with ThreadPoolExecutor(1) as pool:
                large = pool.submit(large_work, server.address, picture, 10**6, ended)
                time.sleep(1.0)
                beside[code] += small_calls(server.address, calls)
                ended.set()
                large.result()
        for code, server in servers.items():
            before = processor_seconds(server)
            seconds[code] += large_work(server.address, picture, pictures, threading.Event())
            cpu[code].append((processor_seconds(server) - before) / pictures)
    return {
        code: {
            **{f"quiet_{key}": value for key, value in percentiles(quiet[code]).items()},
            **{f"beside_{key}": value for key, value in percentiles(beside[code]).items()},
            "large_seconds": round(statistics.median(seconds[code]), 3),
            "large_processor_seconds": round(statistics.median(cpu[code]), 3),
        }
        for code in servers
    }


def processor_seconds(server: GramletServer) -> float:
    """Of the server's own process so far, in user mode."""
    assert server.process is not None
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) / os.sysconf("SC_CLK_TCK")


def jpeg(width: int, height: int) -> bytes:
    """A picture with smooth structure, as photographs have."""
    small = np.random.default_rng(0).integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
    return file.getvalue()


def small_calls(address: str, calls: int) -> list[float]:
    """Latencies of single calls, one after the other."""
    pictures = np.random.default_rng(1).random((16, 3, 224, 224), dtype=np.float32)
    latencies = []
    with Client(address) as client:
        list(client.features([pictures[0]], stages=["avgpool"]))
        for number in range(calls):
            began = time.monotonic()
            list(client.extract([pictures[number % 16]], WHAT))
            latencies.append(time.monotonic() - began)
            time.sleep(PAUSE)
    return latencies


def extractions(address: str, picture: bytes, count: int, ended: threading.Event) -> list[float]:
    """Seconds of each picture of a stream that always has the next one waiting, until it is to end."""

    def pictures() -> Iterator[bytes]:
        yield picture
        for _ in itertools.takewhile(lambda _: not ended.is_set(), range(count - 1)):
            yield picture

    with Client(address) as client:
        return list(intervals(client.extract(pictures(), WHAT, in_flight=2)))


def gradients(address: str, picture: bytes, count: int, ended: threading.Event) -> list[float]:
    """Seconds of each gradient, one after the other."""
    with Client(address) as client, client.differentiate(objective(picture)) as differentiation:
        point = np.asarray(Image.open(io.BytesIO(picture)), np.float32).transpose(2, 0, 1) / 255
        wanted = itertools.takewhile(lambda _: not ended.is_set(), range(count))
        return list(intervals(differentiation.evaluate(point) for _ in wanted))


def iterations(address: str, picture: bytes, count: int, ended: threading.Event) -> list[float]:
    """Seconds of each iteration of a descent."""
    with Client(address) as client, client.descend(DescentStart(objective=objective(picture), iterations=count)) as run:
        events = (event for event in run if isinstance(event, DescentIteration))
        return list(intervals(itertools.takewhile(lambda _: not ended.is_set(), events)))


def objective(picture: bytes) -> Objective:
    """That of a stylization."""
    stages = dict.fromkeys(("conv1", "layer1", "layer2", "layer3"), 1.0)
    return Objective(
        content=picture, content_stage="layer2", content_weight=1.0, styles=(Style(picture),), style_stages=stages
    )


def intervals(results: Iterator[object]) -> Iterator[float]:
    """Seconds from each result to the next."""
    began = time.monotonic()
    for _ in results:
        now = time.monotonic()
        yield now - began
        began = now


LargeWork = Callable[[str, bytes, int, threading.Event], list[float]]
"""Seconds of each piece of large work for a server: its address, the picture, how many pieces, and when to end."""
LARGE: dict[str, LargeWork] = {"extract": extractions, "differentiate": gradients, "descend": iterations}


def percentiles(latencies: list[float]) -> dict[str, float]:
    """In milliseconds."""
    cuts = statistics.quantiles(latencies, n=100)
    return {"calls": len(latencies), "p50_ms": round(1e3 * cuts[49]), "p99_ms": round(1e3 * cuts[98])}


if __name__ == "__main__":
    main()
