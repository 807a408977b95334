"""`gramlet-server` as people start it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path

import grpc
import pytest
from gramlet.feature.v1 import feature_pb2, feature_pb2_grpc
from gramlet_server.__main__ import main
from gramlet_server.services import SERVICES
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.bound import run_bound

QUIET = {name: value for name, value in os.environ.items() if not name.startswith("GRAMLET_")}


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gramlet_server", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=QUIET | environ)


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[str, str, subprocess.Popen[str]]]:
    """A server; its ready line, its address and its process."""
    command = [sys.executable, "-m", "gramlet_server", *arguments, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=QUIET) as process:
        try:
            assert process.stdout
            line = process.stdout.readline().strip()
            (address,) = re.findall(r" on (\S+:\d+) ", line)
            yield line, address, process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "the following arguments are required: services (see gramlet-server --help)"),
        (["feature", "--port", "x"], "--port: 'x' is not a whole number, 0 or more (see gramlet-server --help)"),
        (["stylize"], "--features: stylize needs a network: its address here, or serve `feature` (or `all`) as well"),
        (
            ["all", "--features", "x:1"],
            "--features: not together with `feature`, which has the network in this process",
        ),
        (["probe", "feature"], "probe and weights stand alone (see gramlet-server --help)"),
        (
            ["fature"],
            "services: invalid choice: 'fature' (choose from 'all', 'feature', 'stylize', 'train', 'embed', 'probe', "
            "'weights', 'token'): did you mean 'feature'? (see gramlet-server --help)",
        ),
        (
            ["feature", "--prot", "3"],
            "unrecognized: --prot 3: did you mean '--port'? (see gramlet-server --help)",
        ),
        (
            ["feature", "--backbone", "resnet51"],
            "--backbone: 'resnet51' is none of resnet50, vgg16, vgg19: did you mean 'resnet50'? "
            "(see gramlet-server --help)",
        ),
        (
            ["feature", "--tls-key", __file__],
            "--tls-cert: a certificate and its key go together: --tls-cert and --tls-key",
        ),
    ],
)
def test_a_wrong_command_line_is_answered_in_one_line(arguments: list[str], line: str) -> None:
    ended = run(*arguments)
    assert (ended.returncode, ended.stderr, ended.stdout) == (2, f"gramlet-server: {line}\n", "")


def help_of(*arguments: str) -> str:
    with redirect_stdout(StringIO()) as shown, pytest.raises(SystemExit) as ended:
        main([*arguments, "--help"])
    assert not ended.value.code
    return shown.getvalue()


def test_the_help_of_a_service_has_its_flags_only() -> None:
    for service, its, not_its in [
        ("embed", ["--embed-runs", "--features ", "--host", "--store"], ["--queue-limit", "--weights"]),
        ("feature", ["--queue-limit", "--weights", "--host"], ["--features ", "--store", "--embed-runs"]),
        ("probe", ["--port"], ["--store", "--weights"]),
    ]:
        shown = help_of(service)
        assert [flag for flag in its if flag not in shown] == []
        assert [flag for flag in not_its if flag in shown] == []
    assert "--queue-limit" not in help_of()
    assert [service for service in SERVICES if service not in help_of()] == []


def test_a_flag_without_effect_is_named() -> None:
    ended = run("probe", "--port", "1", "--queue-limit", "3")
    assert ended.stderr.startswith(
        "gramlet-server: warning: --queue-limit has no effect here: it is a flag of feature, all\n"
        "gramlet-server: no answer"
    )


def test_a_flag_of_other_services_is_no_misspelling_of_one_of_this() -> None:
    ended = run("feature", "--studio-port", "0", "--weights", "/nowhere")
    assert "--studio-port has no effect here: it is a flag of stylize, train, embed, all\n" in ended.stderr


def test_a_server_without_weights_refuses_to_start_and_says_how_to_give_it_some() -> None:
    ended = run("feature", "--port", "0", "--weights", "/nowhere/resnet50.safetensors")
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    for way in ("--weights FILE", "IMAGENET1K_V1", "pypi", "random:SEED"):
        assert way in ended.stderr


@pytest.mark.parametrize(
    ("flag", "value", "reason"),
    [
        ("--store", "http://host/store", "http://host/store is neither a directory nor s3://bucket/prefix"),
        ("--store", "/dev/null", "/dev/null is no directory"),
        ("--store", "/proc/none/store", "/proc/none/store cannot be created or opened: "),
        ("--embed-scratch", "/nowhere", "/nowhere: no such directory"),
        ("--dataset-roots", "gs://bucket", "gs://bucket is neither a folder nor s3://bucket/prefix"),
        ("--dataset-roots", "/tmp, /dev/null", "/dev/null: is no folder"),
        ("--dataset-roots", "s3://", "s3://: name a folder, or s3://bucket/prefix; not everything there is"),
    ],
)
def test_a_wrong_value_is_refused_before_the_weights_are_looked_at(flag: str, value: str, reason: str) -> None:
    ended = run("all", "--port", "0", "--weights", "/nowhere/resnet50.safetensors", flag, value)
    assert ended.returncode in (1, 2)
    assert ended.stderr.startswith(f"gramlet-server: {flag}: {reason}")
    assert ended.stderr.count("\n") == 1


def test_what_this_user_cannot_read_or_write_is_refused_before_the_weights_are_looked_at(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gramlet_server", "all", "--port", "0", "--weights", "/nowhere/weights.pth"]
    closed, tokens = tmp_path / "closed", tmp_path / "tokens"
    closed.mkdir(mode=0o500)
    tokens.touch(mode=0)
    for flag, value, reason in (
        ("--store", closed, "cannot be written"),
        ("--store", closed / "below", "cannot be created"),
        ("--embed-scratch", closed, "cannot be written"),
        ("--token-file", tokens, "cannot be read"),
    ):
        ended = run_bound([*command, flag, str(value)], tmp_path)
        assert ended.stderr.startswith(f"gramlet-server: {flag}: {value}")
        assert reason in ended.stderr
        assert ended.stderr.count("\n") == 1


def test_torch_is_not_imported_before_a_network_is_loaded() -> None:
    script = """
import sys, gramlet_server.__main__ as main, gramlet_server.services as services
shared = main.Shared(main.Settings())
for service in services.SERVICES.values():
    service(shared)
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0


def test_nobody_to_probe_is_a_failure() -> None:
    ended = run("probe", "--port", "1")
    assert ended.returncode == 1
    assert ended.stderr.startswith("gramlet-server: no answer on 127.0.0.1:1: ")


def test_the_network_is_served() -> None:
    with serving("feature", "--weights", "random:0", "--device", "cpu", "--metrics-port", "0") as (
        line,
        address,
        server,
    ):
        assert line.startswith(
            f"gramlet-server: serving feature on {address} (resnet50, cpu, weights random:0), metrics on "
        )
        with grpc.insecure_channel(address) as channel:
            model = feature_pb2_grpc.FeatureServiceStub(channel).GetModel(feature_pb2.GetModelRequest())
            assert model.backbone == "resnet50"
            names = {"FeatureService", "Health", "ServerReflection"}
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            ask = reflection_pb2.ServerReflectionRequest
            listed, described = stub.ServerReflectionInfo(
                iter([ask(list_services=""), ask(file_containing_symbol="gramlet.feature.v1.FeatureService")])
            )
        assert {service.name.rpartition(".")[2] for service in listed.list_services_response.service} == names
        assert described.file_descriptor_response.file_descriptor_proto
        assert run("probe", "--host", "0.0.0.0", "--port", address.rpartition(":")[2]).returncode == 0
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
