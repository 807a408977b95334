"""What a caller sees of a descent is the same when its server is lost, at whatever message that happens."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gramlet
import numpy as np
import pytest
from gramlet.errors import Cancelled, FailedPrecondition, InvalidInput, Unavailable
from gramlet.feature.descent_types import (
    DescentEnding,
    DescentEvent,
    DescentFinished,
    DescentIteration,
    DescentPreview,
    DescentReady,
    DescentRecovered,
    DescentReweighted,
    DescentStart,
    DescentState,
    DescentWaiting,
)
from gramlet.feature.v1 import feature_pb2
from gramlet_server.feature.engine import Engine
from gramlet_server.feature.service import FeatureServicer

from tests.clients.servers import FEATURE, acollect, async_client_of
from tests.e2e.cluster import wait_until
from tests.feature.descent_cases import CONTENT, OBJECTIVE, WEIGHTS, make_engine, start

EVERYTHING = start(6, preview_every=2, state_seconds=1e-9, confirm_last=True)


class Fragile(FeatureServicer):
    """A FeatureService that is lost after so many messages: one number for each connection, then never again."""

    def __init__(self, engine: Engine, *breaks: int) -> None:
        super().__init__(engine)
        self.breaks = [*breaks]
        self.connections = 0

    def Descend(self, request_iterator: Iterator[Any], context: Any) -> Iterator[Any]:
        self.connections += 1
        last = self.breaks.pop(0) if self.breaks else None
        for number, message in enumerate(super().Descend(request_iterator, context)):
            if number == last:
                raise Unavailable("gone", retry_after=0.0)
            yield message


@pytest.fixture(autouse=True)
def states_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """States come as often as they are asked for."""
    monkeypatch.setattr("gramlet_server.feature.descent_requests.STATES_SHARE", math.inf)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = make_engine()
    yield engine
    engine.close()


async def events_of(servicer: FeatureServicer, order: DescentStart) -> list[DescentEvent]:
    """All events of a descent at a server of its own."""
    async with async_client_of({FEATURE: servicer}) as client:
        return await descended(client, order)


async def descended(client: gramlet.AsyncClient, order: DescentStart, reweighted: bool = False) -> list[DescentEvent]:
    """All events; before the last iteration come new weights, if they are wanted."""
    events: list[DescentEvent] = []
    async with client.descend(order) as descent:
        async for event in descent:
            events.append(event)
            if isinstance(event, DescentWaiting):
                if reweighted and not any(isinstance(earlier, DescentReweighted) for earlier in events):
                    await descent.reweight(WEIGHTS)
                else:
                    await descent.proceed()
    return events


def seen(events: list[DescentEvent]) -> list[Any]:
    """What must not depend on lost servers, nor on the clock."""
    kinds = DescentIteration | DescentWaiting | DescentReweighted | DescentReady
    found = [event for event in events if isinstance(event, kinds)]
    return [
        replace(event, timing=gramlet.Timing()) if isinstance(event, DescentIteration) else event for event in found
    ]


def picture(events: list[DescentEvent]) -> Any:
    assert isinstance(events[-1], DescentFinished)
    return events[-1].picture


async def test_it_is_what_it_is_in_one_process(engine: Engine) -> None:
    with engine.descend(start(6, preview_every=2)) as descent:
        local = list(descent)
    remote = await events_of(FeatureServicer(engine), start(6, preview_every=2))
    assert seen(remote) == seen(local)
    assert np.array_equal(picture(remote), picture(local))


@pytest.mark.parametrize("reweighted", [False, True])
async def test_a_server_may_be_lost_at_any_message(engine: Engine, reweighted: bool) -> None:
    servicer = Fragile(engine)
    async with async_client_of({FEATURE: servicer}) as client:
        undisturbed = await descended(client, EVERYTHING, reweighted)
        for last in range(24):
            servicer.breaks, servicer.connections = [last, last // 2], 0
            events = await descended(client, EVERYTHING, reweighted)
            assert seen(events) == seen(undisturbed), f"lost after message {last}"
            assert np.array_equal(picture(events), picture(undisturbed))
            previews = [event.iteration for event in events if isinstance(event, DescentPreview)]
            assert previews == sorted(set(previews))
            reconnected = [event for event in events if isinstance(event, DescentRecovered)]
            assert len(reconnected) <= servicer.connections - 1
            if servicer.connections == 1:
                break  # the descent has no more messages


async def test_weights_sent_on_the_way_take_effect_after_what_was_seen_then(engine: Engine) -> None:
    undisturbed = [
        event for event in await events_of(FeatureServicer(engine), start(40)) if isinstance(event, DescentIteration)
    ]
    events: list[DescentEvent] = []
    servicer = Fragile(engine, 6)
    order = start(40, state_seconds=1e-9)
    async with async_client_of({FEATURE: servicer}) as client, client.descend(order) as descent:
        async for event in descent:
            events.append(event)
            if isinstance(event, DescentIteration) and event.iteration == 2:
                await descent.reweight(WEIGHTS)
    iterations = [event for event in events if isinstance(event, DescentIteration)]
    assert [event.iteration for event in iterations] == [*range(1, 41)]
    (reweighted,) = [event for event in events if isinstance(event, DescentReweighted)]
    state = events[events.index(reweighted) - 1]
    assert isinstance(state, DescentState)
    assert state.reweighted
    assert reweighted.iteration >= 2
    before = iterations[: reweighted.iteration]
    assert [event.loss for event in before] == [event.loss for event in undisturbed[: reweighted.iteration]]
    new = {name: value for name, value in vars(WEIGHTS).items() if name != "number"}
    rest = start(40, objective=replace(OBJECTIVE, **new), state=state.data)
    after = [event for event in await events_of(FeatureServicer(engine), rest) if isinstance(event, DescentIteration)]
    assert [event.loss for event in iterations[reweighted.iteration :]] == [event.loss for event in after]


async def test_a_stopped_descent_ends_with_a_state(engine: Engine) -> None:
    events: list[DescentEvent] = []
    async with async_client_of({FEATURE: FeatureServicer(engine)}) as client, client.descend(start(10**6)) as descent:
        async for event in descent:
            if isinstance(event, DescentIteration) and event.iteration == 1:
                await descent.stop()
            events.append(event)
    assert isinstance(events[-1], DescentState)
    assert events[-1].iteration == max(event.iteration for event in events)


async def test_a_scale_ends_with_a_state(engine: Engine) -> None:
    events = await events_of(FeatureServicer(engine), start(2, ending=DescentEnding.PICTURE))
    assert isinstance(events[-1], DescentState)


async def test_cancelling_wakes_the_reader_and_ends_the_work(engine: Engine) -> None:
    async with async_client_of({FEATURE: FeatureServicer(engine)}) as client, client.descend(start(10**6)) as descent:
        assert isinstance(await anext(descent), DescentReady)
        await descent.cancel()
        with pytest.raises(Cancelled):
            await acollect(descent)
    wait_until(lambda: engine.descents.queue.running == 0)  # gRPC does not wait for the call's thread


async def test_pictures_may_be_given_as_any_input(engine: Engine) -> None:
    pixels = np.rint(CONTENT.transpose(1, 2, 0) * 255).astype(np.uint8)
    order = start(1, objective=replace(OBJECTIVE, content=pixels), initial=pixels[:20, :30])
    assert picture(await events_of(FeatureServicer(engine), order)).shape == CONTENT.shape


WRONG = {
    "stage": replace(EVERYTHING, objective=replace(OBJECTIVE, content_stage="layer9")),
    "iterations": replace(EVERYTHING, iterations=0),
    "state": replace(EVERYTHING, state=b"nothing"),
}


@pytest.mark.parametrize("order", WRONG.values(), ids=WRONG)
async def test_a_wrong_start_is_an_error(engine: Engine, order: DescentStart) -> None:
    with pytest.raises(InvalidInput):
        await events_of(FeatureServicer(engine), order)


async def test_wrong_weights_are_an_error(engine: Engine) -> None:
    async with async_client_of({FEATURE: FeatureServicer(engine)}) as client, client.descend(start(10**6)) as descent:
        await descent.reweight(replace(WEIGHTS, content_weight=-1.0))
        with pytest.raises(InvalidInput, match="weight"):
            await acollect(descent)


async def test_another_network_is_refused(engine: Engine) -> None:
    with pytest.raises(FailedPrecondition):
        await events_of(FeatureServicer(engine), replace(EVERYTHING, weights_digest="0" * 64))


async def test_a_descent_that_comes_back_at_another_network_fails(engine: Engine) -> None:
    class Other(Fragile):
        def Descend(self, request_iterator: Iterator[Any], context: Any) -> Iterator[Any]:
            for message in super().Descend(request_iterator, context):
                if self.connections > 1 and message.HasField("ready"):
                    message.ready.weights_digest = "0" * 64
                yield message

    with pytest.raises(FailedPrecondition, match="changed"):
        await events_of(Other(engine, 3), EVERYTHING)


async def test_a_server_that_ends_early_is_lost(engine: Engine) -> None:
    class Short(FeatureServicer):
        def Descend(self, request_iterator: Iterator[Any], context: Any) -> Iterator[Any]:
            yield feature_pb2.DescendResponse(ready={"weights_digest": engine.network.digest})

    with pytest.raises(Unavailable, match="early"):
        await events_of(Short(engine), EVERYTHING)
