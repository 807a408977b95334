"""Steps for `Script`: servers that answer, and break, as a test wants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from gramlet.errors import GramletError, Unavailable
from gramlet.feature.objective_wire import encode_evaluation, encode_ready
from gramlet.feature.types import Evaluation, Extraction, Features, Objective
from gramlet.feature.v1 import feature_pb2
from gramlet.feature.wire import encode_extract_replies
from gramlet.stylize.types import Iteration, Result, Started, StylizeEvent, StylizeSettings
from gramlet.stylize.wire import encode_event
from gramlet.train.v1 import train_pb2

GONE = Unavailable("going away")
PICTURE = np.zeros((3, 4, 4), np.float32)
OBJECTIVE = Objective(content=PICTURE, content_stage="conv1", content_weight=3.0)
EXTRACTION = Extraction(("conv1",))
START = Started(height=4, width=4, settings=StylizeSettings(iterations=4))
RESUMED = Started(iteration=2, height=4, width=4, settings=StylizeSettings(iterations=4))
RESULT = Result(iteration=4, loss=0.1, png=b"png")

Step = Callable[[Any, Any], Iterator[Any]]


def model(*_: Any) -> feature_pb2.GetModelResponse:
    """An answer of GetModel."""
    return feature_pb2.GetModelResponse(backbone="resnet50")


def iteration(number: int) -> Iteration:
    """An iteration of a stylization."""
    return Iteration(iteration=number, loss=1.0 / number, style_loss=0.0, content_loss=0.0)


def run(*events: StylizeEvent | GramletError) -> Step:
    """Stylize: these events, or an error in their midst."""

    def stream(request: Any, context: Any) -> Iterator[Any]:
        for event in events:
            if isinstance(event, GramletError):
                raise event
            yield encode_event(event, request.run_id or request.resume_run_id)

    return stream


def answering(count: int | None, error: GramletError = GONE) -> Step:
    """ExtractStream: answers so many pictures, then fails. The height of a picture is the number in its file."""

    def stream(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        assert next(requests).HasField("extraction")
        for done, item in enumerate(item for request in requests for item in request.items):
            if done == count:
                raise error
            features = Features({}, {}, {}, int(item.picture.encoded.removeprefix(b"GIF89a")), 1)
            yield from encode_extract_replies([item.id], [features], EXTRACTION)

    return stream


def differentiating(count: int, digest: str = "same", error: GramletError = GONE) -> Step:
    """Differentiate: evaluates so many pictures, then fails. The loss is the objective's content weight."""

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


def chunks(*parts: bytes) -> Iterator[Any]:
    """ExportHead: a file in these pieces."""
    total = sum(map(len, parts))
    for number, part in enumerate(parts):
        yield train_pb2.ExportHeadResponse(chunk=part, total_bytes=0 if number else total)
