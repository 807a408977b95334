"""Settings are checked before any picture is decoded: a wrong setting is what an error names, whatever the pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from gramlet.embed.v1 import embed_pb2, embed_pb2_grpc
from gramlet.feature.v1 import feature_pb2, feature_pb2_grpc
from gramlet.stylize.v1 import stylize_pb2, stylize_pb2_grpc
from gramlet.tensor.v1 import picture_pb2
from gramlet.train.v1 import train_pb2, train_pb2_grpc
from gramlet.transport.failures import decode_rpc_error

from tests.guards.product import serving_all

NOT_A_PICTURE = picture_pb2.Picture(encoded=b"no picture at all")
STYLES = [feature_pb2.Style(picture=NOT_A_PICTURE, weight=1.0)] * 16
NO_STAGE = [feature_pb2.StageWeight(stage="layer9", weight=1.0)]


def objective(**changes: Any) -> feature_pb2.Objective:
    fields: dict[str, Any] = {
        "content": NOT_A_PICTURE,
        "content_stage": "layer1",
        "content_weight": 1.0,
        "styles": STYLES,
        "style_stages": NO_STAGE,
        "style_weight": 1.0,
        "gram_normalization": feature_pb2.GRAM_NORMALIZATION_NONE,
        "stage_balance": feature_pb2.STAGE_BALANCE_NONE,
    }
    return feature_pb2.Objective(**fields | changes)


def differentiate(sent: feature_pb2.Objective) -> feature_pb2.DifferentiateRequest:
    setup = feature_pb2.DifferentiateRequest.Setup(objective=sent, gradient_element_type=1)
    return feature_pb2.DifferentiateRequest(setup=setup)


def descend(**fields: Any) -> feature_pb2.DescendRequest:
    start: dict[str, Any] = {"objective": objective(), "iterations": 3, "initial": NOT_A_PICTURE}
    return feature_pb2.DescendRequest(start=feature_pb2.DescendRequest.Start(**start | fields))


def stylization(**settings: Any) -> stylize_pb2.Stylization:
    styles = [feature_pb2.Style(picture=NOT_A_PICTURE, weight=1.0)]
    return stylize_pb2.Stylization(content=NOT_A_PICTURE, styles=styles, settings=stylize_pb2.Settings(**settings))


def extraction(stage: str) -> feature_pb2.Extraction:
    return feature_pb2.Extraction(stages=[stage], forms=[feature_pb2.Extraction.FORM_POOLED])


FEATURE, STYLIZE = feature_pb2_grpc.FeatureServiceStub, stylize_pb2_grpc.StylizeServiceStub
TRAIN, EMBED = train_pb2_grpc.TrainServiceStub, embed_pb2_grpc.EmbedServiceStub
STREAM_ITEM = feature_pb2.ExtractStreamRequest(
    items=[feature_pb2.ExtractStreamRequest.Item(id="a", picture=NOT_A_PICTURE)]
)
EMBED_ITEM = embed_pb2.EmbedRequest(item=embed_pb2.Item(id="a", picture=NOT_A_PICTURE))
SEE_ITEM = feature_pb2.SeeRequest(items=[feature_pb2.SeeRequest.Item(id="a", picture=NOT_A_PICTURE)])
CASES: dict[str, tuple[Any, str, list[Any], str]] = {
    "Extract": (
        FEATURE,
        "Extract",
        [feature_pb2.ExtractRequest(extraction=extraction("layer9"), pictures=[NOT_A_PICTURE])],
        "extraction.stages[0]",
    ),
    "ExtractStream": (
        FEATURE,
        "ExtractStream",
        [feature_pb2.ExtractStreamRequest(extraction=extraction("layer9")), STREAM_ITEM],
        "extraction.stages[0]",
    ),
    "Differentiate": (FEATURE, "Differentiate", [differentiate(objective())], "style_stages[0].stage"),
    "Differentiate without weights": (
        FEATURE,
        "Differentiate",
        [differentiate(objective(content_weight=0, style_weight=0))],
        "style_weight",
    ),
    "Descend": (FEATURE, "Descend", [descend()], "style_stages[0].stage"),
    "Descend with a wrong optimizer": (
        FEATURE,
        "Descend",
        [descend(settings=feature_pb2.DescentSettings(learning_rate=-1.0))],
        "start.settings.learning_rate",
    ),
    "See": (
        FEATURE,
        "See",
        [feature_pb2.SeeRequest(start=feature_pb2.SeeRequest.Start(stage="layer9", patches=1)), SEE_ITEM],
        "start.stage",
    ),
    "Stylize": (
        STYLIZE,
        "Stylize",
        [stylize_pb2.StylizeRequest(stylization=stylization(content_stage="layer9"))],
        "settings.content_stage",
    ),
    "Sweep": (
        STYLIZE,
        "Sweep",
        [stylize_pb2.SweepRequest(stylization=stylization(), deepest_stages=["layer9"])],
        "deepest_stages[0]",
    ),
    "Train": (
        TRAIN,
        "Train",
        [
            train_pb2.TrainRequest(
                configuration=train_pb2.Configuration(
                    name="head",
                    recipes=[train_pb2.Recipe(kind=2, epochs=1)],
                    entries=train_pb2.Entries(entries=[train_pb2.Entry(name="a", label="b")]),
                    size=5,
                )
            ),
            train_pb2.TrainRequest(picture=train_pb2.LabelledPicture(picture=NOT_A_PICTURE)),
        ],
        "size",
    ),
    "Predict": (
        TRAIN,
        "Predict",
        [train_pb2.PredictRequest(head=train_pb2.HeadRef(name="none"), pictures=[NOT_A_PICTURE])],
        "head",
    ),
    "Embed": (
        EMBED,
        "Embed",
        [
            embed_pb2.EmbedRequest(
                start=embed_pb2.EmbedRequest.Start(
                    settings=embed_pb2.Settings(descriptor=1, stages=["layer9"]), count=1
                )
            ),
            EMBED_ITEM,
        ],
        "start.settings.stages[0]",
    ),
    "Transform": (
        EMBED,
        "Transform",
        [
            embed_pb2.TransformRequest(start=embed_pb2.TransformRequest.Start(map_id="none")),
            embed_pb2.TransformRequest(item=EMBED_ITEM.item),
        ],
        "map_id",
    ),
}


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    store: Path = tmp_path_factory.mktemp("store")
    with serving_all("--weights", "random:0", "--store", str(store)) as address, grpc.insecure_channel(address) as made:
        yield made


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_setting_is_refused_before_the_pictures_are_decoded(channel: grpc.Channel, case: str) -> None:
    stub, name, requests, field = CASES[case]
    method: Any = getattr(stub(channel), name)
    is_stream = name in ("ExtractStream", "Differentiate", "Descend", "See", "Train", "Embed", "Transform")

    def call() -> None:
        reply = method(iter(requests) if is_stream else requests[0], timeout=60)
        if name not in ("Extract", "Predict"):
            list(reply)

    with pytest.raises(grpc.RpcError) as failed:
        call()
    error = decode_rpc_error(failed.value, "the server")  # type: ignore[arg-type]
    assert error.field == field, error
