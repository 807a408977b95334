"""What of an iteration is L-BFGS's own; coarse to fine against one scale; gradients of several stylizations together.

python tests/bench/bench_descent.py [lbfgs scales together]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gramlet.feature.types import Evaluation, Style
from gramlet.stylize.types import Iteration, StylizeSettings
from gramlet_server.backbone import load_network
from gramlet_server.backbone.threads import set_single_threaded
from gramlet_server.feature.engine import Engine, EngineSettings
from gramlet_server.runtime.memory import keep_large_blocks
from gramlet_server.stylize import presets
from gramlet_server.stylize.descent import Descent
from gramlet_server.stylize.plan import Pictures, PreparedStylization
from gramlet_server.stylize.stylization import Control, stylize

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.bench.bench_stylize import SAMPLES, WEIGHTS, picture

Row = dict[str, Any]


def main(arguments: list[str] | None = None) -> list[Row]:
    """Runs the rows, prints each, and returns them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", default=list(PARTS))
    keep_large_blocks()
    torch.set_num_threads(os.cpu_count() or 1)
    rows = []
    for part in parser.parse_args(arguments).parts:
        for row in PARTS[part]():
            print(json.dumps(row), flush=True)
            rows.append(row)
    return rows


def prepared_of(engine: Engine, size: int, preset: str = "classic", **settings: Any) -> PreparedStylization:
    """The sample pictures."""
    content, style = (picture(SAMPLES / name, size) for name in ("content/tubingen.jpg", "style/starry_night.jpg"))
    chosen = StylizeSettings(preset=preset, size=size, **settings)
    return PreparedStylization(Pictures(content, (Style(style),), content), presets.resolve(chosen, engine.model()))


def lbfgs() -> Iterator[Row]:
    """Seconds of one iteration of the optimiser, everything but the evaluation, beside the evaluation."""
    size = 512
    engines = {name: Engine(load_network("resnet50", str(WEIGHTS), "cpu", name)) for name in ("float32", "bfloat16")}
    evaluations = {}
    for name, engine in engines.items():
        prepared = prepared_of(engine, size)
        with engine.differentiate(prepared.objective()) as differentiation:
            evaluations[name] = median(lambda d=differentiation, x=prepared.pictures.content: d.evaluate(x), 4)
    gradients = np.random.default_rng(0).normal(0, 1, (2, 3, size, size)).astype(np.float32)
    for history in (10, 20):
        descent = Descent(prepared.pictures.content, prepared_of(engine, size, history_size=history).settings)
        inside: list[float] = []

        def evaluate(x: np.ndarray, inside: list[float] = inside) -> Evaluation:
            began = time.perf_counter()
            # The gradient of a parabola, whose curvature is as good as any.
            evaluation = Evaluation(1.0, 1.0, 0.0, 0.0, {}, gradient=x * gradients[0] ** 2 + gradients[1])
            inside.append(time.perf_counter() - began)
            return evaluation

        set_single_threaded()  # as a run does
        for _ in range(history):
            descent.step(evaluate)
        inside.clear()
        took = []
        for _ in range(15):
            began = time.perf_counter()
            descent.step(evaluate)
            took.append(time.perf_counter() - began - inside[-1])
        set_single_threaded(False)
        own = statistics.median(took)
        row: Row = {"bench": "lbfgs", "size": size, "history": history, "optimizer_seconds": round(own, 4)}
        yield row | {f"share_{name}": round(own / (own + seconds), 3) for name, seconds in evaluations.items()}
    for engine in engines.values():
        engine.close()


def scales() -> Iterator[Row]:
    """Seconds until a descent is where 150 iterations at one scale end, for one scale and coarse to fine."""
    engine = Engine(load_network("resnet50", str(WEIGHTS), "cpu"))
    aim = np.inf
    for number, iterations in ((1, 150), (2, 250), (3, 400)):  # of which the coarse ones take little time
        took, losses, began = [], [], time.perf_counter()
        prepared = prepared_of(engine, 256, "default", iterations=iterations, scales=number)
        full = prepared.scales()[-2].end if number > 1 else 0
        for event in stylize(prepared, engine, Control(checkpoint_every=0)):
            if isinstance(event, Iteration) and event.iteration > full:
                took.append(time.perf_counter() - began)
                losses.append(event.loss)
        aim = min(losses) if number == 1 else aim
        reached = next((index for index, loss in enumerate(losses) if loss <= aim), None)
        row: Row = {"bench": "scales", "size": 256, "scales": number, "iterations": iterations}
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


def median(run: Callable[[], Any], times: int) -> float:
    """Seconds, after two runs that are not counted."""
    seconds = []
    for _ in range(times + 2):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[2:])


PARTS: dict[str, Callable[[], Iterator[Row]]] = {"lbfgs": lbfgs, "scales": scales, "together": together}

if __name__ == "__main__":
    main()
