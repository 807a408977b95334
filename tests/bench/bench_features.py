"""Pooled features of JPEG files beside bare torch loops and other servers, in one run: pictures a second, p50, p99.

    python tests/bench/bench_features.py [--ways bare,float32,bfloat16,litserve,ray] [--callers 1,8,32] [--sizes 224]

The bare loops are torchvision's network in inference mode: one picture at a time, and in batches of several sizes, in
either memory format, decoding ahead on all cores; the best of them counts. Peers serve the same network with the same
preprocessing; gramlet is asked again beside each. gramlet's cache of features is off. Every caller sends one picture a
call and waits for its answer.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gramlet import Client
from gramlet.feature.types import Features
from gramlet.types import Resize, ResizeMode

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.bench.embedding import WEIGHTS, Embedder, jpegs
from tests.e2e.cluster import Cluster, free_port

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PEERS = {"litserve": "LitServe", "ray": "Ray Serve"}
BATCHES = (8, 16, 32)
PEER_ROUNDS = 2
PASS_PIXELS = 2 * 2**20
"""Neither the bare loop nor gramlet puts more into one pass."""

Call = Callable[[bytes], int]
"""Sends a picture; returns how many shared the pass that made the answer, 0 if that is not told."""


def main(arguments: list[str] | None = None) -> None:
    """Measures, and prints every row as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", default="bare,float32,bfloat16,litserve,ray")
    parser.add_argument("--callers", default="1,8,32")
    parser.add_argument("--sizes", default="224")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=96, help="with 32 callers; fewer with fewer, or larger pictures")
    parser.add_argument("--device", default="cpu", help="of gramlet and of the bare loops")
    chosen = parser.parse_args(arguments)
    torch.set_default_device(chosen.device)
    ways = chosen.ways.split(",")
    callers = [int(number) for number in chosen.callers.split(",")]
    with tempfile.TemporaryDirectory() as folder, Cluster(Path(folder)) as cluster:
        environment = {"OMP_NUM_THREADS": str(os.cpu_count()), "GRAMLET_DEVICE": chosen.device}
        flags = (f"--weights={WEIGHTS}", "--feature-cache-bytes=0")
        addresses = {}
        for way in ways:
            if way in ("float32", "bfloat16"):
                server = cluster.server("feature", *flags, f"--precision={way}", environment=environment)
                server.wait_until_ready()
                addresses[way] = server.address
        for size in map(int, chosen.sizes.split(",")):
            share = (224 / size) ** 2
            measured = Measured(size)
            compare(measured, "bare" in ways, addresses, callers, chosen.rounds, chosen.calls * share)
            for name in PEERS:
                if name in ways:
                    compare_peer(measured, name, Path(folder), addresses, callers, chosen.calls * share)


class Measured:
    """What was measured at one size of pictures, and what it is compared with."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.bare: dict[tuple[bool, int], list[float]] = defaultdict(list)

    def best_bare(self) -> float:
        """Of all batch sizes and memory formats."""
        return max(statistics.median(rates) for rates in self.bare.values())

    def row(self, way: str, rate: float, **more: Any) -> None:
        """Prints a row."""
        row: dict[str, Any] = {"bench": "features", "size": self.size, "way": way, **more}
        row["pictures_per_second"] = round(rate, 2)
        if self.bare:
            ones = [statistics.median(rates) for (_, batch), rates in self.bare.items() if batch == 1]
            row["times_best_bare_loop"] = round(rate / self.best_bare(), 2)
            row["times_batch_of_one"] = round(rate / max(ones), 2)
        print(json.dumps(row), flush=True)


class Served:
    """What callers saw of one server."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.seconds: list[float] = []
        self.batches: list[int] = []

    def measure(self, call: Call, files: Sequence[bytes], callers: int) -> None:
        """Sends files from so many callers."""

        def timed(file: bytes) -> tuple[float, int]:
            began = time.perf_counter()
            batch = call(file)
            return time.perf_counter() - began, batch

        with ThreadPoolExecutor(callers) as pool:
            began = time.perf_counter()
            answers = list(pool.map(timed, files))
            self.rates.append(len(files) / (time.perf_counter() - began))
        self.seconds += [seconds for seconds, _ in answers]
        self.batches += [batch for _, batch in answers if batch]

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    def figures(self) -> dict[str, float]:
        """Of the calls."""
        p50, p99 = np.percentile(self.seconds, [50, 99])
        figures = {"p50_seconds": round(float(p50), 4), "p99_seconds": round(float(p99), 4)}
        return figures | ({"mean_batch": round(statistics.mean(self.batches), 1)} if self.batches else {})


