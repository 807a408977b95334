"""Heads in the store: atomic, versioned, never half there."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from gramlet.errors import InvalidInput, NotFound
from gramlet.train.configuration import HeadKind, Optimizer, Recipe
from gramlet.train.types import (
    ClassReport,
    Duplicate,
    Epoch,
    Findings,
    Head,
    HeadRef,
    Outcome,
    Report,
    Skipped,
    Suspect,
)
from gramlet_server.train.classifier import HeadWeights
from gramlet_server.train.registry import Registry
from safetensors.torch import load

HEAD = Head(
    name="bees",
    version=0,
    run_id="run",
    created="2024-01-01T00:00:00+00:00",
    backbone="resnet50",
    weights_digest="d" * 64,
    classes=("ant", "bee"),
    kind=HeadKind.MLP,
    stages=("layer4",),
    feature_stage="layer3",
    size=224,
    complete=True,
    bytes=0,
    outcome=Outcome(
        recipe=Recipe(optimizer=Optimizer.SGD, stage_rates={"layer4": 1e-5}, learning_rate=0.1),
        reports=(
            Report(
                "val", 3, 0.5, 2 / 3, {1: 2 / 3}, 0.6, 0.1, (ClassReport("ant", 1.0, 0.5, 0.6, 2),), ((1, 1), (0, 1))
            ),
        ),
        history=(Epoch(0, "head", 1, 2, 0.7, 0.6, 0.5, 0.4, {"head": 0.1}, True, 0.01, 0.0),),
        best_epoch=1,
        temperature=1.5,
        seconds=0.01,
    ),
    findings=Findings(
        (Skipped("x", "broken"),), (Duplicate("y", "z", False),), (Suspect("s", "val", "a", "b", 0.9),), (), ("few",)
    ),
)
STATE = {"output.weight": torch.randn(2, 8), "output.bias": torch.randn(2)}
DELTA = {"layer4.0.conv1.weight": torch.randn(4, 4, 1, 1)}


@pytest.fixture
def registry(store) -> Registry:
    return Registry(store)


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_what_is_stored_comes_back_whole(registry):
    added = registry.add(HEAD, HeadWeights(STATE, DELTA))
    head, content = registry.find(HeadRef("bees"))
    assert head == added == replace(HEAD, version=1, bytes=added.bytes)
    assert registry.get(HeadRef("bees", 1)) == head
    weights = registry.weights("bees", content)
    assert same(weights.head, STATE)
    assert same(weights.delta, DELTA)


def test_the_file_explains_itself(registry, tmp_path):
    registry.add(HEAD, HeadWeights(STATE, DELTA))
    data = registry.file("bees", registry.find(HeadRef("bees"))[1])
    assert set(load(data)) == {"head.output.weight", "head.output.bias", "delta.layer4.0.conv1.weight"}
    for word in (b"weights_digest", b"ant", b"layer4", b"calibration_error", b"2024-01-01"):
        assert word in data


def test_concurrent_runs_under_one_name_get_different_versions(registry):
    with ThreadPoolExecutor(8) as pool:
        added = list(pool.map(lambda i: registry.add(replace(HEAD, run_id=str(i)), HeadWeights(STATE, {})), range(8)))
    assert sorted(head.version for head in added) == list(range(1, 9))
    assert {(head.version, head.run_id) for head in registry.heads("bees")} == {(h.version, h.run_id) for h in added}


def test_a_deleted_version_is_gone_and_its_number_is_not_used_again(registry, store):
    registry.add(HEAD, HeadWeights(STATE, {}))
    registry.add(HEAD, HeadWeights(STATE, DELTA))
    registry.delete(HeadRef("bees", 2))
    assert [head.version for head in registry.heads()] == [1]
    assert registry.get(HeadRef("bees")).version == 1
    with pytest.raises(NotFound):
        registry.get(HeadRef("bees", 2))
    with pytest.raises(NotFound):
        registry.delete(HeadRef("bees", 2))
    assert registry.add(HEAD, HeadWeights(STATE, {})).version == 3
    files = [entry.key for entry in store.list("heads") if entry.key.endswith(".safetensors")]
    assert len(files) == 1  # versions 1 and 3 are the same tensors; version 2's are gone


def test_tensors_that_another_version_shares_stay_when_one_is_deleted(registry):
    first, second = registry.add(HEAD, HeadWeights(STATE, {})), registry.add(HEAD, HeadWeights(STATE, {}))
    registry.delete(HeadRef("bees", first.version))
    head, content = registry.find(HeadRef("bees", second.version))
    assert same(registry.weights(head.name, content).head, STATE)


def test_the_newest_head_is_the_newest_complete_one(registry):
    registry.add(HEAD, HeadWeights(STATE, {}))
    registry.add(replace(HEAD, complete=False), HeadWeights(STATE, {}))
    assert registry.get(HeadRef("bees")).version == 1
    assert not registry.get(HeadRef("bees", 2)).complete


def test_a_writer_that_died_before_the_description_leaves_no_head(registry, store):
    registry.add(HEAD, HeadWeights(STATE, {}))
    store.delete("heads/bees/00000001.json")
    assert registry.heads() == []


@pytest.mark.parametrize("ref", [HeadRef("wasps"), HeadRef("bees", 7)])
def test_a_head_that_is_not_there_is_not_found(registry, ref):
    registry.add(HEAD, HeadWeights(STATE, {}))
    with pytest.raises(NotFound, match=str(ref)):
        registry.get(ref)


@pytest.mark.parametrize("name", ["", "../runs", "a/b", "x" * 65])
def test_names_that_could_be_paths_are_refused(registry, name):
    with pytest.raises(InvalidInput):
        registry.get(HeadRef(name))


def test_deleting_needs_a_version(registry):
    registry.add(HEAD, HeadWeights(STATE, {}))
    with pytest.raises(InvalidInput, match="which version"):
        registry.delete(HeadRef("bees"))
