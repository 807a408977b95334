"""A call leaves nothing to the garbage collector, for which all threads of the process wait."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from gramlet.errors import NotFound

from tests.e2e.cluster import wait_until
from tests.e2e.http2 import Connection

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
WATCH = "/grpc.health.v1.Health/Watch"


@contextmanager
def no_cycles() -> Iterator[None]:
    """Fails if a call that ends inside is part of a cycle, so that only the collector would free it."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield
        gc.collect()
        assert not [found for found in gc.garbage if isinstance(found, grpc.ServicerContext)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
        gc.collect()


def not_found(request: bytes, context: grpc.ServicerContext) -> bytes:
    raise NotFound("there is no such thing")


def a_bug(request: bytes, context: grpc.ServicerContext) -> bytes:
    raise ZeroDivisionError


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("answer", [not_found, a_bug])
def test_a_call_that_fails_leaves_no_cycle(serving: Any, kind: str, answer: Callable[..., bytes]) -> None:
    with no_cycles(), serving() as running:
        running.echo.answer = answer
        with pytest.raises(grpc.RpcError):
            running.call(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_that_is_refused_leaves_no_cycle(serving: Any, kind: str) -> None:
    with no_cycles(), serving(tokens=("ada:sesame-sesame",)) as running, pytest.raises(grpc.RpcError):
        running.call(kind)


@pytest.mark.parametrize("path", ["/test.Echo/stream_stream", WATCH])
def test_a_call_whose_caller_leaves_before_the_first_message_leaves_no_cycle(serving: Any, path: str) -> None:
    with no_cycles(), serving() as running:
        silences = running.server._silences
        with Connection(running.address) as connection:
            connection.send(connection.call(path))
            wait_until(lambda: bool(silences._waits))
        wait_until(lambda: not silences._waits)
