"""How fast stylization is on this machine's CUDA device, beside a direct loop and the bare network, in one run.

    python tests/gpu/measure.py [--weights PATH] [--sizes 256,512,1024] [--out FILE] [--seconds 200] [--dry-run]

Prints one JSON object a row and, at the end, tables; writes all rows to a file. Without weights the network has random
ones, which take the same time. Part of check.sh.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gramlet import Client
from gramlet.feature.descent_types import DescentIteration, DescentStart
from gramlet.feature.types import Style
from gramlet.stylize.types import Iteration, StylizeSettings
from gramlet.types import Array
from gramlet_server.backbone import load_network
from gramlet_server.feature.engine import Engine
from gramlet_server.feature.lbfgs import LBFGS
from gramlet_server.stylize import presets
from gramlet_server.stylize.plan import Pictures, PreparedStylization
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.e2e.cluster import Cluster
from tests.gpu.fake_cuda import FakeCudaDevice
from tests.stylize.direct import classic_loss, stages_of, torchvision_resnet50

Row = dict[str, Any]
PRECISIONS = ("float32", "tf32", "bfloat16")
GOALS = {  # of issue 12, on an H100
    "classic, 512 px, 500 iterations, two hops: seconds": "2.0, moonshot 1.5",
    "default, 512 px, two hops: seconds": "1.5, moonshot 1.0",
    "default pictures a minute, 16 runs": "300, moonshot 600",
}


@dataclass
class Measurement:
    """What is measured, and where.

    Attributes:
        dry: A fake takes the place of CUDA, and everything is small.
        weights: A file.
        rows: What was measured so far.
        until: When nothing further begins, by time.monotonic.
    """

    dry: bool
    weights: str
    sizes: tuple[int, ...]
    until: float
    rows: list[Row] = field(default_factory=list)

    @property
    def device(self) -> str:
        """torch's name of it."""
        return "cpu" if self.dry else "cuda"

    def of_many(self, number: int) -> int:
        """How often to do something."""
        return 4 if self.dry else number

    def add(self, what: str, value: float, size: int | None = None) -> None:
        """A result: milliseconds of an iteration at a size, or a single number that says what it is."""
        row: Row = {"bench": "gpu", "what": what, "size": size, "value": round(value, 3 if value < 10 else 1)}
        print(json.dumps(row), flush=True)
        self.rows.append(row)

    def milliseconds(self, work: Callable[[], object], times: int, skipped: int = 4) -> float:
        """Of one run of some work whose runs follow each other without waiting."""
        for _ in range(skipped):
            work()
        self.synchronize()
        began = time.perf_counter()
        for _ in range(times):
            work()
        self.synchronize()
        return 1000 * (time.perf_counter() - began) / times

    def synchronize(self) -> None:
        """Waits for the device."""
        if not self.dry:
            torch.cuda.synchronize()

    def engine(self, precision: str) -> Engine:
        """gramlet in this process."""
        network = load_network("resnet50", self.weights, self.device, precision)
        return Engine(network, device=FakeCudaDevice(records=True) if self.dry else None)


