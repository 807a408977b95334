"""Whole runs on a real (small-picture) network in this process: what a client promises, asks, and gets."""

from gramlet.heads import HeadRef, Result, TrainOrder
from gramlet_server.train.predict import Predictor
from gramlet_server.train.registry import Registry

from .conftest import Client, configuration


def test_a_run_trains_stores_and_serves_a_head(runs, engine, store, base, data_set):
    client = Client(runs, data_set)
    result = client.run(TrainOrder(configuration(data_set)))
    assert isinstance(result, Result)
    assert result.head.name == "colors"
    assert result.head.version == 1
    assert result.head.classes == ("green", "red")
    assert result.head.accuracy == 1.0
    assert result.learning_curves.startswith(b"\x89PNG")
    ref, predictions = Predictor(engine, Registry(store), base).predict(
        HeadRef("colors"), [data_set.files["val/red/0.png"]], 5
    )
    assert ref == HeadRef("colors", 1)
    assert predictions[0].label == "red"
