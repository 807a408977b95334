"""Descents: what of the time is L-BFGS's own, and the states'; what a longer history gives; scales; passes together.

python tests/bench/bench_descent.py [lbfgs states history scales together] [--size 512] [--iterations 60]
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gramlet import Client
from gramlet.feature.types import Style
from gramlet.stylize.types import Checkpoint, Iteration, StylizeSettings
from gramlet_server.backbone import load_network
from gramlet_server.feature.engine import Engine, EngineSettings
from gramlet_server.feature.lbfgs import LBFGS
from gramlet_server.process.allocator import ALLOCATOR
from gramlet_server.stylize import presets
from gramlet_server.stylize.plan import Pictures, PreparedStylization
from gramlet_server.stylize.stylization import Control, stylize

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.bench.bench_stylize import SAMPLES, WEIGHTS, picture
from tests.bench.rows import Row, add_parts
from tests.e2e.cluster import Cluster


def main(arguments: list[str] | None = None) -> list[Row]:
    """Runs the rows, prints each, and returns them."""
    parser = argparse.ArgumentParser()
    add_parts(parser, PARTS)
    parser.add_argument("--size", type=int, help="of the pictures, instead of each part's own")
    parser.add_argument("--iterations", type=int, help="likewise")
    parser.add_argument("--rounds", type=int, help="of `states`")
    chosen = parser.parse_args(arguments)
    ALLOCATOR.keep_large_blocks()
    torch.set_num_threads(os.cpu_count() or 1)
    given = {name: value for name, value in vars(chosen).items() if name != "parts" and value is not None}
    rows = []
    for part in chosen.parts:
        wanted = inspect.signature(PARTS[part]).parameters
        for row in PARTS[part](**{name: value for name, value in given.items() if name in wanted}):
            print(json.dumps(row), flush=True)
            rows.append(row)
    return rows


def prepared_of(engine: Engine, size: int, preset: str = "classic", **settings: Any) -> PreparedStylization:
    """The sample pictures."""
    content, style = (picture(SAMPLES / name, size) for name in ("content/tubingen.jpg", "style/starry_night.jpg"))
    chosen = StylizeSettings(preset=preset, size=size, **settings)
    return PreparedStylization(Pictures(content, (Style(style),), content), presets.resolve(chosen, engine.model()))


def lbfgs(size: int = 512) -> Iterator[Row]:
    """Seconds of a step of L-BFGS with a full history, beside the gradient; alternating, on the device's thread."""
    point = torch.rand(3 * size * size, generator=torch.Generator().manual_seed(0))
    steepness = 0.1 + point.flip(0)  # of a parabola, whose curvature is as good as any
    for precision in ("float32", "bfloat16"):
        engine = Engine(load_network("resnet50", str(WEIGHTS), "cpu", precision))
        prepared = prepared_of(engine, size)
        content = torch.from_numpy(prepared.pictures.content)
        with engine.passes.scheduler.caller() as caller:
            evaluate = partial(
                engine.differentiator.resident, content, engine.targets.build(caller, prepared.objective())
            )
            for pairs in (20, 100):
                work = partial(alternate, LBFGS(len(point), 1.0, pairs), point, steepness, evaluate, pairs)
                step, gradient = engine.passes.run_single(caller, "bench", 1, work)[0]
                row: Row = {"bench": "lbfgs", "size": size, "precision": precision, "pairs": pairs}
                row |= {"optimizer_seconds": round(step, 4), "gradient_seconds": round(gradient, 4)}
                yield row | {"share": round(step / (step + gradient), 3)}
        engine.close()


def alternate(
    optimizer: LBFGS, at: torch.Tensor, steepness: torch.Tensor, evaluate: Callable[[], Any], pairs: int
) -> tuple[float, float]:
    """Median seconds of a step with a full history, and of a gradient; on the device's thread."""
    for _ in range(pairs + 1):
        at = optimizer.step(at, at * steepness)
    steps, gradients = [], []
    for _ in range(8):
        gradients.append(seconds(lambda: list(evaluate())))
        began, gradient = time.perf_counter(), at * steepness
        at = optimizer.step(at, gradient)
        steps.append(time.perf_counter() - began)
    return statistics.median(steps[2:]), statistics.median(gradients[2:])


def states(size: int = 512, iterations: int = 60, rounds: int = 2) -> Iterator[Row]:
    """What states take of a run in three processes: runs with states, as often as they come, and without, in turns.

    Of the wall time, and of the servers' processor time, which says more beside other programs.
    """
    with tempfile.TemporaryDirectory() as folder, Cluster(Path(folder)) as cluster:
        threads = {"OMP_NUM_THREADS": str(os.cpu_count())}
        features = cluster.server("feature", f"--weights={WEIGHTS}", environment=threads)
        store = f"--store={cluster.folder / 'store'}"
        stylize = cluster.server("stylize", store, f"--features={features.address}", environment=threads)
        features.wait_until_ready()
        stylize.wait_until_ready()
        content, style = (picture(SAMPLES / name, size) for name in ("content/tubingen.jpg", "style/starry_night.jpg"))
        took: dict[float, list[float]] = {0.0: [], 1.0: [], 10.0: []}  # by seconds between states
        count = dict.fromkeys(took, 0)
        worked: dict[float, list[float]] = {every: [] for every in took}
        with Client(stylize.address) as client:
            for _ in range(rounds):
                for every, seconds_of_runs in took.items():
                    began, before = time.perf_counter(), features.processor_seconds + stylize.processor_seconds
                    for event in client.stylize(
                        content, style, preset="classic", size=size, iterations=iterations, state_seconds=every
                    ):
                        count[every] += isinstance(event, Checkpoint)
                    seconds_of_runs.append(time.perf_counter() - began)
                    worked[every].append(features.processor_seconds + stylize.processor_seconds - before)
    for every, found in took.items():
        shares = [1 - without / each for without, each in zip(took[0.0], found, strict=True)]
        of_processor = 1 - statistics.median(worked[0.0]) / statistics.median(worked[every])
        row: Row = {"bench": "states", "size": size, "iterations": iterations, "state_seconds": every}
        row |= {"states": count[every] / len(found), "seconds": round(statistics.median(found), 2)}
        yield row | {
            "share": round(statistics.median(shares), 4),
            "share_of_processor_time": round(of_processor, 4),
            "of_rounds": f"{min(shares):.3f} to {max(shares):.3f}",
        }


