"""Every use of a closed client, and a second reader of an iterator, are refused at once by an error that says why."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from threading import Event
from typing import Any

import gramlet
import pytest
from gramlet.errors import FailedPrecondition, Overloaded
from gramlet.feature.objective_wire import encode_ready

from tests.clients._async.calls import MANY, OBJECTIVE, ONE, PICTURE, START, Call
from tests.clients.servers import (
    EMBED,
    FEATURE,
    RUN,
    STYLIZE,
    TRAIN,
    AsyncBeside,
    Script,
    acollect,
    ahappened,
    async_client_of,
    serving,
)

CLOSED = "is closed: make a new one"


class Silent:
    """A servicer that answers nothing, until its caller leaves. `asked` happens with every call."""

    def __init__(self, asked: Event) -> None:
        self._asked = asked

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)

        def call(request: Any, context: Any) -> Iterator[Any]:
            left = Event()
            if context.add_callback(left.set):
                self._asked.set()
                left.wait(30)
            return iter(())

        return call


@pytest.fixture
def asked() -> Event:
    return Event()


@pytest.fixture
async def client(asked: Event) -> AsyncIterator[gramlet.AsyncClient]:
    """A client of a server that is there and answers nothing."""
    services = (FEATURE, STYLIZE, TRAIN, EMBED, RUN)
    async with async_client_of({service: Silent(asked) for service in services}) as client:
        yield client


def test_the_tables_have_every_call() -> None:
    public = {name for name in dir(gramlet.AsyncClient) if not name.startswith("_")}
    assert {*ONE, *MANY, "differentiate", "descend", "run"} == public - {"address", "close", "with_options"}


@pytest.mark.parametrize("call", ONE.values(), ids=ONE.keys())
async def test_a_call_of_a_closed_client_is_refused(client: gramlet.AsyncClient, call: Call) -> None:
    await client.close()
    with pytest.raises(FailedPrecondition, match=CLOSED):
        await call(client)


@pytest.mark.parametrize("call", MANY.values(), ids=MANY.keys())
async def test_an_iterator_of_a_closed_client_is_refused(client: gramlet.AsyncClient, call: Call) -> None:
    await client.close()
    with pytest.raises(FailedPrecondition, match=CLOSED):
        await anext(call(client))


@pytest.mark.parametrize("call", MANY.values(), ids=MANY.keys())
async def test_an_iterator_made_before_the_client_was_closed_is_refused(
    client: gramlet.AsyncClient, call: Call
) -> None:
    iterator = call(client)
    await client.close()
    with pytest.raises(FailedPrecondition, match=CLOSED):
        await anext(iterator)


@pytest.mark.parametrize("call", [call for name, call in ONE.items() if name != "status"])
async def test_closing_ends_a_call_that_waits(client: gramlet.AsyncClient, call: Call, asked: Event) -> None:
    waiting = AsyncBeside(lambda: call(client))
    assert await ahappened(asked)
    await client.close()
    with pytest.raises(FailedPrecondition, match=CLOSED):
        await waiting.outcome()


@pytest.mark.parametrize("call", MANY.values(), ids=MANY.keys())
async def test_closing_ends_an_iterator_that_waits(client: gramlet.AsyncClient, call: Call, asked: Event) -> None:
    iterator = call(client)
    waiting = AsyncBeside(lambda: anext(iterator))
    assert await ahappened(asked)
    await client.close()
    with pytest.raises(FailedPrecondition, match=CLOSED):
        await waiting.outcome()
    assert await acollect(iterator) == []


async def test_a_differentiation_of_a_closed_client_is_refused() -> None:
    def ready(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for _ in requests:
            yield encode_ready("same")

    async with async_client_of({FEATURE: Script(Differentiate=[ready])}) as client:
        async with client.differentiate(OBJECTIVE) as differentiation:
            await client.close()
            with pytest.raises(FailedPrecondition, match=CLOSED):
                await differentiation.evaluate(PICTURE)
            with pytest.raises(FailedPrecondition, match=CLOSED):
                await differentiation.replace(OBJECTIVE)
        with pytest.raises(FailedPrecondition, match=CLOSED):
            async with client.differentiate(OBJECTIVE):
                pass


async def test_a_descent_of_a_closed_client_is_refused(client: gramlet.AsyncClient) -> None:
    async with client.descend(START) as descent:
        await client.close()
        with pytest.raises(FailedPrecondition, match=CLOSED):
            await anext(descent)


async def test_leaving_a_differentiation_after_the_client_is_quiet() -> None:
    def ready(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for _ in requests:
            yield encode_ready("same")

    async with async_client_of({FEATURE: Script(Differentiate=[ready])}) as client, client.differentiate(OBJECTIVE):
        await client.close()


async def test_closing_ends_the_wait_for_another_attempt() -> None:
    asked = Event()

    def refuse(request: Any, context: Any) -> Any:
        asked.set()
        raise Overloaded("full", retry_after=40.0)

    with serving({FEATURE: Script(GetModel=[refuse])}) as server:
        client = gramlet.AsyncClient(f"127.0.0.1:{server.port}")
        waiting = AsyncBeside(client.model)
        assert await ahappened(asked)
        await client.close()
        with pytest.raises(FailedPrecondition, match=CLOSED):
            await waiting.outcome()


async def test_a_client_is_closed_once_for_all_its_options(client: gramlet.AsyncClient) -> None:
    other = client.with_options(timeout=1.0)
    await client.close()
    await client.close()
    with pytest.raises(FailedPrecondition, match=CLOSED):
        await other.model()


@pytest.mark.parametrize("call", MANY.values(), ids=MANY.keys())
async def test_a_second_reader_of_an_iterator_is_refused_and_the_first_one_goes_on(
    client: gramlet.AsyncClient, call: Call, asked: Event
) -> None:
    iterator = call(client)
    first = AsyncBeside(lambda: anext(iterator))
    assert await ahappened(asked)
    with pytest.raises(FailedPrecondition, match="another thread or task is using these events: let one read them"):
        await anext(iterator)
    await client.close()
    with pytest.raises(FailedPrecondition, match=CLOSED):
        await first.outcome()


async def test_a_second_question_to_a_differentiation_is_refused(client: gramlet.AsyncClient, asked: Event) -> None:
    differentiation = client.differentiate(OBJECTIVE)
    first = AsyncBeside(lambda: differentiation.evaluate(PICTURE))
    assert await ahappened(asked)
    with pytest.raises(FailedPrecondition, match="ask one after the other, or open one for each"):
        await differentiation.evaluate(PICTURE)
    await client.close()
    with pytest.raises(FailedPrecondition, match=CLOSED):
        await first.outcome()
