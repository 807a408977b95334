"""Training a head beside the direct loop, in one run: seconds an epoch, and validation accuracy.

The direct loop is that of PyTorch's transfer-learning tutorial with a frozen network: every epoch decodes every picture
and runs it through the network, training and validation set alike. gramlet runs the network once. Both train the same
head, Linear(2048, 500) → BatchNorm1d → ReLU → Linear(500, classes), by AdamW at the same rate and batch size.

    python tests/bench/bench_heads.py [--pictures ../shared/datasets/hymenoptera] [--weights PATH|random:0]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gramlet.train.configuration import Configuration, Recipe, TrainOrder, Upload
from gramlet.train.inputs import LabelledPictures, read_labelled
from gramlet.train.types import Epoch, Result
from gramlet_server.backbone.network import Network
from gramlet_server.backbone.weights import load
from gramlet_server.feature.engine import Engine
from gramlet_server.pictures.prepare import prepare
from gramlet_server.runs.store import Store
from gramlet_server.train.classifier import EMBEDDING, BaseStages, build_head, extraction
from gramlet_server.train.optimizers import learning_rate
from gramlet_server.train.runs import Runs

SHARED = Path(__file__).parents[3] / "shared"


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Runs both ways, prints a row of each and their comparison, and returns the rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=Path, default=SHARED / "datasets/hymenoptera")
    weights = os.environ.get("GRAMLET_TEST_WEIGHTS", str(SHARED / "weights/resnet50.safetensors"))
    parser.add_argument("--weights", default=weights)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--direct-epochs", type=int, default=3, help="epochs of the direct loop; it has no more to say")
    chosen = parser.parse_args(arguments)
    pictures, network = read_labelled(chosen.pictures), Network(load("resnet50", chosen.weights))
    recipe = Recipe(patience=0, epochs=30)
    rows = [gramlet(pictures, network, recipe, chosen.size)]
    print(json.dumps(rows[0]), flush=True)
    rows.append(direct(pictures, network, recipe, chosen.size, chosen.direct_epochs))
    print(json.dumps(rows[1]), flush=True)
    rows.append(
        {
            "benchmark": "heads",
            "way": "comparison",
            "epochs_faster": rows[1]["seconds_per_epoch"] / rows[0]["seconds_per_epoch"],
            "accuracy_difference_at_equal_epochs": rows[0]["accuracy_by_epoch"][chosen.direct_epochs - 1]
            - rows[1]["accuracy"],
        }
    )
    print(json.dumps(rows[2]), flush=True)
    return rows


def gramlet(pictures: LabelledPictures, network: Network, recipe: Recipe, size: int) -> dict[str, Any]:
    """A run as TrainService makes it, the second time too: then every picture is known."""
    engine = Engine(network)
    seconds = []
    with tempfile.TemporaryDirectory(prefix="gramlet-bench-") as folder:
        runs = Runs(engine, Store.open(folder), BaseStages(None))
        for _ in range(2):
            started = time.perf_counter()
            *events, result = runs.start(
                TrainOrder(Configuration("bench", (recipe,), pictures.entries, size=size)), _uploads(pictures)
            )
            seconds.append(time.perf_counter() - started)
            if len(seconds) == 1:
                feature_seconds = result.feature_seconds
    engine.close()
    assert isinstance(result, Result)
    epochs = [event for event in events if isinstance(event, Epoch)]
    return {
        "benchmark": "heads",
        "way": "gramlet",
        "pictures": len(pictures.entries),
        "seconds_first_run": seconds[0],
        "feature_share_of_first_run": feature_seconds / seconds[0],
        "seconds_second_run": seconds[1],
        "seconds_per_epoch": float(np.median([epoch.seconds for epoch in epochs])),
        "accuracy": result.head.accuracy,
        "accuracy_by_epoch": [epoch.accuracy for epoch in epochs],
    }


def _uploads(pictures: LabelledPictures) -> Any:
    return (Upload(position, read()) for position, read in enumerate(pictures.readers))


def direct(pictures: LabelledPictures, network: Network, recipe: Recipe, size: int, epochs: int) -> dict[str, Any]:
    """The loop that runs the frozen network in every epoch."""
    classes = sorted({entry.label for entry in pictures.entries})
    sets = {name: [i for i, e in enumerate(pictures.entries) if e.set == name] for name in ("train", "val")}
    labels = torch.tensor([classes.index(entry.label) for entry in pictures.entries])
    head = build_head(recipe.kind, 2048, len(classes), recipe.seed)
    optimizer = torch.optim.AdamW(head.parameters(), lr=learning_rate(recipe), weight_decay=recipe.weight_decay)
    resize = extraction([EMBEDDING], size).resize
    limits = Engine(network).model().limits

    def embeddings(positions: Any) -> torch.Tensor:
        batch = [prepare(pictures.readers[i](), resize, limits) for i in positions]
        with torch.inference_mode():
            found = network.activations(torch.from_numpy(np.stack(batch)), [EMBEDDING])[EMBEDDING].flatten(1)
        return found.clone()  # out of inference mode

    started = time.perf_counter()
    for epoch in range(epochs):
        head.train()
        order = np.random.default_rng((recipe.seed, epoch)).permutation(sets["train"])
        for start in range(0, len(order), recipe.batch_size):
            batch = order[start : start + recipe.batch_size]
            loss = torch.nn.functional.cross_entropy(head(embeddings(batch)), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        head.eval()
        right = 0
        for start in range(0, len(sets["val"]), recipe.batch_size):
            batch = sets["val"][start : start + recipe.batch_size]
            right += int((head(embeddings(batch)).argmax(1) == labels[batch]).sum())
    return {
        "benchmark": "heads",
        "way": "direct",
        "pictures": len(pictures.entries),
        "seconds_per_epoch": (time.perf_counter() - started) / epochs,
        "accuracy": right / len(sets["val"]),
    }


if __name__ == "__main__":
    main()
