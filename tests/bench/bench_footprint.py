"""Peak memory of a stylization beside the direct loop's, and seconds from start to ready.

python tests/bench/bench_footprint.py [peak start] [--size 1024]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from gramlet import Client

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.bench.bench_stylize import SAMPLES, WEIGHTS, direct, picture
from tests.bench.rows import Row, add_parts, measured
from tests.e2e.cluster import Cluster, GramletServer

MIB = 2**20
THREADS = {"OMP_NUM_THREADS": str(os.cpu_count())}


def main(arguments: list[str] | None = None) -> list[Row]:
    """Runs the rows, prints each, and returns them."""
    parser = argparse.ArgumentParser()
    add_parts(parser, PARTS)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--iterations", type=int, default=4)
    return measured(PARTS, parser.parse_args(arguments))


def status(process: int, line: str) -> int:
    """A number of bytes from /proc: VmHWM is the peak of resident memory."""
    found = re.search(rf"{line}:\s*(\d+) kB", Path(f"/proc/{process}/status").read_text())
    assert found
    return int(found[1]) * 1024


def pictures(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Content and style."""
    return picture(SAMPLES / "content/tubingen.jpg", size), picture(SAMPLES / "style/starry_night.jpg", size)


def peak_of_direct(size: int, iterations: int) -> int:
    """Bytes, in the process that this runs in."""
    direct()(*pictures(size), iterations)
    return status(os.getpid(), "VmHWM")


def peak(cluster: Cluster, chosen: argparse.Namespace) -> Iterator[Row]:
    """Peak resident memory of whole processes: the direct loop's, and a server's with everything in it."""
    # A process that starts from nothing: what this one has loaded already would count.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        theirs = pool.apply(peak_of_direct, (chosen.size, chosen.iterations))
    yield {"bench": "footprint", "way": "direct", "size": chosen.size, "peak_mib": theirs // MIB}
    for precision in ("float32", "bfloat16"):
        server = serve(cluster, "feature", "stylize", f"--precision={precision}")
        with Client(server.address) as client:
            content, style = pictures(chosen.size)
            options = {"preset": "classic", "size": chosen.size, "iterations": chosen.iterations}
            for _ in client.stylize(content, style, **options):
                pass
        ours = status(pid(server), "VmHWM")
        server.stop()
        row = {"bench": "footprint", "way": f"one {precision}", "size": chosen.size, "peak_mib": ours // MIB}
        yield row | {"times_direct": round(ours / theirs, 2)}


def start(cluster: Cluster, chosen: argparse.Namespace) -> Iterator[Row]:
    """Seconds from the command to SERVING, weights on disk."""
    for services in (("feature",), ("feature", "stylize", "train", "embed")):
        began = time.perf_counter()
        server = serve(cluster, *services)
        yield {"bench": "start", "services": " ".join(services), "seconds": round(time.perf_counter() - began, 2)}
        server.stop()


def serve(cluster: Cluster, *arguments: str) -> GramletServer:
    """A server that is ready."""
    store = f"--store={cluster.folder / 'store'}"
    server = cluster.server(*arguments, f"--weights={WEIGHTS}", store, environment=THREADS)
    server.wait_until_ready()
    return server


def pid(server: GramletServer) -> int:
    """Of its process."""
    assert server.process
    return server.process.pid


PARTS: dict[str, Callable[[Cluster, argparse.Namespace], Iterator[Row]]] = {"peak": peak, "start": start}

if __name__ == "__main__":
    main()
