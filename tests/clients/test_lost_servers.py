"""What callers see of servers that are lost, full, or come back: nothing, as long as patience lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

import gramlet
import numpy as np
import pytest
from gramlet.errors import GramletError, NotFound, Overloaded, Unavailable
from gramlet.feature.objective_wire import encode_evaluation, encode_ready
from gramlet.feature.types import Evaluation, Extraction, Features, Objective
from gramlet.feature.v1 import feature_pb2
from gramlet.feature.wire import encode_outcome
from gramlet.stylize.types import Checkpoint, Iteration, Result, Started, StylizeEvent, StylizeSettings
from gramlet.stylize.wire import encode_event
from gramlet_server.remote_features import RemoteFeatures

from tests.clients.servers import FEATURE, STYLIZE, Script, async_client_of, client_of, free_port, serving

GONE = Unavailable("going away")
PICTURE = np.zeros((3, 4, 4), np.float32)


def model(*_: Any) -> feature_pb2.GetModelResponse:
    return feature_pb2.GetModelResponse(backbone="resnet50")


@pytest.mark.parametrize("error", [GONE, Overloaded("full", retry_after=0.05)])
async def test_a_unary_call_is_made_again(error: GramletError) -> None:
    script = Script(GetModel=[error, error, model, error, error, model])
    with serving({FEATURE: script}) as server:
        with gramlet.Client(f"127.0.0.1:{server.port}") as client:
            assert client.model().backbone == "resnet50"
        async with gramlet.AsyncClient(f"127.0.0.1:{server.port}") as async_client:
            assert (await async_client.model()).backbone == "resnet50"


def test_a_delay_longer_than_the_timeout_is_not_waited_for() -> None:
    script = Script(GetModel=[Overloaded("full", retry_after=60.0)])
    with client_of({FEATURE: script}, timeout=5) as client, pytest.raises(Overloaded) as caught:
        client.model()
    assert caught.value.retry_after == 60.0
    assert len(script.calls) == 1


def test_a_server_that_comes_later_is_waited_for() -> None:
    port = free_port()
    with gramlet.Client(f"127.0.0.1:{port}", first_contact=30.0) as client:
        with pytest.raises(Unavailable):
            client.with_options(first_contact=0.0).model()
        with serving({FEATURE: Script(GetModel=[model])}, port=port):
            assert client.model().backbone == "resnet50"


# --- stylization ---


def iteration(number: int) -> Iteration:
    return Iteration(iteration=number, loss=1.0 / number, style_loss=0.0, content_loss=0.0)


def run(*events: StylizeEvent | GramletError) -> Callable[[Any, Any], Iterator[Any]]:
    """A step of a script: these events, or an error in their midst."""

    def stream(request: Any, context: Any) -> Iterator[Any]:
        for event in events:
            if isinstance(event, GramletError):
                raise event
            yield encode_event(event, request.run_id or request.resume_run_id)

    return stream


START = Started(height=4, width=4, settings=StylizeSettings(iterations=4))
RESUMED = Started(iteration=2, height=4, width=4, settings=StylizeSettings(iterations=4))
RESULT = Result(iteration=4, loss=0.1, png=b"png")
UNDISTURBED = ["Started 0", "Iteration 1", "Iteration 2", "Checkpoint 2", "Iteration 3", "Iteration 4", "Result 4"]


def script_of_a_broken_run() -> Script:
    return Script(
        Stylize=[
            run(START, iteration(1), iteration(2), Checkpoint(iteration=2), iteration(3), GONE),
            GONE,
            Overloaded("full", retry_after=0.01),
            run(RESUMED, iteration(3), iteration(4), RESULT),
        ]
    )


def names(events: list[StylizeEvent]) -> list[str]:
    return [f"{type(event).__name__} {event.iteration}" for event in events]


def kinds(script: Script) -> list[str]:
    return [request.WhichOneof("start") for _, request in script.calls]


async def test_a_broken_run_is_resumed_and_the_caller_sees_one_sequence() -> None:
    script, async_script = script_of_a_broken_run(), script_of_a_broken_run()
    with client_of({STYLIZE: script}) as client:
        events = list(client.stylize(PICTURE, PICTURE))
    async with async_client_of({STYLIZE: async_script}) as async_client:
        async_events = [event async for event in async_client.stylize(PICTURE, PICTURE)]
    assert names(events) == names(async_events) == UNDISTURBED
    assert kinds(script) == kinds(async_script) == ["stylization", *["resume_run_id"] * 3]
    assert {request.resume_run_id for _, request in script.calls[1:]} == {script.calls[0][1].run_id}


async def test_a_run_without_a_checkpoint_begins_again_unseen() -> None:
    def script() -> Script:
        whole = [START, iteration(1), iteration(2), Checkpoint(iteration=2), iteration(3), iteration(4), RESULT]
        return Script(Stylize=[run(START, iteration(1), GONE), NotFound("no such run"), run(*whole)])

    with client_of({STYLIZE: (one := script())}) as client:
        assert names(list(client.stylize(PICTURE, PICTURE))) == UNDISTURBED
    async with async_client_of({STYLIZE: (other := script())}) as async_client:
        events = [event async for event in async_client.stylize(PICTURE, PICTURE)]
    assert names(events) == UNDISTURBED
    assert kinds(one) == kinds(other) == ["stylization", "resume_run_id", "stylization"]


async def test_a_run_is_given_up_when_patience_is_over() -> None:
    script = Script(Stylize=[run(START, iteration(1), GONE), GONE])
    with client_of({STYLIZE: script}, patience=0.3) as client:
        events = client.stylize(PICTURE, PICTURE)
        assert [next(events).iteration, next(events).iteration] == [0, 1]
        with pytest.raises(Unavailable, match="going away"):
            next(events)


def test_a_run_that_breaks_again_and_again_without_getting_on_is_given_up() -> None:
    script = Script(Stylize=[run(START, iteration(1), GONE), run(START, iteration(1), GONE)])
    with client_of({STYLIZE: script}) as client, pytest.raises(Unavailable):
        list(client.stylize(PICTURE, PICTURE))
    assert len(script.calls) == 7


def test_a_stream_that_ends_without_a_result_is_a_break() -> None:
    script = Script(Stylize=[run(START, iteration(1)), run(START, iteration(1), iteration(2), RESULT)])
    with client_of({STYLIZE: script}) as client:
        assert names(list(client.stylize(PICTURE, PICTURE))) == ["Started 0", "Iteration 1", "Iteration 2", "Result 4"]


async def test_leaving_the_loop_cancels_the_call() -> None:
    cancelled = [Event(), Event()]
    left = iter(cancelled)

    def endless(request: Any, context: Any) -> Iterator[Any]:
        context.add_callback(next(left).set)
        number = 0
        while context.is_active():
            number += 1
            yield encode_event(iteration(number), request.run_id)

    with serving({STYLIZE: Script(Stylize=[endless])}) as server:
        with gramlet.Client(f"127.0.0.1:{server.port}") as client:
            for event in client.stylize(PICTURE, PICTURE):
                if event.iteration == 3:
                    break
            del event
            assert cancelled[0].wait(30)
        async with gramlet.AsyncClient(f"127.0.0.1:{server.port}") as async_client:
            async with async_client.stylize(PICTURE, PICTURE) as events:
                async for event in events:
                    if event.iteration == 3:
                        break
            assert cancelled[1].wait(30)


# --- extraction ---

EXTRACTION = Extraction(("conv1",))


def answer(item: Any) -> feature_pb2.ExtractStreamResponse:
    height = int(item.picture.encoded)
    return feature_pb2.ExtractStreamResponse(
        id=item.id, result=encode_outcome(Features({}, {}, {}, height, 1), EXTRACTION)
    )


def answering(count: int | None, error: GramletError = GONE) -> Callable[[Any, Any], Iterator[Any]]:
    """A step of a script: answers so many pictures, then fails."""

    def stream(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        assert next(requests).WhichOneof("message") == "extraction"
        for done, request in enumerate(requests):
            if done == count:
                raise error
            yield answer(request.item)

    return stream


def pictures(count: int) -> list[bytes]:
    return [str(number).encode() for number in range(count)]


async def test_no_picture_is_lost_or_doubled_when_streams_break() -> None:
    def script() -> Script:
        return Script(
            ExtractStream=[answering(3), GONE, answering(0, Overloaded("full")), answering(8), answering(None)]
        )

    def heights(outcomes: list[Any]) -> list[int]:
        return [outcome.height for outcome in outcomes]

    with client_of({FEATURE: script()}) as client:
        assert heights(list(client.features(pictures(40), stages="conv1"))) == list(range(40))
    async with async_client_of({FEATURE: script()}) as async_client:
        outcomes = [outcome async for outcome in async_client.features(pictures(40), stages="conv1")]
    assert heights(outcomes) == list(range(40))


def test_an_extraction_is_given_up_when_patience_is_over() -> None:
    with client_of({FEATURE: Script(ExtractStream=[answering(2), GONE])}, patience=0.3) as client:
        outcomes = client.features(pictures(9), stages="conv1")
        assert [next(outcomes).height, next(outcomes).height] == [0, 1]  # type: ignore[union-attr]
        with pytest.raises(Unavailable, match="going away"):
            next(outcomes)


# --- differentiation ---


def differentiating(
    count: int, digest: str = "same", error: GramletError = GONE
) -> Callable[[Any, Any], Iterator[Any]]:
    """A step of a script: evaluates so many pictures, then fails. The loss tells the objective's content weight."""

    def stream(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        weight = 0.0
        for done, request in enumerate(requests):
            if request.WhichOneof("message") == "setup":
                weight = request.setup.objective.content_weight
                yield encode_ready(digest)
                continue
            if done > count:
                raise error
            evaluation = Evaluation(weight, 0.0, weight, 0.0, {}, PICTURE)
            yield encode_evaluation(evaluation, request.evaluate.sequence)

    return stream


OBJECTIVE = Objective(content=PICTURE, content_stage="conv1", content_weight=3.0)


async def test_an_evaluation_goes_on_at_the_next_server_with_the_same_objective() -> None:
    def script() -> Script:
        return Script(Differentiate=[differentiating(2), GONE, differentiating(0), differentiating(9)])

    with serving({FEATURE: script()}) as server:
        source = RemoteFeatures(gramlet.Client(f"127.0.0.1:{server.port}"), patience=30.0)
        with source.differentiate(OBJECTIVE) as remote:
            assert [remote.evaluate(PICTURE).loss for _ in range(5)] == [3.0] * 5
            assert remote.reconnects == 2
        source.close()
    async with async_client_of({FEATURE: script()}) as client, client.differentiate(OBJECTIVE) as session:
        assert [(await session.evaluate(PICTURE)).loss for _ in range(5)] == [3.0] * 5
        assert session.reconnects == 2


def test_a_lost_network_is_given_up_when_patience_is_over() -> None:
    with serving({FEATURE: Script(Differentiate=[differentiating(1), GONE])}) as server:
        source = RemoteFeatures(gramlet.Client(f"127.0.0.1:{server.port}"), patience=0.3)
        with source.differentiate(OBJECTIVE) as remote:
            remote.evaluate(PICTURE)
            with pytest.raises(Unavailable, match="going away"):
                remote.evaluate(PICTURE)
        source.close()


async def test_a_network_that_comes_back_with_other_weights_is_refused() -> None:
    def script() -> Script:
        return Script(Differentiate=[differentiating(1), differentiating(9, digest="other")])

    with client_of({FEATURE: script()}) as client, client.differentiate(OBJECTIVE) as session:
        session.evaluate(PICTURE)
        with pytest.raises(gramlet.FailedPrecondition, match="weights same to other"):
            session.evaluate(PICTURE)
    async with (
        async_client_of({FEATURE: script()}) as async_client,
        async_client.differentiate(OBJECTIVE) as async_session,
    ):
        await async_session.evaluate(PICTURE)
        with pytest.raises(gramlet.FailedPrecondition, match="weights same to other"):
            await async_session.evaluate(PICTURE)


def test_after_a_refused_picture_the_session_goes_on() -> None:
    wrong = gramlet.InvalidInput("another shape", field="evaluate.picture")
    script = Script(Differentiate=[differentiating(1, error=wrong), differentiating(9)])
    with client_of({FEATURE: script}) as client, client.differentiate(OBJECTIVE) as session:
        session.evaluate(PICTURE)
        with pytest.raises(gramlet.InvalidInput, match="another shape"):
            session.evaluate(PICTURE)
        assert session.evaluate(PICTURE).loss == 3.0
        assert session.reconnects == 0


def test_a_server_that_is_stopped_in_the_midst_of_calls_is_a_lost_one() -> None:
    port, seen = free_port(), Event()

    def hanging(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for _ in requests:
            seen.set()
            yield encode_ready("same")
            released = Event()
            context.add_callback(released.set)
            released.wait(30)

    with gramlet.Client(f"127.0.0.1:{port}", first_contact=30.0) as client:
        with serving({FEATURE: Script(Differentiate=[hanging])}, port=port):
            session = client.differentiate(OBJECTIVE).__enter__()
            assert seen.wait(30)
        with serving({FEATURE: Script(Differentiate=[differentiating(9)])}, port=port):
            assert session.evaluate(PICTURE).loss == 3.0
            session.close()
            assert session.reconnects == 1
