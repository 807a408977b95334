"""The memory of a server of all services under a random load of good calls, minute by minute.

    python tests/bench/bench_level.py [--minutes 6] [--callers 4] [-- FLAG ...]

Each caller draws a kind of call, its sizes and its settings, one after the other, from its own seed. Heads and maps are
deleted after their use. A row every half minute has the resident memory, what of it the allocator has handed out
(`used_mib`), and what is reserved; the last two rows are after the load, at once and after half a minute of rest.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from gramlet import Client, GramletError
from gramlet.embed.drawings import DrawingForm
from gramlet.embed.settings import Descriptor, Method
from gramlet.feature.types import Objective, Style
from gramlet.train.configuration import Recipe, Strategy

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.bench.metered import Ask, metered

EVERY = 30.0
STAGES = ("conv1", "layer1", "layer2", "layer3", "layer4", "avgpool")
SIDES = (64, 96, 128, 192, 256, 384, 512)
MIB = 2**20


class Caller(threading.Thread):
    """Makes random calls until it is stopped.

    Args:
        number: Its seed.
        address: The server's.
        done: Counts the calls of each kind, and errors.
    """

    def __init__(self, number: int, address: str, done: Counter[str]) -> None:
        super().__init__(daemon=True)
        self._random = np.random.default_rng(number)
        self._client = Client(address)
        self._done = done
        self._over = threading.Event()
        self._names = (f"caller-{number}-{each}" for each in range(10**9))

    def run(self) -> None:
        kinds: tuple[tuple[Callable[[], object], int], ...] = (
            (self.extract, 12),
            (self.differentiate, 3),
            (self.stylize, 3),
            (self.see, 2),
            (self.map_vectors, 2),
            (self.map_pictures, 2),
            (self.train, 1),
        )
        weights = np.array([weight for _, weight in kinds], float)
        while not self._over.is_set():
            kind = kinds[self._random.choice(len(kinds), p=weights / weights.sum())][0]
            try:
                kind()
                self._done[kind.__name__] += 1
            except GramletError as error:
                self._done[f"{kind.__name__}: {type(error).__name__}: {error}"] += 1

    def stop(self) -> None:
        """Ends after the call under way."""
        self._over.set()

    def extract(self) -> None:
        stages = [str(stage) for stage in self._random.choice(STAGES, self._random.integers(1, 4), replace=False)]
        form: dict[str, Any] = ({"pooled": True}, {"gram": True})[self._random.integers(2)]
        pictures = [self._picture(1024) for _ in range(self._random.integers(1, 9))]
        list(self._client.features(pictures, stages=stages, **form))

    def differentiate(self) -> None:
        content, style = (np.float32(1 / 255) * self._picture(512).transpose(2, 0, 1) for _ in range(2))
        stages = dict.fromkeys(STAGES[: self._random.integers(1, 5)], 1.0)
        objective = Objective(content, "layer2", 1.0, (Style(style, 1.0),), stages, 1.0)
        with self._client.differentiate(objective) as differentiation:
            for _ in range(self._random.integers(1, 5)):
                differentiation.evaluate(content)

    def stylize(self) -> None:
        side = int(self._random.choice(SIDES[:-1]))
        self._client.stylize(
            self._picture(512), self._picture(512), size=side, iterations=int(self._random.integers(2, 12))
        ).result()

    def see(self) -> None:
        pictures = [self._picture(256) for _ in range(8)]
        channels = [int(channel) for channel in self._random.integers(0, 64, 3)]
        self._client.see(
            "layer2", channels, pictures, patches=4, optimize=bool(self._random.integers(2)), steps=8
        ).result()

    def map_vectors(self) -> None:
        rows = self._random.standard_normal((int(self._random.integers(50, 2000)), 256), dtype=np.float32)
        method = (Method.PCA, Method.TSNE)[self._random.integers(2)]
        self._map(rows, method=method, **({"iterations": 50} if method is Method.TSNE else {}))

    def map_pictures(self) -> None:
        pictures = [self._picture(128) for _ in range(self._random.integers(10, 40))]
        descriptor = (Descriptor.GRAM, Descriptor.POOLED)[self._random.integers(2)]
        self._map(pictures, method=Method.PCA, descriptor=descriptor)

    def train(self) -> None:
        name = next(self._names)
        pictures = [(self._picture(128), f"class {each % 2}") for each in range(self._random.integers(8, 40))]
        late: dict[str, Any] = {"strategy": Strategy.ALL_AT_ONCE, "stages": ("layer4",), "stage_epochs": 1}
        recipe = Recipe(epochs=3, **(late if self._random.random() < 0.2 else {}))
        head = self._client.train(pictures, name=name, recipes=[recipe]).result().head
        list(self._client.predict(name, [picture for picture, _ in pictures[:4]], heat_maps=True))
        self._client.export_head(name, format="onnx", with_backbone=bool(self._random.random() < 0.5))
        self._client.delete_head(head)

    def _map(self, items: Any, **settings: Any) -> None:
        name = next(self._names)
        self._client.embed(items, map_id=name, **settings).result()
        list(self._client.transform(name, list(items[:4])))
        form = (DrawingForm.SCATTER, DrawingForm.PAGE)[self._random.integers(2)]
        self._client.draw_map(name, form=form, width=800)
        self._client.delete_map(name)

    def _picture(self, longest: int) -> np.ndarray:
        """Noise (H, W, 3) of random sides."""
        sides = [side for side in (*SIDES, 768, 1024) if side <= longest]
        height, width = (int(side) for side in self._random.choice(sides, 2))
        return self._random.integers(0, 256, (height, width, 3), np.uint8)


def level(ask: Ask, callers: list[Caller], done: Counter[str], minutes: float) -> None:
    """Prints a row every half minute of the load, and two after it."""
    began = time.monotonic()

    def row(phase: str) -> None:
        found = {f"{name}_mib": round(size / MIB) for name, size in ask("look").items()}
        seconds = round(time.monotonic() - began)
        row = {"bench": "level", "phase": phase, "seconds": seconds, **found, "calls": done.total()}
        print(json.dumps(row), flush=True)

    row("before")
    for caller in callers:
        caller.start()
    while time.monotonic() - began < 60 * minutes:
        time.sleep(EVERY)
        row("load")
    for caller in callers:
        caller.stop()
    for caller in callers:
        caller.join()
    row("after")
    time.sleep(EVERY)
    row("rest")
    print(json.dumps({"bench": "level", "calls": dict(done)}), flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--callers", type=int, default=4)
    parser.add_argument("flags", nargs="*", help="flags of the server, after --")
    chosen = parser.parse_args(arguments)
    done: Counter[str] = Counter()
    with metered("--memory-bytes=4GiB", *chosen.flags) as (address, ask):
        callers = [Caller(number, address, done) for number in range(chosen.callers)]
        level(ask, callers, done, chosen.minutes)


if __name__ == "__main__":
    main()
