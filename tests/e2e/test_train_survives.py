"""A training in processes of its own, and its server killed in the middle of it."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gramlet import Client
from gramlet.train.configuration import HeadKind, Recipe
from gramlet.train.types import Accepted, Epoch, Event, Extracting, HeadRef, Result, Skipped, Started
from gramlet_server.runs.store import Store
from gramlet_server.train.registry import Registry
from PIL import Image

from tests.e2e.cluster import Cluster, GramletServer, ready

PER_CLASS = 16
COLORS = {"red": (200, 60, 60), "green": (60, 200, 60)}


@pytest.fixture(scope="module")
def feature(cluster: Cluster) -> Iterator[GramletServer]:
    # Slow enough that what is done to an upload in its middle is done in its middle.
    server = cluster.features(seconds_per_picture=0.1)
    with ready(server):
        yield server


@pytest.fixture
def train(cluster: Cluster, feature: GramletServer, tmp_path: Path) -> Iterator[GramletServer]:
    server = cluster.server("train", f"--features={feature.address}", f"--store={tmp_path / 'store'}")
    with ready(server):
        yield server


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of pictures that no other test has sent."""
    rng = np.random.default_rng(abs(hash(str(tmp_path))) % 2**32)
    for label, color in COLORS.items():
        folder = tmp_path / "pictures" / label
        folder.mkdir(parents=True)
        for i in range(PER_CLASS):
            pixels = np.array(color) + rng.normal(0, 40, (64, 64, 3))
            file = io.BytesIO()
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, format="PNG")
            (folder / f"{i}.png").write_bytes(file.getvalue())
    return tmp_path / "pictures"


def tensors(store: Store, result: Result) -> bytes:
    registry = Registry(store)
    head, content = registry.find(HeadRef(result.head.name, result.head.version))
    state = registry.weights(head.name, content).head
    return b"".join(state[name].numpy().tobytes() for name in sorted(state))


def nothing_half_written(store: Store) -> bool:
    """Every pack of features that can be found is there, and no head but `whole`."""
    packs = {entry.key for entry in store.list("features")}
    complete = all(key.replace(".keys", ".npy") in packs for key in packs if key.endswith(".keys"))
    return complete and {head.name for head in Registry(store).heads()} <= {"whole"}


def cut_off(
    client: Client, server: GramletServer, store: Store, pictures: Path, at: Callable[[Event], bool], **options: Any
) -> list[Event]:
    """The events of a run whose server is killed at an event, once, and started again."""
    events: list[Event] = []
    killed = False
    for event in client.train(pictures, name="cut", **options):
        events.append(event)
        if not killed and at(event):
            killed = True
            server.kill()
            assert nothing_half_written(store)
            server.start()
    assert killed
    return events


def test_killed_in_training_the_run_goes_on_by_itself_to_the_same_head(
    train: GramletServer, store: Store, pictures: Path
) -> None:
    with Client(train.address) as client:
        options = {"epochs": 40, "patience": 0, "size": 64}
        whole = client.train(pictures, name="whole", **options).result()
        events = cut_off(client, train, store, pictures, lambda event: isinstance(event, Epoch), **options)
    result = events[-1]
    assert isinstance(result, Result)
    epochs = [event.epoch for event in events if isinstance(event, Epoch)]
    assert epochs == list(range(1, 41))
    assert tensors(store, result) == tensors(store, whole)


def reported(events: Sequence[Event]) -> list[tuple[object, ...]]:
    """All events but those that only show progress, without times."""
    found: list[tuple[object, ...]] = []
    for event in events:
        match event:
            case Skipped():
                found.append((event.name, event.reason))
            case Started():
                found.append((event.recipe, event.classes, *event.sets.items()))
            case Epoch():
                found.append((event.recipe, event.epoch, event.loss, event.accuracy, event.best))
    return found


@pytest.mark.timeout(600)  # each start takes half a minute on a busy machine
def test_killed_again_and_again_its_caller_sees_every_event_once(
    train: GramletServer, store: Store, pictures: Path
) -> None:
    (pictures / "red" / "broken.png").write_bytes(b"no picture")
    recipes = [Recipe(epochs=30, patience=0), Recipe(kind=HeadKind.LINEAR, epochs=150, patience=0)]
    options: dict[str, Any] = {"recipes": recipes, "size": 64, "unreadable": "skip"}
    with Client(train.address) as client:
        whole = list(client.train(pictures, name="whole", **options))
        cut = []
        kills = {(0, 5), (1, 1), (1, 149)}  # at the last one only the result is left to send
        for event in client.train(pictures, name="cut", **options):
            cut.append(event)
            time.sleep(0.02)  # a slow reader: the server is ahead of it
            if isinstance(event, Epoch) and (event.recipe, event.epoch) in kills:
                kills.remove((event.recipe, event.epoch))
                train.kill()
                train.start()
        train.wait_until_ready()
    assert not kills
    assert reported(cut) == reported(whole)
    assert isinstance(cut[-1], Result)
    assert isinstance(whole[-1], Result)
    assert tensors(store, cut[-1]) == tensors(store, whole[-1])


def test_killed_in_the_upload_the_run_goes_on_by_itself_and_nothing_is_half_written(
    train: GramletServer, feature: GramletServer, store: Store, pictures: Path
) -> None:
    with Client(train.address) as client:

        def under_way(event: Event) -> bool:
            return isinstance(event, Extracting) and 0 < event.done < event.total

        events = cut_off(client, train, store, pictures, under_way, epochs=3, size=64)
        accepted = [event for event in events if isinstance(event, Accepted)]
        assert len(accepted) == 1
        assert len(accepted[0].wanted) == 2 * PER_CLASS
        assert isinstance(events[-1], Result)
        assert len(client.heads("cut")) == 1
