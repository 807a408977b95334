"""Whole runs on a real network and small pictures, in this process: what a client sends and receives."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from gramlet.errors import (
    AlreadyExists,
    Cancelled,
    FailedPrecondition,
    GramletError,
    InvalidInput,
    NotFound,
    Overloaded,
    PermissionDenied,
    Unavailable,
)
from gramlet.train.configuration import HeadKind, Optimizer, Recipe, Strategy, TrainOrder, Unreadable
from gramlet.train.predictions import PredictOptions
from gramlet.train.types import Epoch, Extracting, HeadRef, Result, Skipped, Started
from gramlet_server.backbone.network import Network
from gramlet_server.backbone.weights import digest, load
from gramlet_server.feature.engine import Engine
from gramlet_server.runs.store import Store
from gramlet_server.train.classifier import BaseStages
from gramlet_server.train.predict import Predictor
from gramlet_server.train.registry import Registry
from gramlet_server.train.runs import Runs, RunSettings

from .conftest import Client, DataSet, configuration, make_files, picture

PROBE = Recipe(kind=HeadKind.LINEAR, optimizer=Optimizer.LBFGS, epochs=5, patience=0)
MLP = Recipe(epochs=6, patience=0, batch_size=8)
UNFROZEN = Recipe(
    kind=HeadKind.LINEAR,
    strategy=Strategy.ALL_AT_ONCE,
    stages=("layer4",),
    stage_epochs=2,
    batch_size=8,
    stage_learning_rate=1e-3,
)


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


def tensors(store, result: Result):
    registry = Registry(store)
    weights = registry.weights("colors", registry.find(HeadRef(result.head.name, result.head.version))[1])
    return weights.head, weights.delta


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


# --- the whole way ---


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


# --- strategies ---


def test_recipes_are_compared_side_by_side_on_every_set_and_the_best_is_kept(runs, engine, store, base):
    files = make_files()
    files |= {f"noisy/{name.split('/', 1)[1]}": picture("red", i) for i, name in enumerate(files) if "val/red" in name}
    data = DataSet(files)
    recipes = (PROBE, UNFROZEN, replace(UNFROZEN, strategy=Strategy.HEAD_THEN_STAGES, epochs=3))
    client = Client(runs, data)
    result = client.run(TrainOrder(configuration(data, *recipes)))
    assert [outcome.recipe for outcome in result.outcomes] == list(recipes)
    assert all(
        [report.set for report in outcome.reports] == ["out_of_fold", "val", "noisy"] for outcome in result.outcomes
    )
    losses = [outcome.report().loss for outcome in result.outcomes]
    assert result.best == losses.index(min(losses))
    kept = result.outcomes[result.best]
    assert replace(result.head.outcome, reports=()) == replace(kept, reports=())
    assert result.head.outcome.reports[1:] == kept.reports[1:]
    assert any("McNemar" in warning for warning in result.head.findings.warnings)
    phases = [event.phase for event in client.events if isinstance(event, Epoch) and event.recipe == 2]
    assert phases == ["head"] * 3 + ["stages"] * 2


@pytest.mark.parametrize("strategy", [Strategy.ALL_AT_ONCE, Strategy.HEAD_THEN_STAGES])
def test_unfrozen_stages_are_stored_with_the_head_and_serve_what_was_reported(
    strategy, runs, engine, store, base, weights, data_set
):
    # A head that learns slowly, so that the best epoch is one with trained stages.
    recipe = replace(UNFROZEN, strategy=strategy, epochs=1, learning_rate=1e-6, stage_learning_rate=1e-4)
    result = Client(runs, data_set).run(TrainOrder(configuration(data_set, recipe, folds=1)))
    assert result.head.stages == ("layer4",)
    assert result.head.feature_stage == "layer3"
    _, delta = tensors(store, result)
    assert delta
    assert all(name.startswith("layer4.") for name in delta)
    assert not any("running" in name for name in delta)
    validation = [entry for entry in data_set.entries if entry.set == "val"]
    _, predictions = Predictor(engine, Registry(store), base).predict(
        HeadRef("colors"), [data_set.files[entry.name] for entry in validation], PredictOptions(heat_maps=True)
    )
    right = np.mean([p.label == entry.label for p, entry in zip(predictions, validation, strict=True)])
    assert right == pytest.approx(result.head.outcome.report("val").accuracy)
    loss = -np.mean(
        [
            np.log(next(item.probability for item in p.classes if item.label == entry.label))
            for p, entry in zip(predictions, validation, strict=True)
        ]
    )
    assert all(item.heat_map.shape == (2, 2) for item in predictions)
    assert all(item.typicality > 0 for item in predictions)
    # Training took its boundary activations in half precision.
    assert loss == pytest.approx(result.head.outcome.report("val").loss, rel=1e-2, abs=1e-3)


def test_the_backbone_is_bit_identical_before_and_after(engine, store, weights, data_set):
    before = weights.digest
    network = engine.network
    copies = [tensor.clone() for tensor in _tensors_of(network)]
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        embedding = network.activations(pixels, ["avgpool"])["avgpool"].clone()
    runs = Runs(engine, store, BaseStages(lambda: weights))
    Client(runs, data_set).run(
        TrainOrder(configuration(data_set, MLP, replace(UNFROZEN, update_batch_norm=True), folds=1))
    )
    assert digest(weights.state) == before
    now = list(_tensors_of(network))
    assert len(now) == len(copies) > 100
    assert all(torch.equal(left, right) for left, right in zip(now, copies, strict=True))
    with torch.inference_mode():
        assert torch.equal(network.activations(pixels, ["avgpool"])["avgpool"], embedding)


def _tensors_of(value, seen=None):
    """Every tensor that can be reached from an object: the network's folded weights lie in closures."""
    seen = {} if seen is None else seen
    if id(value) in seen:
        return
    seen[id(value)] = value  # kept alive, or another object might get its id
    if isinstance(value, torch.Tensor):
        # Copies packed for oneDNN are made as new shapes come, and cannot be compared; what they do can.
        if not value.is_mkldnn:
            yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors_of(item, seen)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors_of(item, seen)
    elif getattr(value, "__closure__", None):
        for cell in value.__closure__:
            yield from _tensors_of(cell.cell_contents, seen)
    elif type(value).__module__.startswith("gramlet_server.backbone"):
        yield from _tensors_of(vars(value), seen)


