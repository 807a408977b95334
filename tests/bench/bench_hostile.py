"""Good callers among hostile ones, straight and through Envoy: errors, latency against a quiet server, and memory.

    python tests/bench/bench_hostile.py [--minutes 20] [--quiet-minutes 2]
    python tests/bench/bench_hostile.py --each [KIND ...] [--seconds 10]

One `gramlet-server all` with random weights and named tokens, an Envoy with docker/envoy.yaml before it, two good names
that call at a steady rate (alice straight, bob through Envoy), and a process of attackers that has a token of its own.
Attackers, server and callers share the machine, so that a part of the latency is the attackers' own work.

With --each, the kinds of attack one by one, straight: `GetModel` every 50 ms, quiet and beside the attack in turns. It
takes 2 ms, so it shows how long the whole server is held up.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gramlet
import numpy as np
from gramlet.embed.types import Method
from gramlet.errors import GramletError
from gramlet_server.runtime.tokens import new_token

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.bench.bench_floods import latencies, percentiles
from tests.bench.hostile_attackers import KINDS
from tests.e2e.cluster import SERVICES, Cluster, Daemon, Envoy, GramletServer

ATTACKERS = Path(__file__).with_name("hostile_attackers.py")
EVERY = 0.5
"""Seconds between two calls of a good name."""
SETTLING = 30.0
"""Seconds before the first measurement, and of the last one."""
PAUSE = 0.05
"""Seconds between two calls with --each."""
LIMITS = (
    *("--name-calls=64", "--name-calls-per-second=50", "--name-runs=4", "--name-store-bytes=64MiB"),
    *("--memory-bytes=4GiB", "--first-message-seconds=5", "--idle-seconds=30"),
)


class GoodCaller(threading.Thread):
    """Makes calls at a steady rate, none of them twice.

    Args:
        path: How the server is reached, for the report.
        address: Where.
        token: Of a good name.

    Attributes:
        seconds: Of each call, by phase and kind.
        errors: By phase and error.
    """

    def __init__(self, path: str, address: str, token: str) -> None:
        super().__init__(daemon=True)
        self.path = path
        self.phase = "warm-up"
        self.seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.errors: Counter[str] = Counter()
        self._client = gramlet.Client(address, token=token, patience=0.0)
        self._random = np.random.default_rng(hash(path) % 2**32)
        self._over = threading.Event()

    def run(self) -> None:
        calls: tuple[Callable[[], object], ...] = (self.model, self.extract, self.runs, self.stylize, self.map)
        due = time.monotonic()
        number = 0
        while not self._over.is_set():
            kind = calls[number % len(calls)]
            phase, began = self.phase, time.monotonic()
            try:
                kind()
            except GramletError as error:
                self.errors[f"{phase} {kind.__name__} {type(error).__name__}: {error}"] += 1
            self.seconds[phase, kind.__name__].append(time.monotonic() - began)
            number += 1
            due = max(due + EVERY, time.monotonic() - 2 * EVERY)
            self._over.wait(max(0.0, due - time.monotonic()))

    def stop(self) -> None:
        """Ends after the call under way."""
        self._over.set()
        self.join(60)
        self._client.close()

    def model(self) -> object:
        return self._client.model()

    def extract(self) -> object:
        return list(self._client.features([self._picture()], stages=["layer1"]))

    def runs(self) -> object:
        return list(self._client.runs())

    def stylize(self) -> None:
        run_id = f"{self.path}-{self._random.integers(2**60)}"
        self._client.stylize(self._picture(), self._picture(), size=64, iterations=3, run_id=run_id).result()
        self._client.run(run_id).delete()

    def map(self) -> None:
        map_id = f"{self.path}-{self._random.integers(2**60)}"
        vectors = list(self._random.standard_normal((30, 8)).astype(np.float32))
        self._client.embed(vectors, method=Method.PCA, map_id=map_id).result()
        self._client.delete_map(map_id)

    def _picture(self) -> Any:
        return self._random.random((3, 64, 64), dtype=np.float32)


class Memory(threading.Thread):
    """Resident megabytes of processes, every five seconds."""

    def __init__(self, **processes: Daemon) -> None:
        super().__init__(daemon=True)
        self._processes = processes
        self.megabytes: dict[str, list[int]] = defaultdict(list)
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(5.0):
            for name, process in self._processes.items():
                self.megabytes[name].append(process.resident_bytes >> 20)


def measure(folder: Path, minutes: float, quiet_minutes: float) -> list[dict[str, Any]]:
    """The rows of one run."""
    with Cluster(folder) as cluster:
        server, tokens = _server(cluster)
        envoy = cluster.envoy(**{name: [server.address] for name in SERVICES})
        envoy.wait_for_replicas(feature=1, stylize=1, train=1, embed=1)
        callers = [
            GoodCaller("straight", server.address, tokens["alice"]),
            GoodCaller("envoy", envoy.address, tokens["bob"]),
        ]
        memory = Memory(server=server, envoy=envoy)
        for thread in (*callers, memory):
            thread.start()
        time.sleep(SETTLING)  # the first calls load what the others find
        for caller in callers:
            caller.phase = "quiet"
        time.sleep(60 * quiet_minutes)
        began = time.monotonic()
        hostile = _attack(server, envoy, tokens["mallory"], callers, minutes)
        seconds = time.monotonic() - began
        for caller in callers:
            caller.phase = "after"
        time.sleep(SETTLING)
        memory.over.set()
        for caller in callers:
            caller.stop()
        bugs = re.findall(r" (INTERNAL|UNKNOWN) .*", server.log.read_text())
        exit_code = server.stop()
    rows = [row for caller in callers for row in _rows(caller)]
    found = {"bench": "hostile", "seconds": round(seconds), "bugs": len(bugs), "exit_code": exit_code, **hostile}
    return [*rows, {**found, **{f"{name}_mb": _level(values) for name, values in memory.megabytes.items()}}]


def measure_each(folder: Path, kinds: Sequence[str], seconds: float) -> Iterator[dict[str, Any]]:
    """A row for each kind of attack."""
    with Cluster(folder) as cluster:
        server, tokens = _server(cluster)
        latencies(server.address, SETTLING, tokens["alice"], PAUSE)
        for kind in kinds:
            load = os.getloadavg()[0]
            quiet = percentiles(latencies(server.address, seconds, tokens["alice"], PAUSE))
            command = _attackers(tokens["mallory"], server.address, only=kind)
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as attackers:
                beside = percentiles(latencies(server.address, seconds, tokens["alice"], PAUSE))
                attackers.send_signal(signal.SIGTERM)
                found = json.loads(attackers.communicate(timeout=60)[0])
            row = {"attack": kind, "attacks": sum(found["attacks"].values()), "load": round(load, 1)}
            yield {"bench": "hostile", **row, "quiet": quiet, "beside": beside}


def _server(cluster: Cluster) -> tuple[GramletServer, dict[str, str]]:
    """A server that is ready, and the tokens of its callers."""
    tokens = {name: new_token(name) for name in ("alice", "bob", "mallory")}
    file = cluster.folder / "tokens"
    file.write_text("".join(f"{line}\n" for _, line in tokens.values()))
    store = f"--store={cluster.folder / 'store'}"
    server = cluster.server("all", "--weights=random:0", store, f"--token-file={file}", *LIMITS)
    server.wait_until_ready()
    return server, {name: token for name, (token, _) in tokens.items()}


def _attackers(token: str, address: str, *others: str, only: str = "") -> list[str]:
    """Their command line. A token may begin like an option."""
    options = ["--only", only] if only else []
    return ["nice", sys.executable, str(ATTACKERS), *options, "--", address, token, *others]


def _attack(
    server: GramletServer, envoy: Envoy, token: str, callers: list[GoodCaller], minutes: float
) -> dict[str, Any]:
    """Attacks for some minutes; returns what the attackers report."""
    command = _attackers(token, server.address, envoy.address)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as attackers:
        for caller in callers:
            caller.phase = "hostile"
        time.sleep(60 * minutes)
        attackers.send_signal(signal.SIGTERM)
        found: dict[str, Any] = json.loads(attackers.communicate(timeout=60)[0])
    return found


def _rows(caller: GoodCaller) -> list[dict[str, Any]]:
    rows = []
    for kind in sorted({kind for _, kind in caller.seconds}):
        row: dict[str, Any] = {"bench": "hostile", "path": caller.path, "call": kind}
        for phase in ("quiet", "hostile", "after"):
            found = caller.seconds[phase, kind] or [0.0]
            errors = sum(count for text, count in caller.errors.items() if text.startswith(f"{phase} {kind} "))
            p99 = statistics.quantiles([*found, *found], n=100)[98]
            row[phase] = {
                "calls": len(found),
                "errors": errors,
                "median_ms": round(1e3 * statistics.median(found)),
                "p99_ms": round(1e3 * p99),
            }
        row["p99_ratio"] = round(row["hostile"]["p99_ms"] / max(1, row["quiet"]["p99_ms"]), 2)
        rows.append(row)
    return [*rows, {"bench": "hostile", "path": caller.path, "errors": dict(caller.errors)}]


def _level(megabytes: list[int]) -> dict[str, int]:
    """The memory in tenths of the time: medians, and the most."""
    tenth = max(1, len(megabytes) // 10)
    medians = [int(statistics.median(megabytes[at : at + tenth])) for at in range(0, len(megabytes), tenth)]
    return {"first": medians[0], "middle": medians[len(medians) // 2], "last": medians[-1], "most": max(megabytes)}


def main(arguments: list[str] | None = None) -> None:
    """Prints a row for each path and kind of call, and one for all of it; or one for each kind of attack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0, help="of attacks")
    parser.add_argument("--quiet-minutes", type=float, default=2.0, help="without, before")
    parser.add_argument("--each", nargs="*", choices=KINDS, metavar="KIND", help="one kind after the other, or all")
    parser.add_argument("--seconds", type=float, default=10.0, help="with --each: quiet, and of each kind")
    parsed = parser.parse_args(arguments)
    random.seed(0)
    with tempfile.TemporaryDirectory(prefix="gramlet-hostile-") as name:
        folder = Path(name)
        if parsed.each is None:
            rows: Iterable[dict[str, Any]] = measure(folder, parsed.minutes, parsed.quiet_minutes)
        else:
            rows = measure_each(folder, parsed.each or KINDS, parsed.seconds)
        for row in rows:
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
