"""How many pictures a second FeatureService carries on this machine's CUDA device, beside the bare network, in one run.

    python tests/gpu/measure_features.py [--weights PATH] [--out FILE] [--seconds 110] [--dry-run]

Pooled features of ResNet-50 in bfloat16, of JPEG files of 256 x 256 pixels, resized to 224. Servers and clients are
processes of their own, and several clients share the callers. Prints one JSON object a row and, at the end, a table;
writes all rows to a file. Part of check.sh.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gramlet_server.backbone import load_network
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.e2e.cluster import GramletServer, free_port, is_serving

HERE = Path(__file__).parent
CLIENT = HERE.parent / "bench" / "ingress_client.py"
CLIENTS = 4
"""Client processes, where there are so many callers."""
SERVERS = (("default", 1), ("default", 4), ("device", 1))
"""The decoder and the processes of each server."""
CALLERS = (("unary", 1), ("unary", 32), ("unary", 64), ("stream", 1), ("stream", 8))
DRY_CALLERS = {1: CALLERS[::3], 4: CALLERS[:1]}
"""The same in a dry run: several processes have the real network, at which a stream would be slow on a CPU."""
GOALS = {  # of issue 14, on an H100 with 16 cores
    ("default", 4, "unary", 64): "4,000, p99 15 ms over the device's",
    ("default", 1, "stream", 8): "7,500, moonshot 10,000",
}
Row = dict[str, Any]


@dataclass
class Measurement:
    """What is measured, and where.

    Attributes:
        dry: A fake takes the place of CUDA, and everything is small.
        weights: A file, or `random:0`.
        folder: For pictures and logs.
        until: When nothing further begins, by time.monotonic.
    """

    dry: bool
    weights: str
    folder: Path
    until: float
    rows: list[Row] = field(default_factory=list)

    def add(self, **row: Any) -> None:
        """A row."""
        self.rows.append({"bench": "gpu-features", **row})
        print(json.dumps(self.rows[-1]), flush=True)

    @property
    def has_time(self) -> bool:
        """Whether something further may begin."""
        return time.monotonic() < self.until


def main() -> None:
    """Measures, and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="random:0")
    parser.add_argument("--out", type=Path, default=Path("features.json"))
    parser.add_argument("--seconds", type=float, default=110.0, help="after which no further measurement begins")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, small: whether this program runs")
    chosen = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        to = Measurement(chosen.dry_run, chosen.weights, Path(name), began + chosen.seconds)
        write_pictures(to.folder / "pictures")
        bare(to)
        for decoder, workers in SERVERS:
            served(to, decoder, workers)
    seconds = round(time.monotonic() - began)
    chosen.out.write_text(json.dumps({"seconds": seconds, "rows": to.rows}, indent=1) + "\n")
    print_table(to.rows)


def write_pictures(folder: Path, count: int = 64) -> None:
    """JPEG files of 256 x 256 pixels, smooth like photographs: noise of several scales."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        levels = np.zeros((256, 256, 3))
        for side in (4, 16, 64, 256):
            coarse = Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8))
            levels += np.asarray(coarse.resize((256, 256), Image.Resampling.BICUBIC)) / 4
        Image.fromarray(levels.astype(np.uint8)).save(folder / f"{number:03}", "JPEG", quality=90)


def bare(to: Measurement) -> None:
    """The network alone, over pictures that are on the device."""
    device = "cpu" if to.dry else "cuda"
    network = load_network("resnet50", to.weights, device, "bfloat16")
    network.set_arithmetic()
    for batch in (2,) if to.dry else (16, 64, 256):
        pictures = torch.rand(batch, 3, 224, 224, device=device).to(memory_format=torch.channels_last)
        times = 1 if to.dry else 30

        def run(pictures: torch.Tensor = pictures, times: int = times) -> None:
            with torch.inference_mode():
                for _ in range(times):
                    for _, found in network.by_stage(pictures, ["avgpool"]):
                        found.float().mean(dim=(2, 3))
                if not to.dry:
                    torch.cuda.synchronize()

        run()
        began = time.perf_counter()
        run()
        to.add(what="bare network", batch=batch, pictures=round(batch * times / (time.perf_counter() - began), 1))


def served(to: Measurement, decoder: str, workers: int) -> None:
    """A server, with each number of callers."""
    if not to.has_time:
        print(f"left out, because the time is over: {decoder} decoder, {workers} processes", flush=True)
        return
    with ExitStack() as exits:
        server = started(to, decoder, workers, exits)
        server.wait_until_ready()
        for way, callers in DRY_CALLERS[workers] if to.dry else CALLERS:
            if to.has_time:
                found = rate(to, server, way, callers)
                to.add(what="gramlet", decoder=decoder, workers=workers, way=way, callers=callers, **found)


def started(to: Measurement, decoder: str, workers: int, exits: ExitStack) -> GramletServer:
    """A FeatureService that keeps no features."""
    port = free_port()
    program = [sys.executable, "-m", "gramlet_server"]
    if to.dry and workers == 1:
        program = [sys.executable, str(HERE / "dry_server.py")]
    options = {"port": port, "weights": to.weights, "device": "cpu" if to.dry else "cuda", "precision": "bfloat16"}
    options |= {"decoder": decoder, "workers": workers, "feature-cache-bytes": 0}
    command = [*program, "feature", *(f"--{name}={value}" for name, value in options.items())]
    log = to.folder / f"{decoder}-{workers}.log"
    server = GramletServer(command, log, lambda: is_serving(f"127.0.0.1:{port}"), {"OMP_NUM_THREADS": "1"}, port=port)
    server.start()
    exits.callback(server.stop)
    return server


def rate(to: Measurement, server: GramletServer, way: str, callers: int) -> Row:
    """Pictures a second of all clients together, and the slowest 1 % of calls in milliseconds."""
    clients = min(callers, 1 if to.dry else CLIENTS)
    shares = [callers // clients + (number < callers % clients) for number in range(clients)]
    seconds = 0.5 if to.dry else 2.5
    commands = [[CLIENT, server.address, to.folder / "pictures", way, share, seconds] for share in shares]
    processes = [subprocess.Popen([sys.executable, *map(str, command)], stdout=subprocess.PIPE) for command in commands]
    found = [json.loads(process.communicate()[0]) for process in processes]
    row: Row = {"pictures": round(sum(each["pictures"] / each["seconds"] for each in found), 1)}
    if way == "unary":
        row["p99_ms"] = round(1000 * max(each["p99_seconds"] for each in found), 1)
    return row


def print_table(rows: list[Row]) -> None:
    """All rows, with their goals."""
    print(f"\nPictures a second, {CLIENTS} client processes, {os.cpu_count()} cores\n")
    print(
        "| what | decoder | processes | callers | pictures | p99, ms | goal on an H100 |\n|---|---|---|---|---|---|---|"
    )
    for row in rows:
        if row["what"] == "bare network":
            print(f"| bare network, batches of {row['batch']} | | | | {row['pictures']} | | |")
            continue
        key = row["decoder"], row["workers"], row["way"], row["callers"]
        cells = [f"{row['way']}", row["decoder"], row["workers"], row["callers"], row["pictures"]]
        cells += [row.get("p99_ms", ""), GOALS.get(key, "")]
        print(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    main()
