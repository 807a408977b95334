"""Whole runs on a real network and small pictures, in this process: what a client sends and receives."""

import pytest
from gramlet.errors import (
    InvalidInput,
)
from gramlet.train.configuration import TrainOrder
from gramlet.train.predictions import PredictOptions
from gramlet.train.types import Extracting, HeadRef, Result, Started
from gramlet_server.feature.engine import Engine
from gramlet_server.train.predict import Predictor
from gramlet_server.train.registry import Registry
from gramlet_server.train.runs import Runs

from .conftest import MLP, PROBE, Client, DataSet, configuration, make_files


class Counting:
    """A feature source that counts the pictures it is given."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.pictures = 0

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def pinned(self, weights_digest):
        self.engine.pinned(weights_digest)
        return self

    def extract(self, pictures, extraction):
        for outcome in self.engine.extract(pictures, extraction):
            self.pictures += 1
            yield outcome


def test_a_run_trains_stores_and_serves_a_head(runs, engine, store, base, data_set):
    client = Client(runs, data_set)
    result = client.run(TrainOrder(configuration(data_set, PROBE)))
    assert [type(event) for event in client.events][-1] is Result
    assert (result.head.name, result.head.version, result.head.classes) == ("colors", 1, ("green", "red"))
    assert result.head.accuracy == 1.0
    assert result.head.weights_digest == engine.model().weights_digest
    assert result.learning_curves.startswith(b"\x89PNG")
    assert result.confusion_matrix.startswith(b"\x89PNG")
    predictor = Predictor(engine, Registry(store), base)
    pictures = [data_set.files["val/red/0.png"], b"no picture", data_set.files["val/green/0.png"]]
    ref, (red, broken, green) = predictor.predict(HeadRef("colors"), pictures, PredictOptions())
    assert ref == HeadRef("colors", 1)
    assert (red.label, green.label) == ("red", "green")
    assert sum(item.probability for item in red.classes) == pytest.approx(1)
    assert (red.prediction_set, green.prediction_set) == (("red",), ("green",))
    assert min(red.typicality, green.typicality) > 0.05
    assert isinstance(broken, InvalidInput)
    assert broken.field == "pictures[1]"


def test_pictures_seen_before_are_neither_asked_for_nor_extracted_again(engine, store, base, data_set):
    source = Counting(engine)
    runs = Runs(source, store, base)
    first, second = Client(runs, data_set), Client(runs, data_set)
    first.run(TrainOrder(configuration(data_set, PROBE)))
    assert source.pictures == len(first.wanted) == len(data_set.entries)
    second.run(TrainOrder(configuration(data_set, MLP)))
    assert second.wanted == ()
    assert source.pictures == len(data_set.entries)
    cached = [event.cached for event in second.events if isinstance(event, Extracting)]
    assert cached[-1] == len(data_set.entries)


def test_pictures_sent_without_their_hash_are_found_in_the_cache_too(engine, store, base, data_set):
    source = Counting(engine)
    runs = Runs(source, store, base)
    Client(runs, data_set).run(TrainOrder(configuration(data_set, PROBE)))
    before = source.pictures
    unhashed = DataSet(data_set.files, hashed=False)
    client = Client(runs, unhashed)
    assert client.run(TrainOrder(configuration(unhashed, PROBE))).head.accuracy == 1.0
    assert len(client.wanted) == len(data_set.entries)
    assert source.pictures == before


def test_augmented_views_are_extracted_once_and_trained_on(engine, store, base, data_set):
    source = Counting(engine)
    runs = Runs(source, store, base)
    client = Client(runs, data_set)
    client.run(TrainOrder(configuration(data_set, PROBE, views=2)))
    training = sum(entry.set == "train" for entry in data_set.entries)
    assert source.pictures == len(data_set.entries) + 2 * training
    (started,) = [event for event in client.events if isinstance(event, Started)]
    assert started.sets == {"train": 3 * training, "val": len(data_set.entries) - training}
    client.run(TrainOrder(configuration(data_set, PROBE, views=2)))
    assert source.pictures == len(data_set.entries) + 2 * training


def test_without_another_set_every_picture_is_trained_on_and_predicted_out_of_fold(runs):
    data = DataSet(make_files(train=10, val=0))
    client = Client(runs, data)
    result = client.run(TrainOrder(configuration(data, PROBE)))
    (started,) = [event for event in client.events if isinstance(event, Started)]
    assert started.sets == {"train": 20}
    (found,) = result.head.outcome.reports
    assert (found.set, found.pictures, found.accuracy) == ("out_of_fold", 20, 1.0)
    assert any("uncertain" in warning for warning in result.head.findings.warnings)
