"""Runs that unfreeze stages or compare recipes, and the network that no run changes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gramlet.errors import FailedPrecondition
from gramlet.train.configuration import Strategy, TrainOrder
from gramlet.train.predictions import PredictOptions
from gramlet.train.types import Epoch, HeadRef
from gramlet_server.backbone.network import Network
from gramlet_server.backbone.weights import digest, load
from gramlet_server.feature.engine import Engine
from gramlet_server.train.classifier import BaseStages
from gramlet_server.train.predict import Predictor
from gramlet_server.train.registry import Registry
from gramlet_server.train.runs import Runs

from .conftest import MLP, PROBE, UNFROZEN, Client, DataSet, configuration, make_files, picture, tensors


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
