"""What a busy program on the same machine costs a stylization, by how long OpenMP's threads spin (`process/openmp.py`).

    python tests/bench/bench_neighbor.py [--spins 300000,100000,30000,10000,3000,0] [--size 256] [--rounds 2]

For each number of spins a server of its own: iterations a second alone, and beside a program that keeps one core busy.
300,000 are GNU OpenMP's own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.bench.bench_company import iterations
from tests.bench.embedding import WEIGHTS
from tests.e2e.cluster import Cluster

BUSY = [sys.executable, "-c", "while True: pass"]


def main(arguments: list[str] | None = None) -> None:
    """Prints a row for each number of spins."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spins", default="300000,100000,30000,10000,3000,0")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--weights", default=str(WEIGHTS))
    chosen = parser.parse_args(arguments)
    every = chosen.spins.split(",")
    found: dict[str, tuple[list[float], list[float]]] = {spins: ([], []) for spins in every}
    for _ in range(chosen.rounds):
        for spins in every:
            with tempfile.TemporaryDirectory() as name, Cluster(Path(name)) as cluster:
                environment = {"GOMP_SPINCOUNT": spins, "OMP_NUM_THREADS": str(os.cpu_count())}
                options = (f"--weights={chosen.weights}", f"--store={name}/store")
                server = cluster.server("feature", "stylize", *options, environment=environment)
                server.wait_until_ready()
                iterations(server.address, chosen.size, 1.0)  # the first is slower
                alone, beside = found[spins]
                alone.append(iterations(server.address, chosen.size, chosen.seconds))
                with subprocess.Popen(BUSY) as neighbor:
                    beside.append(iterations(server.address, chosen.size, chosen.seconds))
                    neighbor.kill()
    for spins, (alone, beside) in found.items():
        row = {"alone": round(statistics.median(alone), 2), "beside": round(statistics.median(beside), 2)}
        print(json.dumps({"bench": "neighbor", "spins": int(spins), "size": chosen.size, **row}), flush=True)


if __name__ == "__main__":
    main()