def test_heads_and_runs_of_other_weights_are_refused(runs, store, data_set):
    client = Client(runs, data_set)
    assert client.run(TrainOrder(configuration(data_set, MLP)), stop_after=Epoch) is None
    Client(runs, data_set).run(TrainOrder(configuration(data_set, PROBE)))
    other = load("resnet50", "random:1")
    stranger = Engine(Network(other))
    try:
        base = BaseStages(lambda: other)
        with pytest.raises(FailedPrecondition, match="weights"):
            Predictor(stranger, Registry(store), base).predict(HeadRef("colors"), [picture("red", 0)], PredictOptions())
        with pytest.raises(FailedPrecondition, match="other weights"):
            Runs(stranger, store, base).start(TrainOrder(resume_run_id=client.run_id), ())
    finally:
        stranger.close()


@pytest.mark.parametrize("base", [BaseStages(None), BaseStages(lambda: load("resnet50", "random:1"))])
def test_stages_cannot_be_unfrozen_without_the_networks_own_weights(engine, store, base, data_set):
    with pytest.raises(FailedPrecondition, match="--weights"):
        Runs(engine, store, base).start(TrainOrder(configuration(data_set, UNFROZEN)), ())
    assert not store.list("runs")


# --- cut off and resumed ---


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


# --- what can be wrong ---


def test_what_is_wrong_with_the_data_is_said_before_any_work(runs, store, data_set):
    broken = [
        configuration(DataSet(make_files(labels=("red",)))),
        replace(configuration(data_set), entries=data_set.entries + data_set.entries[:1]),
        configuration(data_set, name="no/name"),
        replace(configuration(data_set), dataset="/etc", entries=()),
    ]
    for order in broken:
        with pytest.raises(GramletError):
            runs.start(TrainOrder(order), ())
    assert not store.list("runs")


def test_a_run_id_is_used_once_and_an_unknown_one_is_not_found(runs, data_set):
    order = TrainOrder(configuration(data_set, PROBE), run_id="mine")
    Client(runs, data_set).run(order)
    with pytest.raises(AlreadyExists):
        runs.start(order, ())
    with pytest.raises(NotFound):
        runs.start(TrainOrder(resume_run_id="other"), ())


def test_unreadable_pictures_are_skipped_by_name_or_fail_the_run(runs):
    files = make_files()
    files["train/red/torn.png"] = files["train/red/0.png"][:200]
    files["val/red/empty.png"] = b""
    data = DataSet(files)
    client = Client(runs, data)
    result = client.run(TrainOrder(configuration(data, PROBE)))
    names = {"train/red/torn.png", "val/red/empty.png"}
    assert {event.name for event in client.events if isinstance(event, Skipped)} == names
    assert {item.name for item in result.head.findings.skipped} == names
    assert result.head.outcome.report("val").pictures == 8
    with pytest.raises(InvalidInput, match=r"torn\.png|empty\.png"):
        Client(runs, data).run(TrainOrder(configuration(data, PROBE, unreadable=Unreadable.FAIL)))


