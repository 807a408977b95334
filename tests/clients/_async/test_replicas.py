"""Several servers behind one client, and what servers learn of their caller."""

from __future__ import annotations

from typing import Any

import gramlet
from gramlet.feature.v1 import feature_pb2

from tests.clients.servers import FEATURE, Script, async_client_of, serving


def answering(name: str) -> Script:
    return Script(GetModel=[lambda *_: feature_pb2.GetModelResponse(backbone=name)])


async def backbone(client: gramlet.AsyncClient) -> str:
    return (await client.model()).backbone


async def test_calls_are_spread_over_several_addresses() -> None:
    answers = []
    with serving({FEATURE: answering("one")}) as one, serving({FEATURE: answering("two")}) as two:
        async with gramlet.AsyncClient(f"127.0.0.1:{one.port},127.0.0.1:{two.port}") as client:
            for _ in range(12):
                answers.append(await backbone(client))
    assert set(answers) == {"one", "two"}
    assert abs(answers.count("one") - answers.count("two")) <= 4  # the second connection may be ready a little later


async def test_a_dead_replica_costs_no_call() -> None:
    with serving({FEATURE: answering("one")}) as one:
        with serving({FEATURE: answering("two")}) as two:
            client = gramlet.AsyncClient(f"127.0.0.1:{one.port},127.0.0.1:{two.port}")
            while await backbone(client) != "two":
                pass
        for _ in range(10):
            assert await backbone(client) == "one"
        await client.close()


async def test_servers_learn_which_client_calls() -> None:
    agents: list[str] = []

    def answer(request: Any, context: Any) -> feature_pb2.GetModelResponse:
        agents.append(dict(context.invocation_metadata())["user-agent"])
        return feature_pb2.GetModelResponse()

    async with async_client_of({FEATURE: Script(GetModel=[answer])}) as client:
        await client.model()
    assert agents[0].startswith("gramlet-python/0.1.0")
