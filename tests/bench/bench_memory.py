"""The server's memory over a thousand mixed requests, and what its cache of features saves.

    python tests/bench/bench_memory.py [--requests 1000]

Eight callers send pictures of three sizes, as files and as pixels, one in ten of them broken, one in three seen
before, for pooled features, Gram matrices and activations; every fiftieth request is a stream of gradients. The cache
is small, so that it is full by the first hundred.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from gramlet import Client, GramletError
from gramlet.feature.types import Objective, Style

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.bench.embedding import WEIGHTS, jpegs
from tests.e2e.cluster import Cluster, GramletServer

CALLERS = 8
CACHE = "8MiB"
SIZES = (64, 96, 128)
STAGES = (("layer1", "layer2"), ("layer3",), ("conv1",))
FORMS = ({"pooled": True}, {"gram": True}, {"activations": True})
REPEAT = len(SIZES) * len(STAGES) * len(FORMS)
MARKS = (0.1, 0.5, 1.0)


def main(arguments: list[str] | None = None) -> None:
    """Prints a row at each mark, then the cache's rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000)
    chosen = parser.parse_args(arguments)
    environment = {"OMP_NUM_THREADS": str(os.cpu_count())}
    with tempfile.TemporaryDirectory() as folder, Cluster(Path(folder)) as cluster:
        server = cluster.server(
            "feature", f"--weights={WEIGHTS}", f"--feature-cache-bytes={CACHE}", environment=environment
        )
        server.wait_until_ready()
        memory(server, chosen.requests)
        server.stop()
        cached = cluster.server("feature", f"--weights={WEIGHTS}", environment=environment)
        cached.wait_until_ready()
        cache(cached)


def memory(server: GramletServer, requests: int) -> None:
    """Resident memory after a tenth, a half and all of the requests."""
    files = {size: jpegs(requests // 3 + 1, size) for size in SIZES}
    first = 0

    def request(number: int) -> None:
        random = np.random.default_rng(number)
        if number % 50 == 0:
            gradients(client, SIZES[number % 3], random)
            return
        if random.random() < 1 / 3:
            number = max(1, number - REPEAT)
        size, kind = SIZES[number % 3], number % 10
        picture: bytes | np.ndarray = files[size][number // 3]
        if kind == 0:
            picture = files[size][number // 3][:200]
        elif kind < 4:
            picture = np.random.default_rng(number).random((3, size, size), dtype=np.float32)
        try:
            client.features(picture, stages=STAGES[number // 3 % 3], **FORMS[number // 9 % 3])
        except GramletError:
            assert kind == 0

    with Client(server.address) as client, ThreadPoolExecutor(CALLERS) as pool:
        began, done = time.perf_counter(), 0
        for mark in MARKS:
            upto = round(requests * mark)
            list(pool.map(request, range(done, upto)))
            done, resident = upto, server.resident_bytes
            first = first or resident
            row = {"bench": "memory", "requests": done, "resident_mib": round(resident / 2**20)}
            row |= {"times_first": round(resident / first, 3), "seconds": round(time.perf_counter() - began)}
            print(json.dumps(row), flush=True)


def gradients(client: Client, size: int, random: np.random.Generator) -> None:
    """A few gradients, as a stylization asks for them."""
    content, style, picture = random.random((3, 3, size, size), dtype=np.float32)
    objective = Objective(content, "layer2", 1.0, (Style(style, 1.0),), {"layer1": 1.0, "layer2": 1.0}, 1.0)
    with client.differentiate(objective) as differentiation:
        for _ in range(3):
            picture = picture - 0.01 * np.sign(differentiation.evaluate(picture).gradient)


def cache(server: GramletServer) -> None:
    """The same pictures twice, from one caller."""
    files = jpegs(24)
    with Client(server.address) as client:
        for name in ("first", "again"):
            before = {outcome: hits(server, outcome) for outcome in ("hit", "miss")}
            began = time.perf_counter()
            for file in files:
                client.features(file, stages=["avgpool"], pooled=True)
            seconds = (time.perf_counter() - began) / len(files)
            row = {"bench": "cache", "pictures": name, "seconds_per_picture": round(seconds, 5)}
            found = {outcome: int(hits(server, outcome) - count) for outcome, count in before.items()}
            row |= {"hits": found["hit"], "misses": found["miss"]}
            print(json.dumps(row), flush=True)


def hits(server: GramletServer, outcome: str) -> float:
    """Look-ups in the cache of features with this outcome, as the metrics have them."""
    return server.metric("gramlet_cache_requests_total", cache="features", outcome=outcome)


if __name__ == "__main__":
    main()
