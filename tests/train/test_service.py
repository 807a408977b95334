"""TrainService over gRPC, by way of the client: the same promises as in process, and what only the wire can break."""

import inspect
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import gramlet
import grpc
import numpy as np
import pytest
from gramlet._async.train import AsyncTrainCalls
from gramlet._sync.train import TrainCalls
from gramlet.cli import __main__ as cli
from gramlet.errors import InvalidInput, NotFound, PermissionDenied
from gramlet.train import head_wire
from gramlet.train import wire as messages
from gramlet.train.configuration import Configuration, HeadKind, Optimizer, Recipe, TrainOrder
from gramlet.train.types import Accepted, Epoch, Extracting, HeadRef, Prediction, Result, Started
from gramlet.train.v1 import train_pb2, train_pb2_grpc
from gramlet_server.runs.store import Store
from gramlet_server.runtime.build import Built, Service
from gramlet_server.runtime.config import ServerSettings
from gramlet_server.runtime.server import Server
from gramlet_server.train.classifier import BaseStages
from gramlet_server.train.runs import Runs, RunSettings
from gramlet_server.train.service import TrainServicer
from PIL import Image

from tests.e2e.cluster import wait_until

from .conftest import make_files

PROBE = {"kind": "linear", "optimizer": "lbfgs", "epochs": 5, "size": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The pictures as files, in sets."""
    root = tmp_path_factory.mktemp("colors")
    for name, data in make_files().items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


@pytest.fixture(scope="module")
def address(engine, weights, folder, tmp_path_factory) -> Iterator[str]:
    store, base = Store.open(str(tmp_path_factory.mktemp("store"))), BaseStages(lambda: weights)
    runs = Runs(engine, store, base, RunSettings(dataset_roots=(str(folder),)))
    with serving(TrainServicer(runs, engine, store, base)) as address:
        yield address


@contextmanager
def serving(servicer: TrainServicer) -> Iterator[str]:
    """A server with that servicer; yields its address."""
    service = Service(
        "gramlet.train.v1.TrainService", train_pb2_grpc.add_TrainServiceServicer_to_server, lambda: Built(servicer)
    )
    server = Server([service], ServerSettings(port=0))
    built: SimpleQueue = SimpleQueue()
    server.start(built.put)
    assert built.get(timeout=30) is None
    yield f"127.0.0.1:{server.port}"
    server.stop(drain_seconds=0)


@pytest.fixture(scope="module")
def client(address) -> Iterator[gramlet.Client]:
    with gramlet.Client(address) as client:
        yield client


@pytest.fixture(scope="module")
def bees(client, folder) -> Result:
    return client.train(folder, name="bees", **PROBE).result()


def test_a_folder_is_trained_on_and_the_head_predicts_at_once(client, folder, bees):
    assert (bees.head.name, bees.head.version, bees.head.classes) == ("bees", 1, ("green", "red"))
    assert bees.head.accuracy == 1.0
    assert bees.learning_curves.startswith(b"\x89PNG")
    (best,) = client.predict("bees", folder / "val/red/0.png").top(1)
    assert best.label == "red"
    many = [folder / "val/green/0.png", b"broken", folder / "nothing.png", folder / "val/red/1.png"]
    green, broken, nothing, red = client.predict(bees, many)
    assert (green.label, red.label) == ("green", "red")
    assert isinstance(broken, InvalidInput)
    assert isinstance(nothing, NotFound)
    with pytest.raises(InvalidInput):
        client.predict("bees", b"broken")


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


@pytest.mark.parametrize("form", ["files", "mapping", "tuples", "arrays", "pil"])
def test_pictures_are_taken_in_every_form(form, client, folder):
    files = {name: sorted((folder / "train" / name).iterdir()) for name in ("red", "green")}
    pictures = {
        "files": folder / "train",
        "mapping": files,
        "tuples": [
            (path, label, "train" if i < 6 else "val") for label, p in files.items() for i, path in enumerate(p)
        ],
        "arrays": {label: [np.asarray(opened(path)) for path in paths] for label, paths in files.items()},
        "pil": {label: [opened(path) for path in paths] for label, paths in files.items()},
    }[form]
    result = client.train(pictures, name=f"form-{form}", **PROBE).result()
    assert result.head.accuracy == 1.0
    assert sum(len(report.classes) for report in result.head.outcome.reports) == 2


def test_events_come_in_order_and_a_second_run_sends_nothing(client, folder, bees):
    events = list(client.train(folder, name="again", kind="mlp", epochs=3, patience=0, size=64))
    kinds = [type(event) for event in events if not isinstance(event, Extracting)]
    assert kinds == [Accepted, Started, Epoch, Epoch, Epoch, Result]
    assert events[0].wanted == ()
    epochs = [event for event in events if isinstance(event, Epoch)]
    assert [event.epoch for event in epochs] == [1, 2, 3]
    assert all(event.rates["head"] > 0 for event in epochs)
    assert events[-1].head.outcome.history == tuple(epochs)


def test_several_recipes_are_compared_in_one_call(client, folder):
    recipes = [Recipe(epochs=3), Recipe(kind=HeadKind.LINEAR, optimizer=Optimizer.LBFGS, epochs=3)]
    result = client.train(folder, name="compared", recipes=recipes, size=64).result()
    assert [outcome.recipe for outcome in result.outcomes] == recipes
    assert result.head.outcome == result.outcomes[result.best]


def test_a_folder_of_the_server_is_read_by_the_server_and_no_other(client, folder):
    assert client.train(str(folder), name="there", on_server=True, **PROBE).result().head.accuracy == 1.0
    with pytest.raises(PermissionDenied, match="dataset-roots"):
        client.train("/etc", name="there", on_server=True, **PROBE).result()


def test_heads_are_listed_shown_exported_and_deleted(client, folder):
    for _ in range(2):
        client.train(folder, name="kept", **PROBE).result()
    assert [str(HeadRef(head.name, head.version)) for head in client.heads("kept")] == ["kept/1", "kept/2"]
    listed = client.heads("kept")[0]
    assert listed.outcome.history == ()
    details = client.head("kept/1")
    assert details.head.outcome.history
    assert details.confusion_matrix.startswith(b"\x89PNG")
    assert len(client.export_head("kept/1")) == listed.bytes
    assert client.export_head("kept", format="onnx")
    client.delete_head("kept/2")
    assert [head.version for head in client.heads("kept")] == [1]
    with pytest.raises(InvalidInput):
        client.delete_head("kept")
    with pytest.raises(NotFound):
        client.predict("kept/2", folder / "val/red/0.png")


def test_what_is_wrong_is_said_with_its_field(client, folder):
    with pytest.raises(InvalidInput, match="two classes"):
        client.train({"red": [folder / "train/red/0.png"]}, name="one").result()
    with pytest.raises(InvalidInput, match="none of mlp, linear"):
        client.train(folder, name="x", kind="deep")
    with pytest.raises(InvalidInput) as caught:
        client.train(folder, name="x", strategy="all_at_once").result()
    assert caught.value.field == "recipes[0].stages"
    with pytest.raises(NotFound):
        client.train(folder / "nowhere", name="x")
    with pytest.raises(NotFound):
        client.predict("nobody", folder / "val/red/0.png")
    with pytest.raises(NotFound):
        client.resume_training("nothing").result()
    with pytest.raises(InvalidInput, match="neither"):
        client.predict("bees/new", folder / "val/red/0.png")


def test_leaving_the_loop_cancels_and_the_run_can_be_resumed(client, folder):
    for event in client.train(folder, name="left", run_id="left", epochs=1000, patience=0, size=64):
        if isinstance(event, Epoch):
            break
    assert client.heads("left") == []
    # The run has its configuration; the pictures are cached.
    with client.resume_training("left") as events:
        assert any(isinstance(event, Epoch) for event in events)


async def test_the_asynchronous_client_does_the_same(address, folder, bees):
    async with gramlet.AsyncClient(address) as client:
        result = await client.train(folder, name="async", **PROBE).result()
        assert result.head.accuracy == 1.0
        assert (await client.predict("async", folder / "val/red/0.png")).label == "red"
        outcomes = [outcome async for outcome in client.predict("async", [folder / "val/green/0.png", b"broken"])]
        assert isinstance(outcomes[0], Prediction)
        assert isinstance(outcomes[1], InvalidInput)
        assert [head.version for head in await client.heads("async")] == [1]
        assert (await client.head("async")).head.name == "async"
        assert len(await client.export_head("async")) == result.head.bytes
        await client.delete_head("async/1")
        files = {label: list((folder / "train" / label).iterdir()) for label in ("red", "green")}
        fresh = {label: [path.read_bytes() + b" " for path in paths] for label, paths in files.items()}
        events = [event async for event in client.train(fresh, name="fresh", **PROBE)]
        assert len(events[0].wanted) == 16


def test_the_two_clients_have_the_same_calls():
    def calls(kind: type) -> dict[str, list[inspect.Parameter]]:
        public = {name: value for name, value in vars(kind).items() if not name.startswith("_") and callable(value)}
        return {name: list(inspect.signature(value).parameters.values()) for name, value in public.items()}

    assert calls(TrainCalls) == calls(AsyncTrainCalls)


def test_a_stream_that_breaks_the_order_is_refused(address):
    import grpc

    with grpc.insecure_channel(address) as channel:
        stub = train_pb2_grpc.TrainServiceStub(channel)
        picture = train_pb2.TrainRequest(picture=train_pb2.LabelledPicture(entry=0))
        for requests in ([], [picture], [train_pb2.TrainRequest()]):
            with pytest.raises(grpc.RpcError) as caught:
                list(stub.Train(iter(requests)))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_unset_fields_have_the_defaults_of_the_dataclasses():
    message = train_pb2.Configuration(name="bees", dataset_uri="s3://bucket", recipes=[train_pb2.Recipe()])
    configuration = messages.decode_order(iter([train_pb2.TrainRequest(configuration=message)])).configuration
    assert configuration is not None
    assert configuration.recipes == (Recipe(),)
    assert (configuration.size, configuration.validation_fraction) == (224, 0.2)


def test_recipes_and_heads_survive_the_wire(bees):
    recipe = Recipe(
        kind=HeadKind.LINEAR, stages=("layer4",), stage_rates={"layer4": 0.5}, learning_rate=0.25, calibrate=False
    )
    assert head_wire.RECIPE.decode(head_wire.RECIPE.encode(recipe)) == recipe
    assert head_wire.decode_head(head_wire.encode_head(bees.head)) == bees.head


def test_the_command_line_trains_predicts_and_looks_after_heads(address, folder, tmp_path, capsys):
    def run(*arguments: str) -> list[dict]:
        assert cli.main([*arguments, "--server", address, "--json"]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    report = tmp_path / "report"
    report.mkdir()
    events = run(
        "train", str(folder), "--name", "cli", "--kind", "linear,mlp", "--epochs", "40", "--size", "64",
        "--report", str(report),
    )  # fmt: skip
    assert events[-1]["event"] == "result"
    assert events[-1]["accuracy"] == 1.0
    assert {event["recipe"] for event in events if event["event"] == "epoch"} == {0, 1}
    assert (report / "confusion_matrix.png").read_bytes().startswith(b"\x89PNG")
    (prediction,) = run("predict", "cli", str(folder / "val/red/0.png"))
    assert (prediction["label"], prediction["classes"][0]["label"]) == ("red", "red")
    assert [head["name"] for head in run("heads", "list", "cli")] == ["cli"]
    run("heads", "export", "cli", "-o", str(tmp_path / "cli.onnx"))
    assert (tmp_path / "cli.onnx").stat().st_size > 1000
    run("heads", "delete", "cli/1")
    assert run("heads", "list", "cli") == []
    assert cli.main(["train", str(folder), "--server", address]) == 2
    assert "--name" in capsys.readouterr().err


def test_the_command_line_prints_the_reports_for_people(address, folder, capsys):
    arguments = ["train", str(folder), "--name", "shown", "--kind", "linear", "--epochs", "3", "--size", "64"]
    assert cli.main([*arguments, "--server", address]) == 0
    printed = capsys.readouterr().out
    for words in ("precision", "recall", "shown/1:", "calibration error"):
        assert words in printed
    assert cli.main(["predict", "shown", str(folder / "val/red/0.png"), "--server", address]) == 0
    assert "red" in capsys.readouterr().out


class Waiting:
    """A feature source that describes its network only when the test lets it."""

    def __init__(self, engine) -> None:
        self.engine = engine
        self.may_answer = threading.Event()

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def model(self):
        assert self.may_answer.wait(60)
        return self.engine.model()


class Noting(TrainServicer):
    """Notes the context of every Train call."""

    contexts: list[grpc.ServicerContext]

    def Train(self, request_iterator, context):
        self.contexts.append(context)
        return super().Train(request_iterator, context)


def test_a_call_cancelled_while_its_run_is_prepared_leaves_no_run_behind(engine, store, base, folder):
    source = Waiting(engine)
    runs = Runs(source, store, base, RunSettings(running_limit=1, queue_limit=0, dataset_roots=(str(folder),)))
    servicer = Noting(runs, engine, store, base)
    servicer.contexts = []
    with serving(servicer) as address, grpc.insecure_channel(address) as channel:
        # The server reads the pictures itself, so that the run would go on for long without its call.
        endless = Configuration("endless", (Recipe(epochs=10_000, patience=0),) * 16, dataset=str(folder), size=64)
        order = messages.encode_order(TrainOrder(endless))
        call = train_pb2_grpc.TrainServiceStub(channel).Train(iter([order]))
        wait_until(lambda: runs.lifecycle.queue.running == 1)
        call.cancel()
        wait_until(lambda: not servicer.contexts[0].is_active())
        source.may_answer.set()
        wait_until(lambda: runs.lifecycle.queue.running == 0)


def test_importing_the_client_loads_neither_torch_nor_matplotlib():
    import subprocess
    import sys

    code = "import sys, gramlet, gramlet.train.inputs; assert not {'torch', 'matplotlib', 'onnx'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
