from __future__ import annotations

import logging

import numpy as np
import pytest
from gramlet.errors import (
    AlreadyExists,
    FailedPrecondition,
    GramletError,
    InternalError,
    InvalidInput,
    NotFound,
    Overloaded,
    Unavailable,
)
from gramlet.feature.objective_wire import encode_evaluation, encode_ready
from gramlet.feature.sessions import CorpusWindow, DifferentiationState
from gramlet.feature.types import Evaluation, Extraction, Features, Objective, PictureStyle
from gramlet.feature.v1 import feature_pb2
from gramlet.feature.wire import encode_extract_replies
from gramlet.stylize.sessions import StylizeRun
from gramlet.stylize.types import (
    Adjusted,
    Checkpoint,
    Iteration,
    Preview,
    Queued,
    Reconnecting,
    Recovered,
    RecoveryReason,
    Result,
    ScaleStarted,
    Started,
    Stylization,
    StylizeEvent,
    StylizeOrder,
    StylizeSettings,
)
from gramlet.stylize.wire import encode_event
from gramlet.transport.window import FLIGHT_BYTES, MESSAGE_BYTES, MESSAGE_ITEMS
from gramlet.types import ElementType

NEW = StylizeOrder(Stylization(b"content", (PictureStyle(b"style"),)), preview_every=2, state_seconds=3.0)


def iteration(number: int) -> Iteration:
    return Iteration(iteration=number, loss=100.0 - number, style_loss=0.0, content_loss=0.0)


def started(number: int) -> Started:
    return Started(iteration=number, height=4, width=4, settings=StylizeSettings())


def told(run: StylizeRun, *events: StylizeEvent) -> list[tuple[str, int]]:
    """The names and iterations of the events that the caller is told."""
    accepted = [run.accept(encode_event(event, run.run_id)) for event in events]
    return [(type(event).__name__, event.iteration) for event in accepted if event is not None]


def test_a_new_run_has_a_name_before_it_is_sent() -> None:
    one, other = StylizeRun(NEW), StylizeRun(NEW)
    assert one.request().run_id == one.run_id != other.run_id


def test_after_a_break_the_run_is_resumed_with_the_same_reporting() -> None:
    run = StylizeRun(NEW)
    told(run, started(0), iteration(1))
    run.broken(Unavailable("gone"))
    request = run.request()
    assert request.WhichOneof("start") == "resume_run_id"
    assert request.resume_run_id == run.run_id
    assert (request.preview_every, request.state_seconds) == (2, 3)


def test_what_was_told_is_not_told_again() -> None:
    run = StylizeRun(NEW)
    before = (Queued(position=0), started(0), iteration(1), Preview(iteration=1, jpeg=b""), Checkpoint(iteration=1))
    assert len(told(run, *before, iteration(2), iteration(3))) == 7
    run.broken(Unavailable("gone"))
    again = (Queued(position=1), started(1), iteration(2), Preview(iteration=2, jpeg=b""), iteration(3), iteration(4))
    assert told(run, *again) == [("Preview", 2), ("Iteration", 4)]
    assert told(run, Checkpoint(iteration=1), Checkpoint(iteration=4)) == [("Checkpoint", 4)]


def test_a_recovery_is_told_once() -> None:
    run = StylizeRun(NEW)
    recovered = Recovered(iteration=2, reason=RecoveryReason.DIVERGED)
    assert told(run, started(0), iteration(1), recovered, iteration(2))[2] == ("Recovered", 2)
    run.broken(Unavailable("gone"))
    assert told(run, started(0), iteration(1), recovered, iteration(2)) == []


def test_a_recovery_that_took_the_place_of_its_iteration_is_told_once() -> None:
    run = StylizeRun(NEW)
    recovered = Recovered(iteration=2, reason=RecoveryReason.DIVERGED)
    assert told(run, started(0), iteration(1), recovered)[2] == ("Recovered", 2)
    run.broken(Unavailable("gone"))
    assert told(run, started(0), iteration(1), recovered, iteration(3)) == [("Iteration", 3)]


