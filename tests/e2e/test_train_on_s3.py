"""Trainings whose store and whose data set are on a real S3 server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from gramlet.errors import NotFound, PermissionDenied
from gramlet.train.configuration import Configuration, HeadKind, Optimizer, Recipe, TrainOrder
from gramlet.train.predictions import PredictOptions
from gramlet.train.types import Accepted, HeadRef, Result
from gramlet_server.backbone.network import Network
from gramlet_server.backbone.weights import load
from gramlet_server.feature.engine import Engine
from gramlet_server.runs.store import Store
from gramlet_server.train.classifier import BaseStages
from gramlet_server.train.predict import Predictor
from gramlet_server.train.registry import Registry
from gramlet_server.train.runs import Runs, RunSettings

from tests.e2e.cluster import SeaweedFS, variables
from tests.train.conftest import make_files

PROBE = Recipe(kind=HeadKind.LINEAR, optimizer=Optimizer.LBFGS, epochs=5)


@pytest.fixture
def bucket(seaweedfs: SeaweedFS) -> Iterator[str]:
    with variables(seaweedfs.variables):
        yield f"s3://gramlet/{uuid.uuid4().hex}"


def test_a_data_set_on_s3_is_read_by_the_server_and_the_head_is_kept_there(bucket: str) -> None:
    files = make_files(train=4, val=2)
    data = Store.open(f"{bucket}/colors")
    for name, content in files.items():
        data.put(name, content)
    store = Store.open(f"{bucket}/store")
    engine = Engine(Network(load("resnet50", "random:0")))
    try:
        runs = Runs(engine, store, BaseStages(None), RunSettings(dataset_roots=(bucket,)))
        order = Configuration("colors", (PROBE,), dataset=f"{bucket}/colors", size=64)
        for _ in range(2):
            accepted, *_, result = runs.start(TrainOrder(order), ())
            assert isinstance(accepted, Accepted)
            assert (accepted.pictures, accepted.wanted) == (len(files), ())
            assert isinstance(result, Result)
            assert result.head.accuracy == 1.0
        assert [head.version for head in Registry(store).heads()] == [1, 2]
        predictor = Predictor(engine, Registry(store), BaseStages(None))
        _, (prediction,) = predictor.predict(HeadRef("colors"), [files["val/red/0.png"]], PredictOptions())
        assert prediction.label == "red"
        with pytest.raises(PermissionDenied):
            runs.start(TrainOrder(Configuration("colors", dataset="s3://other/colors")), ())
        with pytest.raises(NotFound):
            runs.start(TrainOrder(Configuration("colors", dataset=f"{bucket}/nothing")), ())
    finally:
        engine.close()
