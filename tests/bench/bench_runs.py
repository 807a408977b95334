"""How long a page of 2,000 finished runs takes, and what a finished run keeps in the store.

python tests/bench/bench_runs.py [pages size] [--runs 2000] [--page 50]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from gramlet import Client
from gramlet.run.types import Progress, RunFilter, RunInfo, RunKind, RunState
from gramlet_server.runs.kind import RESULT
from gramlet_server.runs.records import Record, Records
from gramlet_server.runs.run import Run
from gramlet_server.runs.store import Store

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.bench.rows import Row, add_parts, measured
from tests.e2e.cluster import Cluster, variables

ROUNDS = 5


def main(arguments: list[str] | None = None) -> list[Row]:
    """Runs the rows, prints each, and returns them."""
    parser = argparse.ArgumentParser()
    add_parts(parser, PARTS)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--page", type=int, default=50)
    return measured(PARTS, parser.parse_args(arguments))


def pages(cluster: Cluster, chosen: argparse.Namespace) -> Iterator[Row]:
    """A page of the runs of a directory, and of SeaweedFS: the first one, and one in the middle."""
    yield listed("directory", Store.open(str(cluster.folder / "runs")), chosen)
    seaweedfs = cluster.seaweedfs()
    seaweedfs.wait_until_ready()
    with variables(seaweedfs.variables):
        yield listed("SeaweedFS", Store.open("s3://gramlet/runs"), chosen)
    seaweedfs.kill()


def listed(name: str, store: Store, chosen: argparse.Namespace) -> Row:
    """Fills a store with finished runs, and lists them."""
    records = Records(store)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: finish(records, number), range(chosen.runs)))
    wanted = RunFilter(page_size=chosen.page)
    first, seconds = timed(records, wanted)
    for _ in range(chosen.runs // chosen.page // 2):
        later = records.page(wanted)
        wanted = RunFilter(page_size=chosen.page, page_token=later.next_page_token)
    _, middle = timed(records, wanted)
    assert first == chosen.page
    size = {"runs": chosen.runs, "page": chosen.page}
    return {"row": "pages", "store": name, **size, "first_seconds": seconds, "middle_seconds": middle}


def finish(records: Records, number: int) -> None:
    """A finished stylization, as its process leaves it."""
    run = Run.create(records.store, RunKind.STYLIZE.value, f"run-{number}")
    info = RunInfo(run.run_id, RunKind.STYLIZE, created=time.time(), settings="default, 256 px, 300 iterations")
    records.begin(run, Record(info))
    run.put(RESULT, b"{}\n" + bytes(10_000))
    done = RunInfo(**{**vars(info), "state": RunState.SUCCEEDED, "progress": Progress(300, 300), "ended": time.time()})
    records.write(run, Record(done, released=True))


def timed(records: Records, wanted: RunFilter) -> tuple[int, float]:
    """How many runs a page has, and the median of the seconds that it takes."""
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        found = len(records.page(wanted).runs)
        seconds.append(time.perf_counter() - started)
    return found, round(statistics.median(seconds), 3)


def size(cluster: Cluster, chosen: argparse.Namespace) -> Iterator[Row]:
    """What the store keeps of a finished 256 px stylization of noise, whose picture compresses worst."""
    server = cluster.server("all", "--weights=random:0", "--device=cpu", f"--store={cluster.folder / 'size'}")
    server.wait_until_ready()
    content, style = np.random.default_rng(0).random((2, 3, 256, 256), dtype=np.float32)
    with Client(server.address) as client:
        run = client.stylize(content, style, size=256, iterations=4, state_seconds=0.1, run_id="finished")
        png = len(run.result().png)
        yield {"row": "size", "pixels": 256, "bytes": client.run("finished").info().bytes, "png": png}
    server.stop()


PARTS: dict[str, Callable[[Cluster, argparse.Namespace], Iterator[Row]]] = {"pages": pages, "size": size}

if __name__ == "__main__":
    main()