def test_copies_of_an_unreadable_picture_are_skipped_with_it(runs):
    files = make_files()
    files["train/red/torn.png"] = files["train/green/torn.png"] = b"torn"
    data = DataSet(files)
    result = Client(runs, data).run(TrainOrder(configuration(data, PROBE)))
    assert {item.name for item in result.head.findings.skipped} == {"train/red/torn.png", "train/green/torn.png"}


def test_a_class_without_a_readable_picture_fails_the_run(runs):
    files = {name: (b"torn" if name.startswith("train/red") else data) for name, data in make_files().items()}
    data = DataSet(files)
    with pytest.raises(InvalidInput, match="'red' has no training picture left: train/red/0"):
        Client(runs, data).run(TrainOrder(configuration(data, PROBE)))


def test_pictures_that_were_not_asked_for_or_are_missing_or_swapped_fail_the_run(runs, data_set):
    class Swapped(DataSet):
        def uploads(self, wanted):
            uploads = super().uploads(wanted)
            return [replace(uploads[0], picture=uploads[1].picture), *uploads[1:]]

    class Twice(DataSet):
        def uploads(self, wanted):
            return [super().uploads(wanted)[0]] * 2

    class Few(DataSet):
        def uploads(self, wanted):
            return super().uploads(wanted)[:-1]

    for kind, message in [(Swapped, "another SHA-256"), (Twice, "not asked for"), (Few, "not sent")]:
        data = kind(data_set.files)
        with pytest.raises(InvalidInput, match=message):
            Client(runs, data).run(TrainOrder(configuration(data, PROBE)))


# --- data sets that the server reads ---


def test_a_folder_below_an_allowed_root_is_read_by_the_server(engine, store, base, tmp_path):
    root = tmp_path / "data"
    for name, content in make_files().items():
        (root / "colors" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "colors" / name).write_bytes(content)
    runs = Runs(engine, store, base, RunSettings(dataset_roots=(str(root),)))
    order = replace(configuration(DataSet({}), PROBE), dataset=str(root / "colors"))
    client = Client(runs, DataSet({}))
    assert client.run(TrainOrder(order)).head.accuracy == 1.0
    assert client.wanted == ()

    (root / "escape").symlink_to("/etc")
    for outside in (str(tmp_path), str(root / "escape"), f"{root}/../", "/etc", "s3://bucket/x"):
        with pytest.raises(PermissionDenied):
            runs.start(TrainOrder(replace(order, dataset=outside)), ())
    with pytest.raises(NotFound):
        runs.start(TrainOrder(replace(order, dataset=str(root / "nothing"))), ())


# --- a messy data set ---


def test_a_messy_data_set_gets_a_sensible_report(runs):
    """10 classes, 1 000 small pictures: one mislabelled, one truncated, one twice."""
    import io

    from PIL import Image

    rng = np.random.default_rng(0)
    hues = [tuple(int(127 + 100 * np.cos(2 * np.pi * (k / 10 + c / 3))) for c in range(3)) for k in range(10)]

    def draw(hue: int) -> bytes:
        pixels = np.array(hues[hue]) + rng.normal(0, 10, (32, 32, 3))
        buffer = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, format="PNG")
        return buffer.getvalue()

    files = {f"{'val' if i >= 80 else 'train'}/hue{k}/{i}.png": draw(k) for k in range(10) for i in range(100)}
    files["train/hue3/0.png"] = draw(7)
    files["train/hue4/1.png"] = files["train/hue4/1.png"][:-40]
    files["val/hue5/99.png"] = files["train/hue5/2.png"]
    data = DataSet(files)
    result = Client(runs, data).run(TrainOrder(replace(configuration(data, replace(PROBE, epochs=20)), size=32)))
    findings = result.head.findings
    assert [item.name for item in findings.skipped] == ["train/hue4/1.png"]
    assert [(item.name, item.first) for item in findings.duplicates] == [("val/hue5/99.png", "train/hue5/2.png")]
    assert ("train/hue3/0.png", "hue7") in {(item.name, item.suggestion) for item in findings.suspects}
    assert len(findings.suspects) < 5
    report = result.head.outcome.report("val")
    assert report.pictures == 199
    assert report.accuracy > 0.9
    assert report.top[5] == 1.0
    assert len(report.confusion) == 10
    assert sum(map(sum, report.confusion)) == 199
