"""Maps: descriptors compared by labels, and the memory and time of a large map beside openTSNE. For docs/maps.md.

    python -m tests.quality.maps descriptors drawn:textures drawn:renditions NAME=DIR
    python -m tests.quality.maps size --count 20000

Labels judge a map and never make it: the accuracy is that of the majority of an item's ten nearest items.
"""

from __future__ import annotations

import argparse
import multiprocessing
import multiprocessing.connection
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gramlet.embed.settings import Descriptor, MapSettings
from gramlet.embed.types import Comparison, Item, MapStart, StyleMap
from gramlet.folders import read_folder
from gramlet_server.backbone.network import Network
from gramlet_server.backbone.weights import load
from gramlet_server.embed.memory import MapSize, memory_bound
from gramlet_server.embed.runs import Maps, complete
from gramlet_server.feature.engine import Engine
from gramlet_server.runs.store import Store

from tests.quality.sets import draw

CLUSTERS, DIMENSIONS = 40, 128
WORST = 0.9
"""The default's accuracy should be at least this share of the best one's."""


def descriptors(given: str, cache: Path, weights: str) -> Iterator[str]:
    """A row for each descriptor, the best first, then what the default reaches of it on the map."""
    name, path = (given[6:], draw(given[6:], cache)) if given.startswith("drawn:") else given.split("=", 1)
    pictures = read_folder(path).pictures
    items = [Item(str(p.source), p.label, Path(str(p.source)).read_bytes()) for p in pictures]
    engine = Engine(Network(load("resnet50", weights)))
    with tempfile.TemporaryDirectory() as store:
        made = _made(Maps(engine, Store.open(store)), MapSettings(compare=True), items)
    own = complete(MapSettings(), engine.model())
    engine.close()
    yield f"\n| {name}: {len(items)} pictures | on the descriptor | on the map |\n|---|---|---|"
    for row in made.comparison:
        mapped = "" if row.label_accuracy is None else f"{row.label_accuracy:.3f}"
        balanced = ", balanced" if row.balance_stages else ""
        cells = f"{row.descriptor.value} {'+'.join(row.stages)}{balanced} | {row.descriptor_label_accuracy:.3f}"
        yield f"| {cells} | {mapped} |"
    best = max(row.label_accuracy or 0 for row in made.comparison)
    default = next(row.label_accuracy or 0 for row in made.comparison if _described(row) == _described(own))
    yield f"\nThe default map has {default:.3f}, {default / best:.2f} of the best one ({WORST} wanted)."


def _described(by: Comparison | MapSettings) -> tuple[Descriptor, tuple[str, ...], bool]:
    return by.descriptor, by.stages, by.balance_stages


def _made(maps: Maps, settings: MapSettings, items: list[Item]) -> StyleMap:
    *_, last = maps.start(MapStart(settings, count=len(items)), items)
    assert isinstance(last, StyleMap)
    return last


def size(count: int, rounds: int, weights: str) -> Iterator[str]:
    """Peak memory, seconds and processor seconds of a map of random clusters, and of openTSNE with one thread on the
    same vectors, each in its process."""
    settings = MapSettings(descriptor=Descriptor.VECTOR)
    bound = memory_bound(MapSize.of_vectors(count, settings, DIMENSIONS), settings)
    yield f"{count:,} vectors of {DIMENSIONS} numbers; bound told {bound / 1e6:,.0f} MB"
    found = [[_alone(work, count, weights) for work in (_gramlet, _opentsne)] for _ in range(rounds)]
    for name, runs in zip(("gramlet", "openTSNE"), zip(*found, strict=True), strict=True):
        memory, seconds, busy = np.median(runs, axis=0)
        yield f"{name}: {memory / 1e6:,.0f} MB more than at its start, {seconds:.0f} s, {busy:.0f} of a processor"


def _vectors(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    centers = 2 * rng.standard_normal((CLUSTERS, DIMENSIONS))
    return (centers[np.arange(count) % CLUSTERS] + rng.standard_normal((count, DIMENSIONS))).astype(np.float32)


def _alone(work: object, count: int, weights: str) -> tuple[float, float, float]:
    """Peak memory in bytes, seconds, and processor seconds of some work in a new process."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(count, weights, sender))  # type: ignore[arg-type]
    process.start()
    sender.close()
    found: tuple[float, float, float] = receiver.recv()
    process.join()
    return found


def _spent() -> np.ndarray:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return np.array([peak, time.perf_counter(), time.process_time()], dtype=float)


def _gramlet(count: int, weights: str, sender: multiprocessing.connection.Connection) -> None:
    vectors, engine = _vectors(count), Engine(Network(load("resnet50", weights)))
    items = [Item(str(i), str(i % CLUSTERS), vector=vector) for i, vector in enumerate(vectors)]
    with tempfile.TemporaryDirectory() as store:
        maps = Maps(engine, Store.open(store))
        _made(maps, MapSettings(descriptor=Descriptor.VECTOR), items[:500])  # what is imported at the first map
        before = _spent()
        _made(maps, MapSettings(descriptor=Descriptor.VECTOR), items)
        sender.send(tuple(_spent() - before))
    engine.close()


def _opentsne(count: int, weights: str, sender: multiprocessing.connection.Connection) -> None:
    from openTSNE import TSNE

    vectors = _vectors(count)
    TSNE(random_state=0, n_iter=10, early_exaggeration_iter=10).fit(vectors[:500])
    before = _spent()
    TSNE(random_state=0).fit(vectors)
    sender.send(tuple(_spent() - before))


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("descriptors", "size"))
    parser.add_argument("folders", nargs="*", metavar="NAME=DIR|drawn:NAME")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--weights", default="../shared/weights/resnet50.safetensors")
    parser.add_argument("--cache", type=Path, default=Path("/tmp/heads"))
    given = parser.parse_args()
    if given.what == "size":
        lines = size(given.count, given.rounds, given.weights)
    else:
        lines = (line for name in given.folders for line in descriptors(name, given.cache, given.weights))
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    main()
