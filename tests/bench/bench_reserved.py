"""What the server reserves for a piece of work, or says that it takes, beside the memory that the work really takes.

    python tests/bench/bench_reserved.py [WORK ...] [--largest]

Each row has a server of its own, on random weights. After a small piece of work of the same kind, freed memory is
returned to the kernel; what the resident memory rises by until its peak is what the work takes (`taken_mib`). Part of
that are freed blocks, which the allocator keeps for the next pass: `used_mib` is by how much the allocator handed out
more at its peak, looked at every 2 ms. `reserved_mib` is the most that the budget of the process had reserved more
than before, and `told_mib` the bound that Embed reports. `ratio` is the larger of both over what was taken, and
`of_used` over what was handed out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gramlet import Client
from gramlet.embed.drawings import DrawingForm
from gramlet.embed.settings import Descriptor, Method
from gramlet.embed.types import Started
from gramlet.feature.descent_types import DescentEnding, DescentSettings, DescentStart, Optimizer
from gramlet.feature.types import Objective, Style
from gramlet.train.configuration import Recipe, Strategy

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.bench.metered import metered

MIB = 2**20


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


def objective(side: int) -> Objective:
    """Of a content and a style that are as wide as the size says."""
    content, style = (np.float32(1 / 255) * picture(side, seed).transpose(2, 0, 1) for seed in (0, 1))
    stages = {"conv1": 1.0, "layer1": 1.0, "layer2": 1.0, "layer4": 1.0}
    return Objective(content, "layer2", 1.0, (Style(style, 1.0),), stages, 1.0)


def gradient(client: Client, side: int) -> None:
    with client.differentiate(objective(side)) as differentiation:
        for seed in (0, 1):
            differentiation.evaluate(np.float32(1 / 255) * picture(side, seed).transpose(2, 0, 1))


def descend(optimizer: Optimizer) -> Callable[[Client, int], None]:
    """A descent of 12 iterations that hands out its whole state at the end."""

    def do(client: Client, side: int) -> None:
        settings = DescentSettings(optimizer=optimizer, learning_rate=1.0 if optimizer is Optimizer.LBFGS else 0.02)
        start = DescentStart(objective=objective(side), settings=settings, iterations=12, ending=DescentEnding.STATE)
        with client.descend(start) as descent:
            list(descent)

    return do


def see(client: Client, side: int) -> None:
    """The strongest patches in pictures that are as wide as the size says, and their projections."""
    pictures = [picture(side, seed) for seed in range(8)]
    client.see(
        "layer3", list(range(16)), pictures, patches=4, projection="guided", optimize=False, resize=side
    ).result()


def see_all(client: Client, side: int) -> None:
    client.see("layer3", None, [picture(side, seed) for seed in range(8)], resize=side).result()


def maximize(client: Client, side: int) -> None:
    client.see("layer3", [0, 1], optimize=True, optimized_size=side, steps=8).result()


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


def train(stages: tuple[str, ...], name: str = "") -> Callable[[Client, int], None]:
    """A head on so many pictures in two classes."""

    def do(client: Client, count: int) -> None:
        pictures = [(picture(64, seed), f"class {seed % 2}") for seed in range(count)]
        strategy: dict[str, Any] = {"strategy": Strategy.ALL_AT_ONCE, "stages": stages, "stage_epochs": 2}
        recipe = Recipe(epochs=2, **(strategy if stages else {}))
        client.train(pictures, name=name or f"of-{count}", recipes=[recipe]).result()

    return do


def predict(client: Client, side: int) -> None:
    """By the head that `train` has made of so many pictures, for pictures as wide as that."""
    list(client.predict(f"of-{side}", [picture(side, seed) for seed in range(16)], heat_maps=True))


def head(stages: tuple[str, ...] = ()) -> Callable[[Client, int], None]:
    """A head on 8 pictures, with the name that `predict` expects."""

    def do(client: Client, side: int) -> None:
        train(stages, name=f"of-{side}")(client, 8)

    return do


def transform(client: Client, count: int) -> None:
    """New vectors on the map that `vectors` has made of so many."""
    rows = np.random.default_rng(1).standard_normal((256, 512), dtype=np.float32)
    list(client.transform(f"of-{count}", list(rows)))


def export(client: Client, count: int) -> None:
    """An ONNX file with the network, of the head that `train` has made."""
    client.export_head(f"of-{count}", format="onnx", with_backbone=True)


# Each name: the steps before it, the step that is measured, and its sizes, of which the first is small.
WORKS: dict[str, Work] = {
    "extract pooled layer4": Work(extract(stages=["layer4"], pooled=True), (64, 1536, 2048, 3072)),
    "extract gram conv1": Work(extract(stages=["conv1"], gram=True), (64, 1536, 2048, 3072)),
    "extract activations layer2": Work(extract(stages=["layer2"], activations=True), (64, 1024, 1400)),
    "differentiate": Work(gradient, (64, 512, 768, 1024)),
    "descend lbfgs": Work(descend(Optimizer.LBFGS), (64, 512, 768, 1024)),
    "descend adam": Work(descend(Optimizer.ADAM), (64, 768)),
    "see projections": Work(see, (64, 256, 512)),
    "see all channels": Work(see_all, (64, 512, 1024)),
    "see optimized": Work(maximize, (64, 160, 512)),
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
    "predict": Work(predict, (64, 224, 1024), before=head()),
    "predict layer4": Work(predict, (64, 224, 1024), before=head(("layer4",))),
    "transform by pca": Work(transform, (100, 20000), before=vectors(Method.PCA, 512)),
    "transform by tsne": Work(transform, (100, 20000), before=vectors(Method.TSNE, 512, iterations=30)),
    "export": Work(export, (8, 16), before=train(())),
    "export layer4": Work(export, (8, 16), before=train(("layer4",))),
}


def measured(work: Work, size: int) -> dict[str, Any]:
    """One row, from a server of its own."""
    with metered("--feature-cache-bytes=0", *work.flags) as (server, ask), Client(server) as client:
        for each in (work.sizes[0], size):
            work.before(client, each)
        work.do(client, work.sizes[0])
        ask("begin")
        told = work.do(client, size) or 0
        found = ask("end")
    row = {"taken_mib": found["resident"], "used_mib": found["used"], "reserved_mib": found["reserved"]}
    row |= {"told_mib": told} if told else {}
    bound = max(told, found["reserved"])
    ratios = {"ratio": bound / max(1, found["resident"]), "of_used": bound / max(1, found["used"])}
    return (
        {"size": size}
        | {name: round(value / MIB) for name, value in row.items()}
        | {name: round(value, 2) for name, value in ratios.items()}
    )


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
    main()