def main() -> None:
    """Measures, and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="random:0")
    parser.add_argument("--sizes", default="")
    parser.add_argument("--out", type=Path, default=Path("measured.json"))
    parser.add_argument("--seconds", type=float, default=200.0, help="after which no further measurement begins")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, small: whether this program runs")
    chosen = parser.parse_args()
    sizes = tuple(map(int, (chosen.sizes or ("64,96" if chosen.dry_run else "256,512,1024")).split(",")))
    with tempfile.TemporaryDirectory() as folder:
        weights = chosen.weights
        if weights.startswith("random:"):
            weights = str(Path(folder) / "weights.safetensors")
            state = load_network("resnet50", chosen.weights, "cpu").weights.state
            classifier = {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}  # of the direct loop's
            save_file({**state, **classifier}, weights)
        began = time.monotonic()
        measurement = Measurement(chosen.dry_run, weights, sizes, began + chosen.seconds)
        parts = [direct, served, in_process, waiting]
        for part in parts:
            if time.monotonic() < measurement.until:
                part(measurement)
            else:
                print(f"left out, because the time is over: {part.__name__}", flush=True)
    about = {"device": "a fake" if chosen.dry_run else torch.cuda.get_device_name(), "torch": torch.__version__}
    about |= {"weights": chosen.weights, "seconds": round(time.monotonic() - began)}
    chosen.out.write_text(json.dumps({"about": about, "rows": measurement.rows}, indent=1) + "\n")
    print_tables(about, measurement.rows)


def direct(to: Measurement) -> None:
    """The slides' loop: torchvision's network under torch's L-BFGS with its history of 100; and the network alone."""
    torch.set_default_device(to.device)
    network = torchvision_resnet50(Path(to.weights)).to(to.device)
    for size in to.sizes:
        content, style = (torch.tensor(each, device=to.device) for each in pictures(size))
        image = content.clone().requires_grad_()

        def bare(image: torch.Tensor = image) -> None:
            torch.autograd.grad(stages_of(network, image)["layer4"].sum(), image)

        to.add("bare network, forward and backward", to.milliseconds(bare, to.of_many(20)), size)
        loss, times = classic_loss(network, content, style), []
        count = to.of_many(60)
        optimizer = torch.optim.LBFGS(
            [image], max_iter=count, max_eval=2 * count, history_size=100, tolerance_grad=0, tolerance_change=0
        )

        def closure(
            optimizer: Any = optimizer, loss: Any = loss, image: Any = image, times: list[float] = times
        ) -> torch.Tensor:
            optimizer.zero_grad()
            value: torch.Tensor = loss(image)
            value.backward()  # type: ignore[no-untyped-call]
            times.append(time.perf_counter())
            return value

        optimizer.step(closure)
        to.synchronize()
        to.add("direct loop, classic", 1000 * statistics.median(np.diff(times)[1:]), size)
    torch.set_default_device("cpu")


def in_process(to: Measurement) -> None:
    """Gradients and descents of an engine in this process, and L-BFGS alone."""
    for precision in PRECISIONS[:1] if to.dry else PRECISIONS:
        engine = to.engine(precision)
        for size in to.sizes:
            for preset in ("classic", "default"):
                order = prepared(engine, size, preset)
                to.add(f"gradient, {preset}, {precision}", gradient(to, engine, order), size)
                if precision == PRECISIONS[0 if to.dry else 1]:
                    to.add(f"Descend, {preset}, {precision}", descent(to, engine, order), size)
        engine.close()
    for size in to.sizes:
        for pairs in (20, 100):
            to.add(f"L-BFGS alone, {pairs} pairs (at most 1 GiB of them)", optimizer(to, size, pairs), size)


def gradient(to: Measurement, engine: Engine, order: PreparedStylization) -> float:
    """Milliseconds, as a descent evaluates it."""
    with engine.passes.scheduler.caller() as caller:
        targets = engine.targets.build(caller, order.objective())

        def work() -> float:
            point = engine.passes.device.place(torch.tensor(order.pictures.content))

            def evaluate() -> None:
                for _ in engine.differentiator.resident(point, targets):
                    pass

            return to.milliseconds(evaluate, to.of_many(20))

        return engine.passes.run_single(caller, "measure", 1, work)[0]


