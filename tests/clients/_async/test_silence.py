"""A server that falls silent, or repeats itself, does not hold its callers for ever."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event
from typing import Any

import gramlet
import pytest
from gramlet.errors import DeadlineExceeded, InternalError, Unavailable
from gramlet.feature.wire import GET_MODEL
from gramlet.stylize.types import Iteration
from gramlet.stylize.v1 import stylize_pb2
from gramlet.stylize.wire import STYLIZE as STYLIZE_RPC
from gramlet.stylize.wire import encode_event
from gramlet.transport import aio, connection, ending, sync

from tests.clients.scripts import OBJECTIVE, PICTURE, RESULT, RESUMED, START, differentiating, iteration, run
from tests.clients.servers import FEATURE, STYLIZE, TRAIN, Script, acollect, async_client_of


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that give a silent server up after a moment."""
    for rpc in (STYLIZE_RPC, GET_MODEL):
        monkeypatch.setitem(vars(rpc), "silence", 1.0)
    monkeypatch.setattr(ending, "_TICK_SECONDS", 0.05)


@pytest.fixture
def hastier(monkeypatch: pytest.MonkeyPatch) -> None:
    """They wait a moment only for the first reply as well."""
    for module in (aio, sync):
        monkeypatch.setattr(module, "SILENCE_SECONDS", 1.0)


@pytest.fixture
def quiet() -> Iterator[Event]:
    """Set when the test ends, for servers that wait."""
    ended = Event()
    yield ended
    ended.set()


def silent_after(ended: Event, *events: Any) -> Any:
    """Stylize: these events, and then nothing."""

    def stream(request: Any, context: Any) -> Iterator[Any]:
        for event in events:
            yield encode_event(event, request.run_id or request.resume_run_id)
        ended.wait(60)

    return stream


async def test_a_run_goes_on_at_the_next_attempt_when_its_server_falls_silent(quiet: Event) -> None:
    script = Script(
        Stylize=[
            silent_after(quiet, START, iteration(1), iteration(2)),
            run(RESUMED, iteration(3), iteration(4), RESULT),
        ]
    )
    async with async_client_of({STYLIZE: script}) as client:
        events = await acollect(client.stylize(PICTURE, PICTURE))
        quiet.set()
    assert [event.iteration for event in events if isinstance(event, Iteration)] == [1, 2, 3, 4]
    assert [request.resume_run_id != "" for _, request in script.calls] == [False, True]


async def test_a_server_that_stays_silent_is_unavailable(quiet: Event) -> None:
    async with async_client_of({STYLIZE: Script(Stylize=[silent_after(quiet, START)])}, patience=0.1) as client:
        with pytest.raises(Unavailable, match="has sent nothing for 1 s"):
            await acollect(client.stylize(PICTURE, PICTURE))
        quiet.set()


async def test_signs_of_work_are_no_events() -> None:
    def stream(request: Any, context: Any) -> Iterator[Any]:
        for event in (START, None, None, RESULT):
            yield encode_event(event, request.run_id)

    script = Script(Stylize=[stream])
    async with async_client_of({STYLIZE: script}) as client:
        events = await acollect(client.stylize(PICTURE, PICTURE))
    assert [type(event) for event in events] == [type(START), type(RESULT)]


async def test_a_unary_call_has_a_deadline_of_its_own(quiet: Event) -> None:
    script = Script(GetModel=[lambda request, context: quiet.wait(60)])
    async with async_client_of({FEATURE: script}) as client:
        with pytest.raises(DeadlineExceeded):
            await client.model()
        quiet.set()


@pytest.mark.usefixtures("hastier")
async def test_a_differentiation_does_not_wait_for_ever(quiet: Event) -> None:
    def stream(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        yield from differentiating(0)(iter([next(requests)]), context)
        quiet.wait(60)

    script = Script(Differentiate=[stream])
    async with async_client_of({FEATURE: script}, patience=0.1) as client:
        with pytest.raises(Unavailable, match="has sent nothing"):
            async with client.differentiate(OBJECTIVE) as differentiation:
                await differentiation.evaluate(PICTURE)
        quiet.set()


@pytest.mark.usefixtures("hastier")
async def test_a_file_that_never_comes_is_given_up(quiet: Event) -> None:
    def stream(request: Any, context: Any) -> Iterator[Any]:
        quiet.wait(60)
        yield from ()

    async with async_client_of({TRAIN: Script(ExportHead=[stream])}, patience=0.1) as client:
        with pytest.raises(Unavailable, match="has sent nothing"):
            await client.export_head("bees")
        quiet.set()


async def test_a_server_that_repeats_itself_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_REPETITIONS", 100)

    def stream(request: Any, context: Any) -> Iterator[Any]:
        yield encode_event(START, request.run_id)
        while context.is_active():
            yield encode_event(iteration(1), request.run_id)

    async with async_client_of({STYLIZE: Script(Stylize=[stream])}) as client:
        with pytest.raises(InternalError, match="nothing new"):
            await acollect(client.stylize(PICTURE, PICTURE))


async def test_a_server_that_goes_on_after_the_result_does_not_hold_the_caller() -> None:
    def stream(request: Any, context: Any) -> Iterator[Any]:
        yield encode_event(START, request.run_id)
        yield encode_event(RESULT, request.run_id)
        while context.is_active():
            yield stylize_pb2.StylizeResponse(run_id=request.run_id)

    async with async_client_of({STYLIZE: Script(Stylize=[stream])}) as client:
        result = await client.stylize(PICTURE, PICTURE).result()
    assert isinstance(result, gramlet.Result)
