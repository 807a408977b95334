"""The tables that turn dataclasses into messages and back."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from gramlet.errors import InvalidInput
from gramlet.stylize.types import StylizeOrder
from gramlet.stylize.v1 import stylize_pb2
from gramlet.tensor.codec import EnumCodec, EventCodec, MessageCodec, checked, each
from gramlet.train.configuration import HeadKind, Recipe, Schedule
from gramlet.train.v1 import train_pb2

KIND = EnumCodec({HeadKind.MLP: 1, HeadKind.LINEAR: 2}, closed=True)
SCHEDULE = EnumCodec({Schedule.CONSTANT: 1, Schedule.COSINE: 2, Schedule.LINEAR: 3})
OTHERS = ("strategy", "optimizer", "metric", "class_weights")
RECIPE = MessageCodec(Recipe, train_pb2.Recipe, beside=OTHERS, kind=KIND, schedule=SCHEDULE)


def test_what_arrives_unset_takes_the_default_of_the_dataclass() -> None:
    assert RECIPE.decode(train_pb2.Recipe()) == Recipe()


def test_a_value_that_is_set_is_kept_though_it_is_zero() -> None:
    recipe = RECIPE.decode(train_pb2.Recipe(patience=0, calibrate=False))
    assert (recipe.patience, recipe.calibrate) == (0, False)


def test_none_is_not_sent() -> None:
    assert not RECIPE.encode(Recipe(learning_rate=None)).HasField("learning_rate")


def test_an_empty_member_of_a_oneof_leaves_the_other_members_alone() -> None:
    @dataclass(frozen=True)
    class Order:
        stylization: stylize_pb2.Stylization | None = None
        resume_run_id: str = ""

    as_it_is = checked(lambda value, field: value)
    names = [field.name for field in stylize_pb2.StylizeRequest.DESCRIPTOR.fields]
    rest = tuple(name for name in names if name not in ("stylization", "resume_run_id"))
    codec = MessageCodec(Order, stylize_pb2.StylizeRequest, beside=rest, stylization=as_it_is)
    assert codec.encode(Order(stylize_pb2.Stylization())).WhichOneof("start") == "stylization"
    assert codec.encode(Order(resume_run_id="run")).WhichOneof("start") == "resume_run_id"


def test_a_refused_value_names_its_place() -> None:
    with pytest.raises(InvalidInput) as caught:
        each(RECIPE).decode([train_pb2.Recipe(), train_pb2.Recipe(kind=9)], "recipes")  # type: ignore[arg-type]
    assert caught.value.field == "recipes[1].kind"


def test_a_value_of_a_newer_release_is_kept() -> None:
    recipe = RECIPE.decode(train_pb2.Recipe(schedule=9))  # type: ignore[arg-type]
    assert isinstance(recipe.schedule, Schedule)
    assert (recipe.schedule.name, recipe.schedule.value) == ("UNKNOWN_9", "unknown (9)")
    assert recipe.schedule not in set(Schedule)
    assert RECIPE.encode(recipe).schedule == 9


@dataclass(frozen=True)
class Misspelled:
    positoin: int


def test_a_table_that_does_not_fit_its_message_fails_when_it_is_made() -> None:
    with pytest.raises(KeyError, match="position"):
        MessageCodec(Misspelled, train_pb2.Queued)
    with pytest.raises(TypeError, match="needs a converter"):
        MessageCodec(StylizeOrder, stylize_pb2.StylizeRequest)
    with pytest.raises(TypeError, match="has no knid"):
        MessageCodec(Recipe, train_pb2.Recipe, beside=OTHERS, kind=KIND, schedule=SCHEDULE, knid=KIND)
    with pytest.raises(TypeError, match="has the events"):
        EventCodec(train_pb2.TrainResponse, epoch=MessageCodec(Misspelled, train_pb2.Queued, beside=("position",)))
