"""Large messages travel in parts and arrive whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from gramlet.errors import InvalidInput
from gramlet.feature.v1 import feature_pb2
from gramlet.tensor import parts
from gramlet.tensor.parts import Joiner, split


def joined(messages: Iterable[Any], reserve: Callable[[int], None] = lambda size: None) -> Iterator[Any]:
    """Messages, each whole."""
    joiner: Joiner[Any] = Joiner(reserve)
    return (whole for message in messages if (whole := joiner.add(message)) is not None)


def evaluate(size: int, sequence: int = 7) -> feature_pb2.DifferentiateRequest:
    message = feature_pb2.DifferentiateRequest()
    message.evaluate.sequence = sequence
    message.evaluate.picture.data = bytes(range(256)) * (size // 256)
    return message


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(parts, "PART_BYTES", 400)


def test_a_large_message_travels_in_parts_between_others_and_arrives_whole() -> None:
    sent = [evaluate(256, 1), evaluate(2560, 2), evaluate(0, 3), evaluate(1280, 4)]
    carried = [part for message in sent for part in split(message)]
    assert [part.WhichOneof("message") for part in carried].count("part") == 7 + 4
    assert max(part.ByteSize() for part in carried) < 450
    assert list(joined(carried)) == sent


@pytest.mark.parametrize(
    "messages",
    [
        [feature_pb2.DifferentiateRequest(part={"data": b"a"}), evaluate(0)],  # type: ignore[arg-type]
        [feature_pb2.DifferentiateRequest(part={"data": b"\xff" * 9, "last": True})],  # type: ignore[arg-type]
        [feature_pb2.DifferentiateRequest(part={"data": b"a" * 900})] * 2,  # type: ignore[arg-type]
    ],
    ids=["another between", "no message", "too much"],
)
def test_parts_that_do_not_fit_are_refused(
    messages: list[feature_pb2.DifferentiateRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "MOST_BYTES", 1500)
    with pytest.raises(InvalidInput) as caught:
        list(joined(messages))
    assert caught.value.field == "part"
