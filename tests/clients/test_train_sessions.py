"""What a call of TrainService remembers: which epochs its caller has seen."""

from __future__ import annotations

from gramlet.errors import Unavailable
from gramlet.train.configuration import Configuration, Recipe, TrainOrder
from gramlet.train.inputs import LabelledPictures
from gramlet.train.sessions import TrainRun
from gramlet.train.types import Epoch, Event, Started
from gramlet.train.wire import encode_event


def epochs(run: TrainRun, *events: Event) -> list[tuple[int, int]]:
    """The recipes and epochs of the epochs that the caller is told."""
    accepted = [run.accept(encode_event(event, run.run_id)) for event in events]
    return [(event.recipe, event.epoch) for event in accepted if isinstance(event, Epoch)]


def recipe(number: int, first: int, last: int, done: int = 0) -> list[Event]:
    """The begin of a recipe, and epochs."""
    rest = (0.0, 0.0, 0.0, 0.0, {}, False, 0.0, 0.0)
    begin = Started(number, done, "", ("a", "b"), {})
    return [begin, *(Epoch(number, "head", epoch, last, *rest) for epoch in range(first, last + 1))]


def test_epochs_that_were_lost_with_a_server_are_told_and_the_others_are_not_told_again() -> None:
    run = TrainRun(TrainOrder(Configuration("h", (Recipe(),), ()), run_id="r"), LabelledPictures((), ()))
    assert epochs(run, *recipe(0, 1, 2)) == [(0, 1), (0, 2)]
    run.broken(Unavailable("gone"))
    assert epochs(run, *recipe(0, 1, 4, done=4), *recipe(1, 1, 2, done=1)) == [(0, 3), (0, 4), (1, 1), (1, 2)]


def test_a_caller_who_resumes_a_training_is_told_the_epochs_from_then_on() -> None:
    run = TrainRun(TrainOrder(resume_run_id="r"), LabelledPictures((), ()))
    assert epochs(run, *recipe(0, 1, 4, done=4), *recipe(1, 1, 2, done=1)) == [(1, 2)]
    run.broken(Unavailable("gone"))
    assert epochs(run, *recipe(1, 1, 3, done=3), *recipe(2, 1, 1, done=1)) == [(1, 3), (2, 1)]