def test_a_change_of_weights_is_told_once() -> None:
    run = StylizeRun(NEW)
    adjusted = Adjusted(iteration=1, settings=StylizeSettings(), number=1)
    assert told(run, started(0), iteration(1), adjusted)[2] == ("Adjusted", 1)
    run.broken(Unavailable("gone"))
    again = Adjusted(iteration=1, settings=StylizeSettings(), number=2)
    assert told(run, started(0), adjusted, again) == [("Adjusted", 1)]


def test_iterations_that_a_lost_server_took_with_the_old_weights_are_told_again() -> None:
    run = StylizeRun(NEW)
    told(run, started(0), iteration(1), iteration(2), iteration(3), Checkpoint(iteration=3))
    run.broken(Unavailable("gone"))
    adjusted = Adjusted(iteration=1, settings=StylizeSettings(), number=1)
    again = (started(1), adjusted, iteration(2), Checkpoint(iteration=2))
    assert told(run, *again) == [("Adjusted", 1), ("Iteration", 2), ("Checkpoint", 2)]


def test_a_scale_is_reported_once() -> None:
    run = StylizeRun(NEW)
    scales = [ScaleStarted(iteration=number, height=4, width=4) for number in (0, 2)]
    assert told(run, started(0), scales[0], iteration(1), iteration(2), scales[1])[-1] == ("ScaleStarted", 2)
    run.broken(Unavailable("gone"))
    assert told(run, started(1), scales[0], iteration(2), scales[1], iteration(3)) == [("Iteration", 3)]


def test_a_caller_who_resumes_a_run_hears_only_of_what_comes_from_then_on() -> None:
    run = StylizeRun(StylizeOrder(resume_run_id="r"))
    assert told(run, started(2), iteration(1), iteration(2), iteration(3))[1:] == [("Iteration", 3)]
    finished = StylizeRun(StylizeOrder(resume_run_id="r"))
    result = Result(iteration=2, loss=1.0, png=b"")
    assert told(finished, iteration(1), iteration(2), result) == [("Result", 2)]


def test_the_result_ends_the_run() -> None:
    run = StylizeRun(NEW)
    told(run, started(0))
    assert not run.done
    assert told(run, Result(iteration=1, loss=1.0, png=b"")) == [("Result", 1)]
    assert run.done


def test_events_without_a_loss_have_the_newest() -> None:
    run = StylizeRun(NEW)
    told(run, started(0), iteration(7))
    preview = run.accept(encode_event(Preview(iteration=7, jpeg=b"")))
    assert preview is not None
    assert preview.loss == 93.0


def test_a_run_lost_before_its_first_event_is_ordered_again() -> None:
    run = StylizeRun(NEW)
    run.broken(Unavailable("gone"))
    assert run.request().WhichOneof("start") == "stylization"


def test_an_order_that_had_arrived_is_resumed() -> None:
    run = StylizeRun(NEW)
    run.broken(Unavailable("gone"))
    assert isinstance(run.broken(AlreadyExists("there is such a run")), Unavailable)
    assert run.request().WhichOneof("start") == "resume_run_id"


def test_a_run_without_a_checkpoint_begins_again_under_its_name() -> None:
    run = StylizeRun(NEW)
    told(run, started(0), iteration(1), iteration(2))
    run.broken(Unavailable("gone"))
    assert isinstance(run.broken(NotFound("no such run")), Unavailable)
    assert run.request().WhichOneof("start") == "stylization"
    assert run.request().run_id == run.run_id
    assert told(run, started(0), iteration(1), iteration(2), iteration(3)) == [("Iteration", 3)]


@pytest.mark.parametrize("error", [AlreadyExists("taken"), NotFound("none"), InvalidInput("bad")])
def test_a_refusal_of_the_first_order_is_final(error: GramletError) -> None:
    assert StylizeRun(NEW).broken(error) is error


