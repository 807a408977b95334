"""What callers notice of servers that are lost, full, or come back: nothing, as long as patience lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

import gramlet
import pytest
from gramlet.errors import GramletError, InvalidInput, NotFound, Overloaded, Unavailable
from gramlet.stylize.types import Checkpoint, StylizeEvent
from gramlet.stylize.wire import encode_event
from gramlet.train.types import Accepted
from gramlet.train.wire import encode_event as encode_training_event

from tests.clients.scripts import (
    EXTRACTION,
    GONE,
    OBJECTIVE,
    PICTURE,
    RESULT,
    RESUMED,
    START,
    answering,
    chunks,
    differentiating,
    iteration,
    model,
    run,
)
from tests.clients.servers import (
    FEATURE,
    STYLIZE,
    TRAIN,
    Script,
    acollect,
    ahappened,
    async_client_of,
    free_port,
    serving,
)

UNDISTURBED = ["Started 0", "Iteration 1", "Iteration 2", "Checkpoint 2", "Iteration 3", "Iteration 4", "Result 4"]


@pytest.mark.parametrize("error", [GONE, Overloaded("full", retry_after=0.05)])
async def test_a_unary_call_is_made_again(error: GramletError) -> None:
    async with async_client_of({FEATURE: Script(GetModel=[error, error, model])}) as client:
        assert (await client.model()).backbone == "resnet50"


async def test_a_delay_longer_than_the_timeout_is_not_waited_for() -> None:
    script = Script(GetModel=[Overloaded("full", retry_after=60.0)])
    async with async_client_of({FEATURE: script}, timeout=5) as client:
        with pytest.raises(Overloaded) as caught:
            await client.model()
    assert caught.value.retry_after == 60.0
    assert len(script.calls) == 1


async def test_a_server_that_comes_later_is_waited_for() -> None:
    port = free_port()
    async with gramlet.AsyncClient(f"127.0.0.1:{port}", first_contact=30.0) as client:
        with pytest.raises(Unavailable):
            await client.with_options(first_contact=0.0).model()
        with serving({FEATURE: Script(GetModel=[model])}, port=port):
            assert (await client.model()).backbone == "resnet50"


# --- stylization ---


def names(events: list[StylizeEvent]) -> list[str]:
    return [f"{type(event).__name__} {event.iteration}" for event in events]


def kinds(script: Script) -> list[str]:
    return [request.WhichOneof("start") for _, request in script.calls]


async def test_a_broken_run_is_resumed_and_the_caller_sees_one_sequence() -> None:
    script = Script(
        Stylize=[
            run(START, iteration(1), iteration(2), Checkpoint(iteration=2), iteration(3), GONE),
            GONE,
            Overloaded("full", retry_after=0.01),
            run(RESUMED, iteration(3), iteration(4), RESULT),
        ]
    )
    async with async_client_of({STYLIZE: script}) as client:
        events = await acollect(client.stylize(PICTURE, PICTURE))
    assert names(events) == [*UNDISTURBED[:5], "Reconnecting 3", *UNDISTURBED[5:]]
    assert kinds(script) == ["stylization", *["resume_run_id"] * 3]
    assert {request.resume_run_id for _, request in script.calls[1:]} == {script.calls[0][1].run_id}


async def test_a_run_without_a_checkpoint_begins_again_unseen() -> None:
    whole = [START, iteration(1), iteration(2), Checkpoint(iteration=2), iteration(3), iteration(4), RESULT]
    script = Script(Stylize=[run(START, iteration(1), GONE), NotFound("no such run"), run(*whole)])
    async with async_client_of({STYLIZE: script}) as client:
        events = await acollect(client.stylize(PICTURE, PICTURE))
    assert names(events) == [*UNDISTURBED[:2], "Reconnecting 1", *UNDISTURBED[2:]]
    assert kinds(script) == ["stylization", "resume_run_id", "stylization"]


async def test_a_run_is_given_up_when_patience_is_over() -> None:
    script = Script(Stylize=[run(START, iteration(1), GONE), GONE])
    async with async_client_of({STYLIZE: script}, patience=0.3) as client:
        events = client.stylize(PICTURE, PICTURE)
        assert names([await anext(events) for _ in range(3)]) == ["Started 0", "Iteration 1", "Reconnecting 1"]
        with pytest.raises(Unavailable, match="going away"):
            await anext(events)


async def test_a_run_that_breaks_again_and_again_without_getting_on_is_given_up() -> None:
    script = Script(Stylize=[run(START, iteration(1), GONE), run(START, iteration(1), GONE)])
    async with async_client_of({STYLIZE: script}) as client:
        with pytest.raises(Unavailable):
            await acollect(client.stylize(PICTURE, PICTURE))
    assert len(script.calls) == 7


async def test_a_stream_that_ends_without_a_result_is_a_break() -> None:
    script = Script(Stylize=[run(START, iteration(1)), run(START, iteration(1), iteration(2), RESULT)])
    async with async_client_of({STYLIZE: script}) as client:
        events = await acollect(client.stylize(PICTURE, PICTURE))
    assert names(events) == ["Started 0", "Iteration 1", "Reconnecting 1", "Iteration 2", "Result 4"]


def endless(cancelled: Event) -> Callable[[Any, Any], Iterator[Any]]:
    """Iterations until the call is cancelled, which sets the event."""

    def iterations(request: Any, context: Any) -> Iterator[Any]:
        context.add_callback(cancelled.set)
        number = 0
        while context.is_active():
            number += 1
            yield encode_event(iteration(number), request.run_id)

    return iterations


async def test_leaving_the_block_cancels_the_call() -> None:
    cancelled = Event()
    async with async_client_of({STYLIZE: Script(Stylize=[endless(cancelled)])}) as client:
        async with client.stylize(PICTURE, PICTURE) as events:
            async for event in events:
                if event.iteration == 3:
                    break
        assert await ahappened(cancelled)


async def test_leaving_the_loop_cancels_the_call() -> None:
    cancelled = Event()
    async with async_client_of({STYLIZE: Script(Stylize=[endless(cancelled)])}) as client:
        async for event in client.stylize(PICTURE, PICTURE):
            if event.iteration == 3:
                break
        assert await ahappened(cancelled)


# --- training ---


async def test_a_picture_that_has_vanished_when_it_is_sent_costs_itself_and_the_server_knows_why(tmp_path: Any) -> None:
    arrived: list[Any] = []

    def wants_all(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        entries = next(requests).configuration.entries.entries
        (tmp_path / "a.png").unlink()
        wanted, wanted_names = tuple(range(len(entries))), tuple(entry.name for entry in entries)
        yield encode_training_event(Accepted("run", len(entries), wanted, wanted_names), "run")
        arrived.extend(request.picture for request in requests)
        raise InvalidInput("enough")

    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        path.write_bytes(b"GIF89a")
    async with async_client_of({TRAIN: Script(Train=[wants_all])}) as client:
        with pytest.raises(InvalidInput, match="enough"):
            await acollect(client.train({"bee": paths}, name="bees"))
    assert [picture.unread for picture in arrived] == [f"there is no file {paths[0]}", ""]
    assert [picture.picture.encoded for picture in arrived] == [b"", b"GIF89a"]


# --- files ---


async def test_a_file_in_pieces_is_put_together_and_the_call_ends_in_order() -> None:
    ended: list[bool] = []
    done = Event()

    def export(request: Any, context: Any) -> Iterator[Any]:
        def note() -> None:
            done.set()

        context.add_callback(note)
        yield from chunks(b"abc", b"def", b"g")
        ended.append(context.is_active())

    async with async_client_of({TRAIN: Script(ExportHead=[export])}) as client:
        assert await client.export_head("bees") == b"abcdefg"
    assert await ahappened(done)
    assert ended == [True]


async def test_a_file_that_breaks_off_is_fetched_again() -> None:
    def broken(request: Any, context: Any) -> Iterator[Any]:
        yield from chunks(b"abc")
        raise GONE

    whole = Script(ExportHead=[broken, lambda *_: chunks(b"abc", b"def")])
    async with async_client_of({TRAIN: whole}) as client:
        assert await client.export_head("bees") == b"abcdef"


# --- extraction ---


def pictures(count: int) -> list[bytes]:
    return [b"GIF89a%d" % number for number in range(count)]


async def test_no_picture_is_lost_or_doubled_when_streams_break() -> None:
    script = Script(ExtractStream=[answering(3), GONE, answering(0, Overloaded("full")), answering(8), answering(None)])
    async with async_client_of({FEATURE: script}) as client:
        outcomes: list[Any] = await acollect(client.features(pictures(40), stages="conv1"))
    assert [outcome.height for outcome in outcomes] == list(range(40))


async def test_an_extraction_is_given_up_when_patience_is_over() -> None:
    async with async_client_of({FEATURE: Script(ExtractStream=[answering(2), GONE])}, patience=0.3) as client:
        # One at a time: asyncio's gRPC may lose answers and status of a call that ends while a message is sent.
        outcomes: Any = client.extract(pictures(9), EXTRACTION, in_flight=1)
        assert [(await anext(outcomes)).height, (await anext(outcomes)).height] == [0, 1]
        with pytest.raises(Unavailable, match=r"going away|Internal error from Core"):
            await anext(outcomes)


# --- differentiation ---


async def test_an_evaluation_goes_on_at_the_next_server_with_the_same_objective() -> None:
    script = Script(Differentiate=[differentiating(2), GONE, differentiating(0), differentiating(9)])
    async with async_client_of({FEATURE: script}) as client, client.differentiate(OBJECTIVE) as differentiation:
        losses = [(await differentiation.evaluate(PICTURE)).loss]
        for _ in range(4):
            losses.append((await differentiation.evaluate(PICTURE)).loss)
        assert losses == [3.0] * 5
        assert differentiation.reconnects == 2


async def test_a_network_that_comes_back_with_other_weights_is_refused() -> None:
    script = Script(Differentiate=[differentiating(1), differentiating(9, digest="other")])
    async with async_client_of({FEATURE: script}) as client, client.differentiate(OBJECTIVE) as differentiation:
        await differentiation.evaluate(PICTURE)
        with pytest.raises(gramlet.FailedPrecondition, match="weights same to other"):
            await differentiation.evaluate(PICTURE)


async def test_after_a_refused_picture_the_differentiation_goes_on() -> None:
    wrong = gramlet.InvalidInput("another shape", field="evaluate.picture")
    script = Script(Differentiate=[differentiating(1, error=wrong), differentiating(9)])
    async with async_client_of({FEATURE: script}) as client, client.differentiate(OBJECTIVE) as differentiation:
        await differentiation.evaluate(PICTURE)
        with pytest.raises(gramlet.InvalidInput, match="another shape"):
            await differentiation.evaluate(PICTURE)
        assert (await differentiation.evaluate(PICTURE)).loss == 3.0
        assert differentiation.reconnects == 0


async def test_a_server_that_is_stopped_in_the_midst_of_calls_is_a_lost_one() -> None:
    port, seen = free_port(), Event()

    def hanging(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        ready = differentiating(0)(requests, context)
        seen.set()
        yield next(ready)
        released = Event()
        context.add_callback(released.set)
        released.wait(30)

    async with gramlet.AsyncClient(f"127.0.0.1:{port}", first_contact=30.0) as client:
        differentiation = client.differentiate(OBJECTIVE)
        with serving({FEATURE: Script(Differentiate=[hanging])}, port=port):
            await differentiation.__aenter__()
            assert await ahappened(seen)
        with serving({FEATURE: Script(Differentiate=[differentiating(9)])}, port=port):
            assert (await differentiation.evaluate(PICTURE)).loss == 3.0
            await differentiation.close()
            assert differentiation.reconnects == 1
