"""How much of its speed a stylization keeps beside callers who extract features as fast as they can.

    python tests/bench/bench_company.py [--size 256] [--seconds 10] [--rounds 2]

Stylization and extraction share one network, on which the scheduler gives turns. In turns: iterations a second alone,
and beside a stream of JPEGs of 256 x 256 pixels for pooled features, which always has a full pass waiting.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from gramlet import Client
from gramlet.feature.types import Extraction, Form
from gramlet.stylize.types import Iteration
from gramlet.types import Resize, ResizeMode

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.bench.embedding import WEIGHTS, jpegs
from tests.e2e.cluster import Cluster

WHAT = Extraction(("avgpool",), (Form.POOLED,), resize=Resize(ResizeMode.CENTER_CROP, 224))
IN_FLIGHT = 48
"""Pictures of the stream under way: three passes on a CPU."""


def main(arguments: list[str] | None = None) -> None:
    """Prints one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--weights", default=str(WEIGHTS))
    chosen = parser.parse_args(arguments)
    environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(os.cpu_count()))}
    with tempfile.TemporaryDirectory() as name, Cluster(Path(name)) as cluster:
        files = jpegs(64)
        options = (f"--weights={chosen.weights}", f"--store={name}/store", "--feature-cache-bytes=0")
        server = cluster.server("feature", "stylize", *options, environment=environment)
        server.wait_until_ready()
        alone, beside, extracted = [], [], []
        iterations(server.address, chosen.size, 1.0)  # the first is slower
        for _ in range(chosen.rounds):
            alone.append(iterations(server.address, chosen.size, chosen.seconds))
            ended = threading.Event()
            with ThreadPoolExecutor(1) as pool:
                stream = pool.submit(extract, server.address, files, ended)
                beside.append(iterations(server.address, chosen.size, chosen.seconds))
                ended.set()
                extracted.append(stream.result())
    row = {
        "bench": "company",
        "size": chosen.size,
        "alone_iterations_per_second": statistics.median(alone),
        "beside_iterations_per_second": statistics.median(beside),
        "share_kept": statistics.median(beside) / statistics.median(alone),
        "extracted_per_second": statistics.median(extracted),
    }
    print(json.dumps({name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()}))


def extract(address: str, files: list[bytes], ended: threading.Event) -> float:
    """Pictures a second, until it is to end."""
    pictures = itertools.takewhile(lambda _: not ended.is_set(), itertools.cycle(files))
    began = time.monotonic()
    with Client(address) as client:
        count = sum(1 for _ in client.extract(pictures, WHAT, in_flight=IN_FLIGHT))
    return count / (time.monotonic() - began)


def iterations(address: str, size: int, seconds: float) -> float:
    """Iterations a second of a stylization, from its first one on."""
    content, style = (np.random.default_rng(seed).random((3, size, size), dtype=np.float32) for seed in (1, 2))
    order = {"size": size, "preset": "classic", "iterations": 10_000}
    with Client(address) as client, client.stylize(content, style, **order) as events:  # type: ignore[arg-type]
        steps = (event for event in events if isinstance(event, Iteration))
        next(steps)
        began = time.monotonic()
        count = sum(1 for _ in itertools.takewhile(lambda _: time.monotonic() - began < seconds, steps))
        return count / (time.monotonic() - began)


if __name__ == "__main__":
    main()