def test_a_lost_server_is_an_event_once_until_events_come_again() -> None:
    run, lost = StylizeRun(NEW), Unavailable("the connection broke")
    assert run.lost(lost) is None  # nothing has come yet
    run.accept(encode_event(Started(run_id="r", height=8, width=8, settings=StylizeSettings())))
    run.accept(encode_event(Iteration(run_id="r", iteration=1, loss=2.0, style_loss=1.0, content_loss=1.0)))
    event = run.lost(lost)
    assert isinstance(event, Reconnecting)
    assert (event.iteration, event.loss, event.message) == (1, 2.0, "the connection broke")
    assert run.lost(lost) is None
    run.accept(encode_event(Iteration(run_id="r", iteration=2, loss=1.0, style_loss=1.0, content_loss=0.0)))
    assert run.lost(InvalidInput("no")) is None
    assert run.lost(lost) is not None


def test_a_run_to_resume_that_nobody_knows_is_final() -> None:
    error = NotFound("no such run")
    assert StylizeRun(StylizeOrder(resume_run_id="r")).broken(error) is error


FILE = b"GIF89a"
EXTRACTION = Extraction(("conv1",))


def reply(number: int, outcome: Features | GramletError | None = None) -> feature_pb2.ExtractStreamResponse:
    (message,) = encode_extract_replies([str(number)], [outcome or Features({}, {}, {}, number, 1)], EXTRACTION)
    return message


def sent(window: CorpusWindow) -> list[str]:
    return [item.id for message in window.messages() for item in message.items]


def heights(window: CorpusWindow) -> list[int]:
    return [outcome.height if isinstance(outcome, Features) else -1 for outcome in window.outcomes()]


def test_outcomes_come_in_the_order_of_the_pictures() -> None:
    window = CorpusWindow(EXTRACTION, in_flight=3)
    window.add([FILE] * 3)
    assert window.request().HasField("extraction")
    assert sent(window) == ["0", "1", "2"]
    window.accept(reply(2))
    assert heights(window) == []
    window.accept(reply(0))
    window.accept(reply(1))
    assert heights(window) == [0, 1, 2]
    assert window.is_empty


def test_all_pictures_of_a_window_are_for_the_network_that_answers_first() -> None:
    window = CorpusWindow(EXTRACTION, in_flight=2)
    window.add(b"x")
    assert window.request().extraction.weights_digest == ""
    window.accept(reply(0, Features({}, {}, {}, 0, 1, weights_digest="first")))
    window.broken()
    assert window.request().extraction.weights_digest == "first"


def test_a_window_is_full_until_its_oldest_picture_is_told() -> None:
    window = CorpusWindow(EXTRACTION, in_flight=2)
    window.add([FILE, FILE])
    assert not window.room(slow=False)
    window.accept(reply(1))
    assert not window.room(slow=False)
    window.accept(reply(0))
    list(window.outcomes())
    assert window.room(slow=False) == 2


def test_pictures_that_come_slowly_are_answered_after_fewer_of_them() -> None:
    window = CorpusWindow(EXTRACTION, in_flight=100)
    assert window.room(slow=True) < window.room(slow=False) == 100


