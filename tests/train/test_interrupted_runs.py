"""Runs that are cut off, cancelled, resumed, finished or refused."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from gramlet.errors import (
    Cancelled,
    NotFound,
    Overloaded,
    Unavailable,
)
from gramlet.train.configuration import TrainOrder, Unreadable
from gramlet.train.types import Epoch, HeadRef, Skipped, Started
from gramlet_server.runs.store import Store
from gramlet_server.train.registry import Registry
from gramlet_server.train.runs import Runs, RunSettings

from .conftest import MLP, PROBE, UNFROZEN, Client, DataSet, configuration, make_files, tensors


def same(left, right) -> bool:
    return all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        for a, b in zip(left, right, strict=True)
    )


def nothing_half_written(store) -> bool:
    packs = [entry.key for entry in store.list("features")]
    return not store.list("heads") and all(
        key.replace(".keys", ".npy") in packs for key in packs if key.endswith(".keys")
    )


@pytest.mark.parametrize("recipes", [(MLP,), (PROBE, MLP), (UNFROZEN,)], ids=["mlp", "two", "unfrozen"])
def test_a_run_cut_off_in_training_is_resumed_without_pictures_to_the_same_head(
    recipes, engine, tmp_path, base, data_set
):
    whole_store, cut_store = Store.open(str(tmp_path / "whole")), Store.open(str(tmp_path / "cut"))
    folds = 1 if UNFROZEN in recipes else 0  # every fold has its own late stages, 60 MB and their optimizer
    order = TrainOrder(configuration(data_set, *recipes, folds=folds))
    settings = RunSettings(checkpoint_seconds=0)
    whole = Client(Runs(engine, whole_store, base, settings), data_set).run(order)

    # From the same features: their last bits may depend on what shared a pass through the network.
    for entry in whole_store.list("features"):
        cut_store.put(entry.key, whole_store.get(entry.key))
    cut = Client(Runs(engine, cut_store, base, settings), data_set)
    assert cut.run(order, stop_after=Epoch) is None
    assert nothing_half_written(cut_store)
    resumed = Client(Runs(engine, cut_store, base, settings), DataSet({}))
    result = resumed.run(TrainOrder(resume_run_id=cut.run_id))
    assert resumed.wanted == ()
    assert same(tensors(cut_store, result), tensors(whole_store, whole))
    assert result.head.outcome.reports == whole.head.outcome.reports


def test_a_run_cut_off_in_the_upload_asks_only_for_what_is_missing_and_gives_the_same_head(
    engine, store, tmp_path, base, data_set, monkeypatch
):
    # A pack for every picture, as if each had taken ten seconds.
    monkeypatch.setattr("gramlet_server.train.cache.PACK_SECONDS", 0.0)
    order = TrainOrder(configuration(data_set, MLP))
    cut = Client(Runs(engine, store, base), data_set)
    with pytest.raises(ConnectionError):
        cut.run(order, uploads=9)
    assert nothing_half_written(store)
    resumed = Client(Runs(engine, store, base), data_set)
    result = resumed.run(TrainOrder(resume_run_id=cut.run_id))
    assert len(resumed.wanted) == len(data_set.entries) - 9

    other = Store.open(str(tmp_path / "whole"))
    whole = Client(Runs(engine, other, base), data_set).run(order)
    # The last bits of an embedding may depend on what shared its pass through the network.
    (left, _), (right, _) = tensors(store, result), tensors(other, whole)
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=1e-2, atol=1e-3)
    assert result.head.outcome.report().loss == pytest.approx(whole.head.outcome.report().loss, rel=1e-3)


def reported(client: Client) -> list[tuple]:
    """What came of a run in the end, but for times: skipped pictures, the recipes and their epochs."""
    found = []
    for event in client.events:
        match event:
            case Skipped():
                found.append((event.name, event.reason))
            case Started():
                found.append((event.recipe, event.title, event.classes, dict(event.sets)))
            case Epoch():
                found.append((event.recipe, event.epoch, event.loss, event.validation_loss, event.best))
    return found


def test_whoever_resumes_a_run_hears_of_every_epoch(engine, tmp_path, base):
    data_set = DataSet({**make_files(), "train/red/broken.png": b"no picture"})
    settings = RunSettings(checkpoint_seconds=0)
    order = TrainOrder(configuration(data_set, PROBE, MLP, unreadable=Unreadable.SKIP))
    clients = {name: Client(Runs(engine, Store.open(str(tmp_path / name)), base, settings), data_set) for name in "ab"}
    whole, cut = clients["a"], clients["b"]
    whole.run(order)
    assert len(reported(whole)) == 1 + (1 + 5) + (1 + 6)
    # Of the events after these nobody knows whether they were read.
    for _ in range(3):
        cut.run(order, stop_after=Epoch)
        order = TrainOrder(resume_run_id=cut.run_id)
    cut.run(order)
    again = reported(cut)
    assert [event[:2] for event in again] == [event[:2] for event in reported(whole)]
    # Finished, and the end of its events was lost.
    cut.run(order)
    assert reported(cut) == again


def test_a_finished_run_that_is_resumed_gives_its_head_again_and_makes_no_other(runs, store, data_set):
    client = Client(runs, data_set)
    result = client.run(TrainOrder(configuration(data_set, PROBE)))
    again = Client(runs, data_set).run(TrainOrder(resume_run_id=client.run_id))
    assert again == result
    # Cut off between registering the head and saying so.
    for entry in store.list(f"runs/train/{client.run_id}"):
        if entry.key.endswith(("/result", "/summary")):
            store.delete(entry.key)
    once_more = Client(runs, data_set).run(TrainOrder(resume_run_id=client.run_id))
    assert once_more.head == result.head
    assert len(Registry(store).heads()) == 1


def test_a_cancelled_run_keeps_its_best_head_only_if_asked(runs, store, data_set):
    for asked in (False, True):
        order = TrainOrder(configuration(data_set, replace(MLP, epochs=1000), keep_on_cancel=asked))
        with pytest.raises(Cancelled):
            Client(runs, data_set).run(order, stop_after=Epoch, read_on=True)
        assert len(Registry(store).heads()) == asked
    (kept,) = Registry(store).heads()
    assert not kept.complete
    assert kept.outcome.reports
    with pytest.raises(NotFound):
        Registry(store).get(HeadRef("colors"))


def test_a_server_that_leaves_ends_its_runs_so_that_they_go_on_elsewhere(engine, store, base, data_set):
    leaving, staying = Runs(engine, store, base), Runs(engine, store, base)
    order = TrainOrder(configuration(data_set, MLP, keep_on_cancel=True))
    training = leaving.start(order, data_set.uploads(range(len(data_set.entries))))
    assert next(iter(training))
    leaving.lifecycle.drain()
    with pytest.raises(Unavailable, match=training.run_id) as caught:
        list(training)
    assert caught.value.retry_after == 0.0
    assert Registry(store).heads() == []
    result = Client(staying, data_set).run(TrainOrder(resume_run_id=training.run_id))
    assert result.head.version == 1


def test_a_finished_run_leaves_no_large_values_behind(runs, store, data_set):
    Client(runs, data_set).run(TrainOrder(configuration(data_set, MLP)))
    assert max(entry.size for entry in store.list("runs/train")) < 64 * 1024


def test_two_runs_at_once_under_one_name_give_two_versions(runs, store, data_set):
    with ThreadPoolExecutor(2) as pool:
        order = TrainOrder(configuration(data_set, PROBE))
        results = list(pool.map(lambda _: Client(runs, data_set).run(order), range(2)))
    assert {result.head.version for result in results} == {1, 2}


def test_more_runs_than_may_wait_are_refused_before_any_work(engine, store, base, data_set):
    runs = Runs(engine, store, base, RunSettings(running_limit=1, queue_limit=0))
    ticket = runs.lifecycle.queue.take()
    with pytest.raises(Overloaded) as caught:
        runs.start(TrainOrder(configuration(data_set, PROBE)), ())
    assert caught.value.retry_after
    assert not store.list("runs")
    runs.lifecycle.queue.leave(ticket)
    assert Client(runs, data_set).run(TrainOrder(configuration(data_set, PROBE))).head.accuracy == 1.0
