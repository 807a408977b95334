"""What the server reserves for a piece of work, or says that it takes, beside the memory that the work really takes.

    python tests/bench/bench_reserved.py [WORK ...] [--largest]

Each row has a server of its own, on random weights. After a small piece of work of the same kind, freed memory is
returned to the kernel; what the resident memory rises by until its peak is what the work takes. It is written to
/proc/PID/clear_refs that the peak begins there. `reserved_mib` is the most that the budget of the process had reserved
more than before, and `told_mib` the bound that Embed reports. `ratio` is the larger of both over what was taken.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from gramlet import Client
from gramlet.embed.drawings import DrawingForm
from gramlet.embed.settings import Descriptor, Method
from gramlet.embed.types import Started
from gramlet.feature.types import Objective, Style
from gramlet.train.configuration import Recipe, Strategy
from gramlet_server.process.allocator import ALLOCATOR
from gramlet_server.process.memory_budget import PROCESS

MIB = 2**20
POLL_SECONDS = 0.001
SERVE = "--serve"

# --- the server's process ---


def memory(name: str) -> int:
    """Bytes, of a line of /proc/self/status: VmRSS is held now, VmHWM the most since the peak was reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))


class Meter(threading.Thread):
    """Answers lines on stdin: "begin" starts a measurement, "end" prints it."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._most = 0

    def run(self) -> None:
        threading.Thread(target=self._poll, daemon=True).start()
        for line in sys.stdin:
            if line.strip() == "begin":
                gc.collect()
                ALLOCATOR.trim()
                before, reserved = memory("VmRSS"), PROCESS.reserved
                Path("/proc/self/clear_refs").write_text("5")
                self._most = 0
                found: dict[str, int] = {}
            else:
                found = {"taken": memory("VmHWM") - before, "reserved": self._most - reserved}
            print(json.dumps(found), flush=True)

    def _poll(self) -> None:
        while True:
            self._most = max(self._most, PROCESS.reserved)
            time.sleep(POLL_SECONDS)


def serve(arguments: list[str]) -> None:
    """`gramlet-server` with a meter."""
    from gramlet_server.__main__ import main as server

    Meter().start()
    sys.exit(server(arguments))


# --- the work ---


@dataclass(frozen=True)
class Work:
    """A kind of work.

    Attributes:
        do: Does it at a size; returns the bytes that the server says it takes, if it does.
        sizes: First a small one.
        before: What has to be there at a size.
        flags: Of the server.
    """

    do: Callable[[Client, int], int | None]
    sizes: tuple[int, ...]
    before: Callable[[Client, int], object] = lambda client, size: None
    flags: tuple[str, ...] = ()


def picture(side: int, seed: int = 0) -> np.ndarray:
    """(side, side, 3) of noise."""
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def extract(**forms: Any) -> Callable[[Client, int], None]:
    """Features of a picture that is as wide as the size says."""

    def do(client: Client, side: int) -> None:
        client.features(picture(side), **forms)

    return do


def gradient(client: Client, side: int) -> None:
    content, style = (np.float32(1 / 255) * picture(side, seed).transpose(2, 0, 1) for seed in (0, 1))
    stages = {"conv1": 1.0, "layer1": 1.0, "layer2": 1.0, "layer4": 1.0}
    objective = Objective(content, "layer2", 1.0, (Style(style, 1.0),), stages, 1.0)
    with client.differentiate(objective) as differentiation:
        differentiation.evaluate(content)
        differentiation.evaluate(style)


def stylize(client: Client, side: int) -> None:
    client.stylize(picture(side), picture(side, 1), size=side, iterations=12).result()


def embed(client: Client, items: Any, **settings: Any) -> int:
    """A map; returns the bound that its first event has."""
    events = client.embed(items, **settings)
    (bound,) = [event.memory_bound for event in events if isinstance(event, Started)]
    return int(bound)


def vectors(method: Method, size: int, **settings: Any) -> Callable[[Client, int], int]:
    """A map of so many vectors of that size."""

    def do(client: Client, count: int) -> int:
        rows = np.random.default_rng(0).standard_normal((count, size), dtype=np.float32)
        return embed(client, list(rows), method=method, map_id=f"of-{count}", **settings)

    return do


def grams(client: Client, count: int) -> int:
    pictures = [picture(64, seed) for seed in range(count)]
    return embed(client, pictures, descriptor=Descriptor.GRAM, method=Method.PCA)


def draw(form: DrawingForm, width: int = 1600) -> Callable[[Client, int], None]:
    """A drawing of a map of so many vectors that `vectors` has made."""

    def do(client: Client, count: int) -> None:
        client.draw_map(f"of-{count}", form=form, width=width)

    return do


def train(stages: tuple[str, ...]) -> Callable[[Client, int], None]:
    """A head on so many pictures in two classes."""

    def do(client: Client, count: int) -> None:
        pictures = [(picture(64, seed), f"class {seed % 2}") for seed in range(count)]
        strategy: dict[str, Any] = {"strategy": Strategy.ALL_AT_ONCE, "stages": stages, "stage_epochs": 2}
        client.train(pictures, name=f"of-{count}", recipes=[Recipe(epochs=2, **(strategy if stages else {}))]).result()

    return do


def export(client: Client, count: int) -> None:
    """An ONNX file with the network, of the head that `train` has made."""
    client.export_head(f"of-{count}", format="onnx", with_backbone=True)


# Each name: the steps before it, the step that is measured, and its sizes, of which the first is small.
WORKS: dict[str, Work] = {
    "extract pooled layer4": Work(extract(stages=["layer4"], pooled=True), (64, 1536, 2048, 3072)),
    "extract gram conv1": Work(extract(stages=["conv1"], gram=True), (64, 1536, 2048, 3072)),
    "extract activations layer2": Work(extract(stages=["layer2"], activations=True), (64, 1024, 1400)),
    "differentiate": Work(gradient, (64, 512, 768, 1024)),
    "stylize": Work(stylize, (64, 512, 768, 1024)),
    "pca of vectors": Work(vectors(Method.PCA, 2048), (100, 5000, 20000, 50000)),
    "tsne of vectors": Work(vectors(Method.TSNE, 512, iterations=30), (100, 3000, 8000, 30000)),
    "pca of long vectors": Work(vectors(Method.PCA, 30000), (100, 2000, 6000)),
    "tsne of long vectors": Work(vectors(Method.TSNE, 30000, iterations=30), (100, 2000, 6000)),
    "pca of grams": Work(grams, (20, 1000, 3000)),
    "isomap": Work(vectors(Method.ISOMAP, 64), (100, 1000, 2500)),
    "mds": Work(vectors(Method.MDS, 64), (100, 1000, 2500)),
    "lle": Work(vectors(Method.LLE, 64), (100, 1000, 6000)),
    "draw scatter": Work(draw(DrawingForm.SCATTER, 6000), (100, 5000), before=vectors(Method.PCA, 64)),
    "draw page": Work(draw(DrawingForm.PAGE), (100, 20000), before=vectors(Method.TSNE, 64, iterations=100)),
    "train head": Work(train(()), (8, 2000)),
    "train layer4": Work(train(("layer4",)), (8, 64)),
    "train layer3": Work(train(("layer3", "layer4")), (8, 64)),
    "export": Work(export, (8, 16), before=train(())),
    "export layer4": Work(export, (8, 16), before=train(("layer4",))),
}


def measured(work: Work, size: int) -> dict[str, Any]:
    """One row, from a server of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="gramlet-reserved-") as folder,
        _served(folder, work.flags) as (server, ask),
        Client(server) as client,
    ):
        for each in (work.sizes[0], size):
            work.before(client, each)
        work.do(client, work.sizes[0])
        ask("begin")
        told = work.do(client, size) or 0
        found = ask("end")
    row = {"size": size, "taken_mib": found["taken"] / MIB, "reserved_mib": found["reserved"] / MIB}
    row |= {"told_mib": told / MIB} if told else {}
    ratio = max(told, found["reserved"]) / max(1, found["taken"])
    return {name: round(value) for name, value in row.items()} | {"ratio": round(ratio, 2)}


