"""Several servers behind one client, and what servers learn of their caller."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import gramlet
import pytest
from gramlet.errors import Unavailable
from gramlet.feature.v1 import feature_pb2

from tests.clients.loading import Loading
from tests.clients.servers import FEATURE, AsyncBeside, Script, ahappened, async_client_of, free_port, serving


def answering(name: str) -> Script:
    return Script(GetModel=[lambda *_: feature_pb2.GetModelResponse(backbone=name)])


async def backbone(client: gramlet.AsyncClient) -> str:
    return (await client.model()).backbone


async def test_calls_are_spread_over_several_addresses() -> None:
    with serving({FEATURE: answering("one")}) as one, serving({FEATURE: answering("two")}) as two:
        async with gramlet.AsyncClient(f"127.0.0.1:{one.port},127.0.0.1:{two.port}") as client:
            connected: set[str] = set()
            while connected != {"one", "two"}:  # one of the two connections is ready first
                connected.add(await backbone(client))
            answers = [await backbone(client) for _ in range(12)]
    assert sorted(answers) == ["one"] * 6 + ["two"] * 6


async def test_a_client_of_one_network_goes_on_at_the_replica_that_has_it() -> None:
    other = gramlet.OtherWeights("this network has weights 1, and 2 are wanted", field="weights_digest")
    with serving({FEATURE: Script(GetModel=[other])}) as one, serving({FEATURE: answering("two")}) as two:
        async with gramlet.AsyncClient(f"127.0.0.1:{one.port},127.0.0.1:{two.port}") as client:
            assert [await backbone(client) for _ in range(6)] == ["two"] * 6
        async with gramlet.AsyncClient(f"127.0.0.1:{one.port}", patience=0) as client:
            with pytest.raises(gramlet.OtherWeights, match="weights_digest: this network"):
                await client.model()


async def test_a_wrong_digest_is_refused_at_once() -> None:
    for wrong in ("abc", 7, "g" * 64):
        with pytest.raises(gramlet.InvalidInput, match="weights_digest"):
            gramlet.AsyncClient(weights_digest=wrong)  # type: ignore[arg-type]


async def test_a_dead_replica_costs_no_call() -> None:
    with serving({FEATURE: answering("one")}) as one:
        with serving({FEATURE: answering("two")}) as two:
            client = gramlet.AsyncClient(f"127.0.0.1:{one.port},127.0.0.1:{two.port}")
            while await backbone(client) != "two":
                pass
        for _ in range(10):
            assert await backbone(client) == "one"
        await client.close()


async def test_several_servers_that_load_are_waited_for_as_one_is() -> None:
    with ExitStack() as stack:
        loading = Loading(stack, answering("ready"))
        async with gramlet.AsyncClient(loading.address, patience=0) as client:
            with pytest.raises(Unavailable, match="is ready: they are loading, shutting down"):
                await client.model()
        async with gramlet.AsyncClient(loading.address, first_contact=0) as client:
            waiting = AsyncBeside(client.model)
            assert await ahappened(loading.watched)
            loading.ready()
            assert (await waiting.outcome()).backbone == "ready"


async def test_a_server_that_loads_is_waited_for_although_another_address_refuses() -> None:
    with ExitStack() as stack:
        loading = Loading(stack, answering("ready"))
        # The second attempt would be the last one, if the client did not find out that a server is there.
        async with gramlet.AsyncClient(f"{loading.address},127.0.0.1:{free_port()}", first_contact=0.15) as client:
            waiting = AsyncBeside(client.model)
            assert await ahappened(loading.checked)
            loading.ready()
            assert (await waiting.outcome()).backbone == "ready"


async def test_servers_learn_which_client_calls() -> None:
    agents: list[str] = []

    def answer(request: Any, context: Any) -> feature_pb2.GetModelResponse:
        agents.append(dict(context.invocation_metadata())["user-agent"])
        return feature_pb2.GetModelResponse()

    async with async_client_of({FEATURE: Script(GetModel=[answer])}) as client:
        await client.model()
    assert agents[0].startswith("gramlet-python/0.1.0")