def descent(to: Measurement, engine: Engine, order: PreparedStylization) -> float:
    """Milliseconds of an iteration at the end of a descent, whose history is then nearly full."""
    count = to.of_many(150)
    start = DescentStart(objective=order.objective(), settings=order.descent_settings, iterations=count)
    arrived = []  # when, and the last iteration of those that came together
    with engine.descend(start) as events:
        for burst in events.bursts():
            iterations = [event.iteration for event in burst if isinstance(event, DescentIteration)]
            if iterations:
                arrived.append((time.perf_counter(), iterations[-1]))
    (began, first), (ended, last) = next(each for each in arrived if each[1] >= count // 2), arrived[-1]
    return 1000 * (ended - began) / max(1, last - first)


def optimizer(to: Measurement, size: int, pairs: int) -> float:
    """Milliseconds of a step with a full history."""
    numbers = 3 * size * size
    pairs = min(pairs, 2**30 // (8 * numbers))
    lbfgs = LBFGS(numbers, 1.0, pairs, to.device)
    point = torch.rand(numbers, device=to.device)
    steepness = torch.rand(numbers, device=to.device) + 0.1

    def step() -> None:
        nonlocal point
        point = lbfgs.step(point, point * steepness)

    return to.milliseconds(step, to.of_many(20), skipped=pairs + 2)


def served(to: Measurement) -> None:
    """Through the SDK, a StylizeService and a FeatureService: two hops, three processes."""
    size = to.sizes[0] if to.dry else 512
    with tempfile.TemporaryDirectory() as folder, Cluster(Path(folder)) as cluster:
        network = (f"--weights={to.weights}", f"--device={to.device}")
        features = cluster.server("feature", *network)
        store = f"--store={cluster.folder / 'store'}"
        stylize = cluster.server("stylize", store, f"--features={features.address}")
        features.wait_until_ready()
        stylize.wait_until_ready()
        content, style = pictures(size)

        def run(_: int = 0, **settings: Any) -> float:
            began = time.perf_counter()
            with Client(stylize.address) as client:
                count = sum(isinstance(e, Iteration) for e in client.stylize(content, style, size=size, **settings))
            assert count
            return time.perf_counter() - began

        classic: Row = {"preset": "classic", "iterations": to.of_many(500)}
        default: Row = {"preset": "default"} | ({"iterations": 10} if to.dry else {})
        for settings in (classic, default):
            run(**settings)  # the first one, which a new process makes slower
            seconds = statistics.median(run(**settings) for _ in range(1 if to.dry else 3))
            iterations = f", {settings['iterations']} iterations" if settings is classic else ""
            to.add(f"{settings['preset']}, {size} px{iterations}, two hops: seconds", seconds)
        for runs in (1, 4, 16):
            number = runs if to.dry else max(8, 2 * runs)
            began = time.perf_counter()
            with ThreadPoolExecutor(runs) as pool:
                list(pool.map(lambda number: run(number, **default), range(number)))
            to.add(
                f"default pictures a minute, {runs} run{'s' * (runs > 1)}", 60 * number / (time.perf_counter() - began)
            )


def waiting(to: Measurement) -> None:
    """From a cancellation to the next work on the device."""
    engine = to.engine(PRECISIONS[0 if to.dry else 1])
    order = prepared(engine, to.sizes[-1], "classic")
    start = DescentStart(objective=order.objective(), settings=order.descent_settings, iterations=10**5)
    took = []
    for _ in range(to.of_many(10)):
        with engine.descend(start) as events, engine.passes.scheduler.caller() as caller:
            next(event for event in events if isinstance(event, DescentIteration) and event.iteration > 10)
            began = time.perf_counter()
            events.close()
            engine.passes.run_single(caller, "measure", 1, to.synchronize)
            took.append(1000 * (time.perf_counter() - began))
    engine.close()
    to.add(f"from cancel to idle, {to.sizes[-1]} px: milliseconds", statistics.median(took))


def pictures(size: int) -> Iterator[Array]:
    """A content and a style, smooth like photographs: noise of several scales."""
    for seed in (1, 2):
        random = np.random.default_rng(seed)
        found = np.zeros((3, size, size), np.float32)
        for side in (4, 16, size // 4, size):
            coarse = torch.from_numpy(random.random((1, 3, side, side), dtype=np.float32))  # never on a default device
            found += torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")[0].numpy() / 4
        yield found


def prepared(engine: Engine, size: int, preset: str) -> PreparedStylization:
    """A stylization as StylizeService prepares it."""
    content, style = pictures(size)
    settings = presets.resolve(StylizeSettings(preset=preset, size=size), engine.model())
    return PreparedStylization(Pictures(content, (Style(style),), content), settings)


def print_tables(about: Row, rows: list[Row]) -> None:
    """Milliseconds by size, then the single numbers with their goals."""
    sizes = sorted({row["size"] for row in rows if row["size"]})
    print(f"\n{about['device']}, torch {about['torch']}, weights {about['weights']}, {about['seconds']} s")
    print(f"\n| milliseconds an iteration | {' | '.join(f'{size} px' for size in sizes)} |\n|---|{'---|' * len(sizes)}")
    for what in dict.fromkeys(row["what"] for row in rows if row["size"]):
        values = {row["size"]: row["value"] for row in rows if row["what"] == what}
        print(f"| {what} | {' | '.join(str(values.get(size, '')) for size in sizes)} |")
    print("\n| | measured | goal on an H100 |\n|---|---|---|")
    for row in rows:
        if not row["size"]:
            print(f"| {row['what']} | {row['value']} | {GOALS.get(row['what'], '')} |")


if __name__ == "__main__":
    main()
