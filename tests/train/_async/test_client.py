"""Training, and the heads that come of it, through the client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gramlet
import numpy as np
import pytest
from gramlet.errors import InvalidInput, NotFound, PermissionDenied
from gramlet.train.configuration import HeadKind, Optimizer, Recipe
from gramlet.train.predictions import Prediction
from gramlet.train.types import Accepted, Epoch, Extracting, HeadRef, Result, Started, Step
from PIL import Image

from tests.clients.servers import acollect

PROBE: Any = {"kind": "linear", "optimizer": "lbfgs", "epochs": 5, "size": 64}


@pytest.fixture
async def client(address: str) -> AsyncIterator[gramlet.AsyncClient]:
    async with gramlet.AsyncClient(address) as client:
        yield client


async def test_a_folder_is_trained_on_and_the_head_predicts_at_once(client: gramlet.AsyncClient, folder: Path) -> None:
    bees = await client.train(folder, name="bees", **PROBE).result()
    assert (bees.head.name, bees.head.version, bees.head.classes) == ("bees", 1, ("green", "red"))
    assert bees.head.accuracy == 1.0
    assert bees.learning_curves.startswith(b"\x89PNG")
    (best,) = (await client.predict("bees", folder / "val/red/0.png")).top(1)
    assert best.label == "red"
    many = [folder / "val/green/0.png", b"broken", folder / "nothing.png", folder / "val/red/1.png"]
    green, broken, nothing, red = await acollect(client.predict(bees, many))
    assert (green.label, red.label) == ("green", "red")
    assert isinstance(broken, InvalidInput)
    assert isinstance(nothing, NotFound)
    for wrong, error in ((b"broken", InvalidInput), (folder / "nothing.png", NotFound)):
        with pytest.raises(error):
            await client.predict("bees", wrong)
    with pytest.raises(InvalidInput, match="neither"):
        await client.predict("bees/new", folder / "val/red/0.png")


async def test_many_pictures_are_predicted_in_their_order(client: gramlet.AsyncClient, folder: Path) -> None:
    await client.train(folder, name="order", **PROBE).result()
    colors = ["red", "green", "green"] * 25
    outcomes = await acollect(client.predict("order", (folder / f"val/{color}/0.png" for color in colors)))
    assert [outcome.label for outcome in outcomes if isinstance(outcome, Prediction)] == colors
    nothing = await acollect(client.predict("order", [folder / "nothing.png"] * 40))
    assert [type(outcome) for outcome in nothing] == [NotFound] * 40


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


@pytest.mark.parametrize("form", ["files", "mapping", "tuples", "arrays", "pil"])
async def test_pictures_are_taken_in_every_form(form: str, client: gramlet.AsyncClient, folder: Path) -> None:
    files = {name: sorted((folder / "train" / name).iterdir()) for name in ("red", "green")}
    pictures: Any = {
        "files": folder / "train",
        "mapping": files,
        "tuples": [
            (path, label, "train" if i < 6 else "val") for label, p in files.items() for i, path in enumerate(p)
        ],
        "arrays": {label: [np.asarray(opened(path)) for path in paths] for label, paths in files.items()},
        "pil": {label: [opened(path) for path in paths] for label, paths in files.items()},
    }[form]
    result = await client.train(pictures, name=f"form-{form}", **PROBE).result()
    assert result.head.accuracy == 1.0
    assert [len(report.classes) for report in result.head.outcome.reports] == ([2, 2] if form == "tuples" else [2])


async def test_events_come_in_order_and_a_second_run_sends_nothing(client: gramlet.AsyncClient, folder: Path) -> None:
    files = {label: list((folder / "train" / label).iterdir()) for label in ("red", "green")}
    fresh = {label: [path.read_bytes() + b" " for path in paths] for label, paths in files.items()}
    first: list[Any] = await acollect(client.train(fresh, name="fresh", **PROBE))
    assert len(first[0].wanted) in (0, 16)  # none where the twin of this test has sent them before
    events: list[Any] = await acollect(client.train(fresh, name="again", kind="mlp", epochs=3, patience=0, size=64))
    kinds = [type(event) for event in events if not isinstance(event, Extracting | Step)]
    assert kinds == [Accepted, Started, Epoch, Epoch, Epoch, Result]
    assert events[0].wanted == ()
    epochs = [event for event in events if isinstance(event, Epoch)]
    assert [event.epoch for event in epochs] == [1, 2, 3]
    assert all(event.rates["head"] > 0 for event in epochs)
    assert events[-1].head.outcome.history == tuple(epochs)


async def test_several_recipes_are_compared_in_one_call(client: gramlet.AsyncClient, folder: Path) -> None:
    recipes = [Recipe(epochs=3), Recipe(kind=HeadKind.LINEAR, optimizer=Optimizer.LBFGS, epochs=3)]
    result = await client.train(folder, name="compared", recipes=recipes, size=64).result()
    assert [outcome.recipe for outcome in result.outcomes] == recipes
    assert result.head.outcome == result.outcomes[result.best]


async def test_a_folder_of_the_server_is_read_by_the_server_and_no_other(
    client: gramlet.AsyncClient, folder: Path
) -> None:
    result = await client.train(str(folder), name="there", on_server=True, **PROBE).result()
    assert result.head.accuracy == 1.0
    with pytest.raises(PermissionDenied, match="dataset-roots"):
        await client.train("/etc", name="there", on_server=True, **PROBE).result()


async def test_heads_are_listed_shown_exported_and_deleted(client: gramlet.AsyncClient, folder: Path) -> None:
    for _ in range(2):
        await client.train(folder, name="kept", **PROBE).result()
    assert [str(HeadRef(head.name, head.version)) for head in await client.heads("kept")] == ["kept/1", "kept/2"]
    listed = (await client.heads("kept"))[0]
    assert listed.outcome.history == ()
    details = await client.head("kept/1")
    assert details.head.outcome.history
    assert details.confusion_matrix.startswith(b"\x89PNG")
    assert len(await client.export_head("kept/1")) == listed.bytes
    assert await client.export_head("kept", format="onnx")
    await client.delete_head("kept/2")
    assert [head.version for head in await client.heads("kept")] == [1]
    with pytest.raises(InvalidInput):
        await client.delete_head("kept")
    with pytest.raises(NotFound):
        await client.predict("kept/2", folder / "val/red/0.png")


async def test_a_mistake_is_named_with_its_field(client: gramlet.AsyncClient, folder: Path) -> None:
    with pytest.raises(InvalidInput, match="two classes"):
        await client.train({"red": [folder / "train/red/0.png"]}, name="one").result()
    with pytest.raises(InvalidInput, match="none of mlp, linear"):
        await client.train(folder, name="x", kind="deep").result()
    with pytest.raises(InvalidInput) as caught:
        await client.train(folder, name="x", strategy="all_at_once").result()
    assert caught.value.field == "stages"
    with pytest.raises(NotFound):
        await client.train(folder / "nowhere", name="x").result()
    with pytest.raises(NotFound):
        await client.predict("nobody", folder / "val/red/0.png")
    with pytest.raises(NotFound):
        await client.resume_training("nothing").result()


async def test_leaving_the_loop_cancels_and_the_run_can_be_resumed(client: gramlet.AsyncClient, folder: Path) -> None:
    run_id = ""
    async for event in client.train(folder, name="left", epochs=1000, patience=0, size=64):
        if isinstance(event, Accepted):
            run_id = event.run_id
        if isinstance(event, Epoch):
            break
    assert await client.heads("left") == []
    # The run has its configuration; the features of its pictures are stored.
    async with client.resume_training(run_id) as events:
        async for event in events:
            if isinstance(event, Epoch):
                break
        assert isinstance(event, Epoch)