def compare(
    measured: Measured, bare: bool, addresses: dict[str, str], callers: Sequence[int], rounds: int, calls: float
) -> None:
    """The bare loops and gramlet, taking turns."""
    size = measured.size
    files = jpegs(max(8, count(calls, max(callers))), size * 8 // 7)
    batches = [1, *(batch for batch in BATCHES if batch * size * size <= PASS_PIXELS)]
    if batches == [1]:
        batches += [max(2, PASS_PIXELS // size**2)]
    embedders = {last: Embedder(last) for last in (True, False)} if bare else {}
    loops = [(last, batch) for last in embedders for batch in (batches if last else batches[:2])]
    served: dict[tuple[str, int], Served] = defaultdict(Served)
    for number in range(rounds):
        if number == 1:  # the best of the first round, and the loop of one picture, go on
            loops = sorted(loops, key=lambda loop: (loop[1] == 1, measured.bare[loop][0]))[-4:]
        for last, batch in loops:
            measured.bare[last, batch].append(bare_rate(embedders[last], files, batch, size))
            progress(f"bare, {batch}, channels_last={last}", measured.bare[last, batch])
        for way, address in addresses.items():
            with gramlet(address, size) as call:
                call(files[0])
                for each in callers:
                    served[way, each].measure(call, files[: count(calls, each)], each)
                    progress(f"{way}, {each} callers", served[way, each].rates)
    for (last, batch), rates in measured.bare.items():
        layout = "channels_last" if last else "contiguous"
        measured.row(f"bare loop, batches of {batch}, {layout}", statistics.median(rates))
    for (way, each), found in served.items():
        measured.row(f"gramlet {way}", found.rate, callers=each, **found.figures(), **against(served, way, each))


def progress(what: str, rates: Sequence[float]) -> None:
    """For whoever watches, and for a run that is cut short: rates as they come."""
    print(f"{what}: {rates[-1]:.2f} pictures/s", file=sys.stderr, flush=True)


def against(served: dict[tuple[str, int], Served], way: str, callers: int) -> dict[str, float]:
    """How a reduced precision compares with float32."""
    if way == "float32" or ("float32", callers) not in served:
        return {}
    return {"times_own_float32": round(served[way, callers].rate / served["float32", callers].rate, 2)}


def compare_peer(
    measured: Measured, name: str, folder: Path, addresses: dict[str, str], callers: Sequence[int], calls: float
) -> None:
    """One peer, and gramlet in float32 after it, taking turns: a peer's processes keep a core busy even when idle."""
    files = jpegs(count(calls, max(callers)), measured.size * 8 // 7)
    theirs, ours = ({each: Served() for each in callers} for _ in range(2))
    try:
        for _ in range(PEER_ROUNDS):
            with peer(name, folder) as call:
                measure_all(theirs, call, files, calls)
            if "float32" in addresses:
                with gramlet(addresses["float32"], measured.size) as call:
                    call(files[0])
                    measure_all(ours, call, files, calls)
    except Exception as error:  # a peer that does not run here must not cost the other rows
        print(json.dumps({"bench": "features", "way": PEERS[name], "does_not_run_here": str(error)[-300:]}), flush=True)
        return
    for each, served in theirs.items():
        own = ours[each].rates
        more = {"gramlet_is_times_that": round(ours[each].rate / served.rate, 2)} if own else {}
        measured.row(PEERS[name], served.rate, callers=each, **served.figures(), **more)


def measure_all(served: dict[int, Served], call: Call, files: Sequence[bytes], calls: float) -> None:
    """One round of each number of callers."""
    for callers, found in served.items():
        found.measure(call, files[: count(calls, callers)], callers)


def count(calls: float, callers: int) -> int:
    """How many pictures so many callers send: a few each, and whole passes."""
    return max(callers, 4, round(calls * {1: 0.15, 8: 0.5}.get(callers, 1) / 8) * 8)


def bare_rate(embedder: Embedder, files: Sequence[bytes], batch: int, size: int) -> float:
    """Pictures a second: of whole passes, but the first."""
    embedder.embed_all(files[: min(batch, 2)], batch, size)
    some = files[: max(2, len(files) // 8)] if batch == 1 else files[: max(1, len(files) // 2 // batch) * batch]
    began = time.perf_counter()
    embedder.embed_all(some, batch, size)
    return len(some) / (time.perf_counter() - began)


@contextmanager
def gramlet(address: str, size: int) -> Iterator[Call]:
    """Through the SDK."""
    resize = Resize(ResizeMode.CENTER_CROP, size)
    with Client(address) as client:

        def call(file: bytes) -> int:
            found = client.features(file, stages=["avgpool"], pooled=True, resize=resize)
            assert isinstance(found, Features)
            return found.timing.batch_size

        yield call


@contextmanager
def peer(name: str, folder: Path) -> Iterator[Call]:
    """A peer's server, from its own folder of packages, and the way to it."""
    packages = Path(os.environ.get("GRAMLET_BENCH_PEERS", ROOT / "build/peers")) / name
    if not packages.is_dir():
        raise FileNotFoundError(f"{packages} is absent: make build/peers/.installed")
    port, log = free_port(), folder / f"{name}.log"
    path = os.pathsep.join([str(packages), str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(os.cpu_count())}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, HERE / f"peer_{name}.py", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, cwd=folder, start_new_session=True
        )
    try:
        call = over_http(name, port)
        wait_for_peer(call, process, log)
        yield call
    finally:
        process.send_signal(signal.SIGINT if name == "litserve" else signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def wait_for_peer(call: Call, process: subprocess.Popen[bytes], log: Path) -> None:
    """Waits until it answers with features."""
    deadline, file = time.monotonic() + 180, jpegs(1)[0]
    while True:
        try:
            call(file)
            return
        except (OSError, http.client.HTTPException, AssertionError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{error}: {log.read_text()[-250:]}") from None
            time.sleep(0.3)


def over_http(name: str, port: int) -> Call:
    """A call of a peer; each thread keeps its connection."""
    own = threading.local()

    def call(file: bytes) -> int:
        connection = vars(own).get("connection")
        if connection is None:
            connection = own.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        try:
            if name == "litserve":
                body = json.dumps({"jpeg": base64.b64encode(file).decode()})
                connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
            else:
                connection.request("POST", "/", file)
            answer = connection.getresponse()
            content = answer.read()
        except Exception:
            own.connection = None
            raise
        assert answer.status == 200, content[-200:]
        pooled = base64.b64decode(json.loads(content)["pooled"]) if name == "litserve" else content
        assert np.frombuffer(pooled, np.float32).shape == (2048,)
        return 0

    return call


if __name__ == "__main__":
    main()