def history(size: int = 256, iterations: int = 400) -> Iterator[Row]:
    """The loss that the preset `default` reaches, and its time, with histories of several lengths and starts."""
    engine = Engine(load_network("resnet50", str(WEIGHTS), "cpu"))
    lengths = (10, 20, 100)
    for start in range(2):
        reached: dict[int, float] = {}
        for length in lengths:
            prepared = prepared_of(engine, size, "default", iterations=iterations, history_size=length)
            noise = np.random.default_rng(start).normal(0, 1e-6 if start else 0, prepared.pictures.content.shape)
            initial = (prepared.pictures.content + noise.astype(np.float32)).clip(0, 1)
            prepared = replace(prepared, pictures=replace(prepared.pictures, initial=initial))
            began = time.perf_counter()
            losses = [e.loss for e in stylize(prepared, engine, CONTROL) if isinstance(e, Iteration)]
            reached[length] = min(losses[-iterations // 10 :])
            row: Row = {"bench": "history", "preset": "default", "size": size, "iterations": iterations}
            row |= {"start": start, "history": length, "seconds": round(time.perf_counter() - began, 1)}
            yield row | {
                "loss": round(reached[length], 5),
                "over_first": round(reached[length] / reached[lengths[0]], 4),
            }
    engine.close()


def scales(size: int = 256) -> Iterator[Row]:
    """Seconds until a descent is where 150 iterations at one scale end, for one scale and coarse to fine."""
    engine = Engine(load_network("resnet50", str(WEIGHTS), "cpu"))
    aim = np.inf
    for number, iterations in ((1, 150), (2, 250), (3, 400)):  # of which the coarse ones take little time
        took, losses, began = [], [], time.perf_counter()
        prepared = prepared_of(engine, size, "default", iterations=iterations, scales=number)
        full = max((scale.end for scale in prepared.scales()[:-1]), default=0)
        for event in stylize(prepared, engine, CONTROL):
            if isinstance(event, Iteration) and event.iteration > full:
                took.append(time.perf_counter() - began)
                losses.append(event.loss)
        aim = min(losses) if number == 1 else aim
        reached = next((index for index, loss in enumerate(losses) if loss <= aim), None)
        row: Row = {"bench": "scales", "size": size, "scales": number, "iterations": iterations}
        row |= {"seconds": round(took[-1], 1), "loss": round(min(losses), 4), "loss_over_one_scale": min(losses) / aim}
        if reached is not None:
            row |= {"iterations_to_that_loss": full + reached + 1, "seconds_to_that_loss": round(took[reached], 1)}
        yield row
    engine.close()


def together() -> Iterator[Row]:
    """Gradients a second of 1, 2 and 4 stylizations at once, each pass for one of them or for all."""
    network = load_network("resnet50", str(WEIGHTS), "cpu")
    engines = {batch: Engine(network, EngineSettings(batch_gradients=batch)) for batch in (False, True)}
    for size, each in ((128, 24), (256, 10)):
        for number in (1, 2, 4):
            rates: dict[bool, list[float]] = {False: [], True: []}
            for _ in range(3):
                for batch, engine in engines.items():
                    rates[batch].append(gradients_per_second(engine, size, number, each))
            alone, batched = (statistics.median(rates[batch]) for batch in (False, True))
            row: Row = {"bench": "together", "size": size, "stylizations": number}
            row |= {"gradients_per_second": round(alone, 2), "batched": round(batched, 2)}
            yield row | {"times": round(statistics.median(b / a for a, b in zip(*rates.values(), strict=True)), 2)}
    for engine in engines.values():
        engine.close()


def gradients_per_second(engine: Engine, size: int, number: int, each: int) -> float:
    """Of so many stylizations at once, each of so many evaluations."""
    prepared = prepared_of(engine, size)
    with ExitStack() as stack:
        differentiations = [stack.enter_context(engine.differentiate(prepared.objective())) for _ in range(number)]

        def descend(differentiation: Any, times: int) -> None:
            for _ in range(times):
                differentiation.evaluate(prepared.pictures.content)

        def run(times: int) -> float:
            threads = [threading.Thread(target=descend, args=(d, times)) for d in differentiations]
            began = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return number * times / (time.perf_counter() - began)

        run(2)
        return run(max(3, each // number))


def seconds(run: Callable[[], Any]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


CONTROL = Control(state_seconds=0)
PARTS: dict[str, Callable[..., Iterator[Row]]] = {
    "lbfgs": lbfgs,
    "states": states,
    "history": history,
    "scales": scales,
    "together": together,
}

if __name__ == "__main__":
    main()