def test_pictures_share_messages_up_to_their_bytes_and_number() -> None:
    window = CorpusWindow(EXTRACTION, in_flight=1000)
    large, huge = FILE + bytes(MESSAGE_BYTES // 4), FILE + bytes(2 * MESSAGE_BYTES)
    window.add([large] * 4 + [FILE] * (MESSAGE_ITEMS + 1) + [huge])
    assert [len(message.items) for message in window.messages()] == [3, MESSAGE_ITEMS, 2, 1]


def test_large_pictures_leave_room_for_few_others() -> None:
    window = CorpusWindow(EXTRACTION, in_flight=100)
    window.add([FILE + bytes(FLIGHT_BYTES)] * 3)
    assert window.room(slow=False)
    window.add([FILE])
    assert not window.room(slow=False)
    window.accept(reply(0))
    window.accept(reply(1))
    window.accept(reply(2))
    assert window.room(slow=False) == 96


def test_a_picture_that_cannot_be_read_never_travels() -> None:
    window = CorpusWindow(EXTRACTION, in_flight=2)
    window.add(["/nowhere.jpg", FILE])
    assert sent(window) == ["1"]
    outcome = next(window.outcomes())
    assert isinstance(outcome, NotFound)
    assert outcome.field == "pictures[0]"


def test_after_a_break_what_is_unanswered_is_sent_again_and_nothing_else() -> None:
    window = CorpusWindow(EXTRACTION, in_flight=4)
    window.add([FILE] * 4)
    sent(window)
    window.accept(reply(1))
    window.broken()
    assert sent(window) == ["0", "2", "3"]


def test_an_id_that_is_no_number_is_an_error_of_the_server() -> None:
    reply = feature_pb2.ExtractStreamResponse(ids=["wrong"], results=[feature_pb2.ExtractResult()])
    with pytest.raises(InternalError, match="a picture that it was not sent"):
        CorpusWindow(EXTRACTION, in_flight=2).accept(reply)


def test_an_answer_that_comes_twice_is_told_once() -> None:
    window = CorpusWindow(EXTRACTION, in_flight=2)
    window.add([FILE])
    sent(window)
    window.accept(reply(0))
    window.accept(reply(0))
    assert heights(window) == [0]


def test_a_picture_that_the_server_had_no_room_for_is_sent_again() -> None:
    window = CorpusWindow(EXTRACTION, in_flight=2)
    window.add([FILE])
    sent(window)
    with pytest.raises(Overloaded):
        window.accept(reply(0, Overloaded("full")))
    window.broken()
    assert sent(window) == ["0"]


def test_the_error_of_a_picture_names_its_place_among_the_callers_pictures() -> None:
    window = CorpusWindow(EXTRACTION, in_flight=2)
    window.add([FILE])
    window.accept(reply(0, InvalidInput("no picture", field="items[0].picture.encoded")))
    outcome = next(window.outcomes())
    assert isinstance(outcome, InvalidInput)
    assert outcome.field == "pictures[0]"


def evaluation(sequence: int) -> feature_pb2.DifferentiateResponse:
    gradient = np.zeros((3, 2, 2), np.float32)
    return encode_evaluation(Evaluation(1.0, 1.0, 0.0, 0.0, {}, gradient), sequence)


def test_an_answer_to_an_earlier_picture_is_passed_over() -> None:
    state = DifferentiationState(Objective(), ElementType.FLOAT32)
    assert state.evaluate(np.zeros((3, 2, 2), np.float32)).evaluate.sequence == 1
    state.evaluate(np.zeros((3, 2, 2), np.float32))
    assert state.evaluation(evaluation(1)) is None
    assert state.evaluation(evaluation(2)) is not None


def test_a_network_lost_and_found_is_counted() -> None:
    state = DifferentiationState(Objective(), ElementType.FLOAT32)
    state.ready(encode_ready("same"), state.objective)
    assert state.reconnects == 0
    state.broken(Unavailable("gone"))
    state.broken(Unavailable("still gone"))
    state.ready(encode_ready("same"), state.objective)
    assert state.reconnects == 1


def test_other_weights_are_refused() -> None:
    state = DifferentiationState(Objective(), ElementType.FLOAT32)
    state.ready(encode_ready("one"), state.objective)
    state.broken(Unavailable("gone"))
    with pytest.raises(FailedPrecondition, match="weights one to two"):
        state.ready(encode_ready("two"), state.objective)


def test_a_reason_to_wait_is_logged_once_until_events_come(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gramlet")
    run = StylizeRun(NEW)
    for reason in ("refused", "refused", "reset"):
        run.broken(Unavailable(reason))
    lines = [record.getMessage() for record in caplog.records]
    assert [line.rpartition(": ")[2] for line in lines] == ["refused", "reset"]