@contextlib.contextmanager
def _served(folder: str, flags: tuple[str, ...]) -> Iterator[tuple[str, Callable[[str], dict[str, int]]]]:
    """A server's address, and a way to ask its meter."""
    command = [sys.executable, __file__, SERVE, "all", "--weights=random:0", "--port=0", f"--store={folder}/store"]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen([*command, "--feature-cache-bytes=0", *flags], **pipes) as process:
        requests: IO[str] = process.stdin  # type: ignore[assignment]
        answers: IO[str] = process.stdout  # type: ignore[assignment]

        def ask(line: str) -> dict[str, int]:
            print(line, file=requests, flush=True)
            found: dict[str, int] = json.loads(answers.readline())
            return found

        try:
            ready = next(line for line in answers if "serving" in line)
            yield ready.split(" on ")[1].split()[0], ask
        finally:
            process.terminate()


def main(arguments: list[str] | None = None) -> None:
    """Prints a row for each kind of work and each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("works", nargs="*", help=f"parts of these names: {', '.join(WORKS)}")
    parser.add_argument("--largest", action="store_true", help="only the largest size of each")
    chosen = parser.parse_args(arguments)
    for name, work in WORKS.items():
        if chosen.works and not any(part in name for part in chosen.works):
            continue
        for size in work.sizes[-1:] if chosen.largest else work.sizes[1:]:
            print(json.dumps({"bench": "reserved", "work": name, **measured(work, size)}), flush=True)


if __name__ == "__main__":
    serve(sys.argv[2:]) if sys.argv[1:2] == [SERVE] else main()
