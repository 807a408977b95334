"""What training reserves of the server's memory covers what it takes."""

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from gramlet.errors import InvalidInput
from gramlet.train.configuration import Entry, TrainOrder
from gramlet.train.predictions import PredictOptions
from gramlet.train.types import HeadRef
from gramlet_server.backbone.architecture import architecture
from gramlet_server.process.memory_budget import PROCESS
from gramlet_server.train.findings import near_duplicates
from gramlet_server.train.labels import mislabelled
from gramlet_server.train.memory import findings_bytes
from gramlet_server.train.predict import Predictor
from gramlet_server.train.registry import Registry

from .conftest import PROBE, Client, DataSet, configuration, make_files, picture

CHANNELS = 2048


@pytest.mark.parametrize("count", [60, 400])
def test_looking_for_copies_and_wrong_labels_takes_no_more_than_is_reserved(count):
    embeddings = np.random.default_rng(0).gamma(1.0, 1.0, (count, CHANNELS)).astype(np.float32)
    entries = [Entry(f"train/{i % 3}/{i}", str(i % 3), "train", str(i)) for i in range(count)]
    bound = findings_bytes(entries, architecture("resnet50"))
    copied = np.arange(count)
    of_copies = peak(lambda: near_duplicates(entries, embeddings[copied]))
    of_labels = peak(lambda: mislabelled(embeddings[copied], copied % 3, copied, 3))
    assert bound / 3 < max(of_copies, of_labels) <= bound


def test_a_data_set_that_the_server_has_no_memory_to_compare_is_refused_before_its_pictures(runs, monkeypatch):
    data = DataSet(make_files())
    monkeypatch.setattr(PROCESS, "_limit", 10_000)
    with pytest.raises(InvalidInput, match="bytes of memory") as caught:
        runs.start(TrainOrder(configuration(data, PROBE)), ())
    assert caught.value.field == "entries"


def test_heads_in_memory_are_counted_and_dropped_where_other_work_needs_room(
    runs, engine, store, base, data_set, monkeypatch
):
    Client(runs, data_set).run(TrainOrder(configuration(data_set, PROBE)))
    predictor = Predictor(engine, Registry(store), base)
    before = PROCESS.reserved
    predictor.predict(HeadRef("colors"), [picture("red", 0)], PredictOptions())
    held = predictor.cached_bytes
    assert PROCESS.reserved - before >= held > 0
    monkeypatch.setattr(PROCESS, "_limit", PROCESS.reserved)
    with PROCESS.reserve(held):
        assert predictor.cached_bytes == 0


def peak(work: Callable[[], object]) -> int:
    """The most bytes of Python and NumPy that work holds at once, beside those that were there."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
