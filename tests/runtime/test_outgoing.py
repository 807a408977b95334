"""Replies that are not taken count against the memory of the process until they are gone."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from gramlet_server.process.memory_budget import PROCESS
from gramlet_server.runtime.outgoing import SMALL_BYTES

from tests.e2e.cluster import wait_until
from tests.e2e.http2 import Connection, frame

SIZE = 2**23
DATA, END_STREAM = 0, 1


@pytest.fixture(autouse=True)
def unlimited() -> Iterator[None]:
    yield
    PROCESS.set_limit(math.inf)


def call_without_reading(address: str, kind: str, window: int = 0) -> Connection:
    """Makes a call over a connection whose streams have so many bytes of window, and never get more."""
    connection = Connection(address, window=window)
    message = b"\0" + struct.pack(">I", 1) + b"?"
    connection.send(connection.call(f"/test.Echo/{kind}") + frame(DATA, END_STREAM, 1, message))
    return connection


def answer_large(running: Any) -> None:
    running.echo.answer = lambda request, context: bytes(SIZE)


@pytest.mark.parametrize("leaves", [True, False], ids=["leaves", "is ended"])
def test_a_reply_that_is_not_taken_is_counted_until_its_call_has_ended(serving: Any, leaves: bool) -> None:
    before = PROCESS.reserved
    with serving(idle_seconds=0 if leaves else 1) as running:
        answer_large(running)
        with call_without_reading(running.address, "unary_unary") as connection:
            wait_until(lambda: PROCESS.reserved >= before + 2 * SIZE, what="the reply is counted")
            if not leaves:
                wait_until(lambda: PROCESS.reserved == before, what="the call is ended, and its reply dropped")
            assert not connection.ended.is_set()
        wait_until(lambda: PROCESS.reserved == before, what="the reply is dropped")


def test_a_stream_counts_the_reply_that_waits(serving: Any) -> None:
    before = PROCESS.reserved
    with serving() as running:
        answer_large(running)
        with call_without_reading(running.address, "unary_stream", window=1024):
            wait_until(lambda: PROCESS.reserved >= before + 2 * SIZE, what="the second reply is counted")
        wait_until(lambda: PROCESS.reserved == before, what="the reply is dropped")


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream"])
def test_replies_that_are_taken_leave_nothing_reserved(serving: Any, kind: str) -> None:
    before = PROCESS.reserved
    options = [("grpc.max_receive_message_length", -1)]
    with serving() as running, grpc.insecure_channel(running.address, options) as running.channel:
        answer_large(running)
        assert len(running.call(kind)[0][-1]) == SIZE
        wait_until(lambda: PROCESS.reserved == before, what="the reply is given back")


def test_a_full_server_gives_small_replies_and_refuses_large_ones(serving: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("gramlet_server.process.memory_budget.WAIT_SECONDS", 0.1)
    with serving() as running, PROCESS.reserve(2**20):
        PROCESS.set_limit(PROCESS.reserved + SIZE)
        running.echo.answer = lambda request, context: bytes(SMALL_BYTES)
        assert running.call("unary_unary")[0] == [bytes(SMALL_BYTES)]
        running.echo.answer = lambda request, context: bytes(SIZE // 2 + 1)
        with pytest.raises(grpc.RpcError) as failure, PROCESS.reserve(2):
            running.call("unary_unary")
        assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
