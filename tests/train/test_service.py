"""TrainService over gRPC: the wire and the command line. The client's calls are tested in _async/ and _sync/."""

import json
import threading

import gramlet
import grpc
import pytest
from gramlet.cli import __main__ as cli
from gramlet.train import head_wire
from gramlet.train import wire as messages
from gramlet.train.configuration import Configuration, HeadKind, Recipe, TrainOrder
from gramlet.train.types import Result
from gramlet.train.v1 import train_pb2, train_pb2_grpc
from gramlet_server.train.runs import Runs, RunSettings
from gramlet_server.train.service import TrainServicer

from tests.e2e.cluster import wait_until

from .conftest import serving

PROBE = {"kind": "linear", "optimizer": "lbfgs", "epochs": 5, "size": 64}


@pytest.fixture(scope="module")
def bees(address, folder) -> Result:
    with gramlet.Client(address) as client:
        return client.train(folder, name="bees", **PROBE).result()


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
    assert (configuration.size, configuration.folds) == (224, 0)
    message.ClearField("recipes")
    default = messages.decode_order(iter([train_pb2.TrainRequest(configuration=message)])).configuration
    assert default is not None
    assert [recipe.kind for recipe in default.recipes] == [HeadKind.MLP, HeadKind.LOGISTIC]


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

    def pinned(self, weights_digest):
        return self

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
