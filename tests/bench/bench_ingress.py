"""What everything but the network carries: pictures a second with a network that costs nothing.

    python tests/bench/bench_ingress.py [--base OTHER_CHECKOUT] [--kinds jpeg-256,png-256] [--ways stream,unary]

The server and its client are processes of their own. With `--base`, the same is measured for the code in another
checkout, server and client, in turns with this one; the rows then have ratios. The cache of features is off. Pooled
features of `avgpool`, resized to 224 x 224.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.bench.embedding import jpegs
from tests.e2e.cluster import GramletServer, free_port, is_serving

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
KINDS = {
    "jpeg-256": (256, 256),
    "jpeg-640": (640, 480),
    "jpeg-4000": (4000, 3000),
    "png-256": (256, 256),
    "png-640": (640, 480),
    "array-256": (256, 256),
}
"""Width and height of each kind of picture."""
CALLERS = {"stream": 1, "unary": 16}


@dataclass
class Side:
    """The code of one checkout: its server, and what its client saw."""

    name: str
    path: Path
    server: GramletServer
    rates: list[float] = field(default_factory=list)
    client: list[float] = field(default_factory=list)
    served: list[float] = field(default_factory=list)

    def measure(self, pictures: Path, way: str, callers: int, seconds: float) -> None:
        """One run of its client."""
        used = _processor_seconds(self.server)
        command = [sys.executable, HERE / "ingress_client.py", self.server.address, pictures, way, callers, seconds]
        output = subprocess.run([*map(str, command)], env=_environment(self.path), check=True, stdout=subprocess.PIPE)
        found = json.loads(output.stdout)
        self.rates.append(found["pictures"] / found["seconds"])
        self.client.append(1000 * found["processor_seconds"] / found["pictures"])
        # The warm-up of the client is in the first but not in the second; it takes half a second.
        share = float(seconds) / (float(seconds) + 0.5)
        self.served.append(1000 * share * (_processor_seconds(self.server) - used) / found["pictures"])

    def figures(self) -> dict[str, float]:
        """Medians, and the next row starts anew."""
        named = {"pictures_per_second": self.rates, "client_ms": self.client, "server_ms": self.served}
        figures = {name: statistics.median(values) for name, values in named.items()}
        for values in named.values():
            values.clear()
        return figures


def main(arguments: list[str] | None = None) -> None:
    """Prints a row for each kind of picture and way of sending it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, help="another checkout to compare with")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--ways", default="stream,unary")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--callers", type=int, default=0, help="streams or callers; 0: 1 stream, 16 unary callers")
    parser.add_argument("--flags", default="", help="more flags for the server of this checkout")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        paths = {"base": chosen.base.resolve()} if chosen.base else {}
        flags = {"gramlet": chosen.flags.split()}
        sides = [
            Side(name, path, _started(path, Path(folder) / f"{name}.log", stack, flags.get(name, [])))
            for name, path in {**paths, "gramlet": ROOT}.items()
        ]
        for kind in chosen.kinds.split(","):
            pictures = Path(folder) / kind
            _write(kind, pictures)
            for way in chosen.ways.split(","):
                callers = chosen.callers or CALLERS[way]
                for _ in range(chosen.rounds):
                    for side in sides:
                        side.measure(pictures, way, callers, chosen.seconds)
                _report(kind, way, callers, {side.name: side.figures() for side in sides})


def _report(kind: str, way: str, callers: int, figures: dict[str, dict[str, float]]) -> None:
    ours = figures["gramlet"]
    row: dict[str, Any] = {"bench": "ingress", "pictures": kind, "way": way, "callers": callers}
    row |= {name: round(value, 3) for name, value in ours.items()}
    if "base" in figures:
        base = figures["base"]
        row |= {f"base_{name}": round(value, 3) for name, value in base.items()}
        row["times_base"] = round(ours["pictures_per_second"] / base["pictures_per_second"], 2)
        row["client_share"] = round(ours["client_ms"] / base["client_ms"], 2)
    print(json.dumps(row), flush=True)


def _started(path: Path, log: Path, stack: ExitStack, flags: list[str]) -> GramletServer:
    port = free_port()
    command = [sys.executable, str(HERE / "ingress_server.py"), "feature", "--weights=random:0", f"--port={port}"]
    command += ["--feature-cache-bytes=0", *flags]
    environment = _environment(path)
    server = GramletServer(command, log, lambda: is_serving(f"127.0.0.1:{port}"), environment, port=port)
    server.start()
    stack.callback(server.stop)
    server.wait_until_ready()
    return server


def _environment(path: Path) -> dict[str, str]:
    """The packages of a checkout, not the installed ones."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(path / "clients"), str(path / "services")]),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(os.cpu_count())),
    }


def _processor_seconds(server: GramletServer) -> float:
    """Of the server and the processes that it has started."""
    assert server.process
    ticks, waiting = 0, [server.process.pid]
    while waiting:
        process = Path(f"/proc/{waiting.pop()}")
        # Fields 14 and 15 of proc(5): the name in field 2 may hold spaces.
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
        waiting += [int(child) for task in process.glob("task/*/children") for child in task.read_text().split()]
    return ticks / os.sysconf("SC_CLK_TCK")


def _write(kind: str, folder: Path) -> None:
    """Different pictures of a kind, one file each."""
    folder.mkdir()
    width, height = KINDS[kind]
    for number, file in enumerate(jpegs(64 if width < 1000 else 6, 256)):
        image = Image.open(io.BytesIO(file)).resize((width, height), Image.Resampling.BICUBIC)
        path = folder / f"{number:03}"
        if kind.startswith("jpeg"):
            image.save(path, "JPEG", quality=90)
        elif kind.startswith("png"):
            image.save(path, "PNG")
        else:
            np.save(path.with_suffix(".npy"), np.asarray(image))


if __name__ == "__main__":
    main()
