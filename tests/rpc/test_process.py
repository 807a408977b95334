"""How a server process starts and ends, seen from outside."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest


@contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(Path(__file__).with_name("echo_server.py")), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            yield server
        finally:
            server.kill()


def said(server: subprocess.Popen[str]) -> str:
    """The next line of its stdout."""
    assert server.stdout
    return server.stdout.readline().strip()


@contextmanager
def slow_call(server: subprocess.Popen[str], request: bytes = b"") -> Iterator[Any]:
    word, port = said(server).split()
    assert word == "ready"
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_stream("/test.Slow/call")(request, timeout=60)
        assert said(server) == "called"
        assert next(call) == b"begun"
        yield call


@pytest.mark.parametrize(
    ("failure", "line"), [("weights", "no weights: give some"), ("bug", "ZeroDivisionError: a bug")]
)
def test_a_server_that_cannot_be_built_ends_with_one_line_and_code_1(failure: str, line: str) -> None:
    with process(failure) as server:
        _, errors = server.communicate(timeout=60)
    assert server.returncode == 1
    assert errors.splitlines()[-1] == f"gramlet-server: {line}"
    if failure == "weights":
        assert errors.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_running_call_finish(number: signal.Signals) -> None:
    with process("none", "finish") as server, slow_call(server) as call:
        server.send_signal(number)
        assert said(server) == "draining"
        assert list(call) == [b"done"]
        assert call.code() is grpc.StatusCode.OK
        assert said(server) == "closed"
        assert server.wait(60) == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_second_signal_ends_the_process_at_once(number: signal.Signals, code: int) -> None:
    with process("none") as server, slow_call(server) as call:
        server.send_signal(number)
        assert said(server) == "draining"
        server.send_signal(number)
        assert server.wait(60) == code
        assert call.code() is grpc.StatusCode.UNAVAILABLE


def test_a_server_that_still_loads_ends_without_a_warning() -> None:
    with process("endless") as server:
        assert said(server) == "loading"
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=60)
    assert server.returncode == 0
    assert "WARNING" not in errors


def test_a_call_that_cannot_be_stopped_does_not_keep_the_process() -> None:
    with process("none", "hasty") as server, slow_call(server, b"stubborn"):
        server.send_signal(signal.SIGTERM)
        _, errors = server.communicate(timeout=60)
    assert server.returncode == 0
    assert "ending with work that could not be stopped" in errors


def test_a_call_that_outlasts_the_drain_is_told_that_the_server_went() -> None:
    with process("none", "hasty") as server, slow_call(server) as call:
        server.send_signal(signal.SIGTERM)
        assert call.code() is grpc.StatusCode.UNAVAILABLE
        assert server.wait(60) == 0
