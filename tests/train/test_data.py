"""The data set of a run: errors are found before any work, and oddities are reported."""

from dataclasses import replace

import numpy as np
import pytest
from gramlet.errors import InvalidInput
from gramlet.feature.types import Model
from gramlet.train.configuration import Configuration, Entry, HeadKind, Optimizer, Recipe, Strategy
from gramlet_server.train import data
from gramlet_server.train.data import TrainLimits
from gramlet_server.train.remaining import check_remaining

MODEL = Model("resnet50", "d" * 64, "random:0", "cpu", "float32", ())
LIMITS = TrainLimits()


def entries(count: int = 5, labels: str = "ab", name: str = "train") -> list[Entry]:
    return [Entry(f"{name}/{label}/{i}", label, name, f"{label}{i}") for label in labels for i in range(count)]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (entries(labels="a"), "two classes"),
        ([], "two classes"),
        (entries(name="val"), "two classes"),
        ([*entries(), Entry("train/a/0", "b")], "unique"),
        ([*entries(), Entry("new", "")], "empty"),
        ([*entries(), *entries(labels="c", name="val")], "'c' of set 'val'"),
    ],
)
def test_a_data_set_that_cannot_be_trained_on_is_refused(broken, message):
    with pytest.raises(InvalidInput, match=message):
        data.check_entries(broken, LIMITS)


def test_a_data_set_larger_than_the_limit_is_refused():
    with pytest.raises(InvalidInput, match="this server takes 9"):
        data.check_entries(entries(), replace(LIMITS, pictures=9))


@pytest.mark.parametrize(
    ("recipe", "field"),
    [
        (Recipe(stages=("layer4",)), "stages"),
        (Recipe(strategy=Strategy.ALL_AT_ONCE), "stages"),
        (Recipe(strategy=Strategy.ALL_AT_ONCE, stages=("layer3",)), "stages"),
        (Recipe(strategy=Strategy.ALL_AT_ONCE, stages=("layer4", "layer3")), "stages"),
        (Recipe(strategy=Strategy.ALL_AT_ONCE, stages=("layer4",), stage_rates={"layer3": 1}), "stage_rates"),
        (Recipe(optimizer=Optimizer.LBFGS), "optimizer"),
        (Recipe(epochs=0), "epochs"),
        (Recipe(batch_size=1), "batch_size"),
        (Recipe(learning_rate=-1.0), "learning_rate"),
        (Recipe(learning_rate=float("nan")), "learning_rate"),
        (Recipe(label_smoothing=1.0), "label_smoothing"),
        (Recipe(weight_decay=-1.0), "weight_decay"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused_by_its_field(recipe, field):
    with pytest.raises(InvalidInput) as caught:
        data.check_configuration(Configuration("bees", (Recipe(), recipe)), LIMITS, MODEL)
    assert caught.value.field == f"recipes[1].{field}"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "../bees"}, "name"),
        ({"size": 8}, "size"),
        ({"views": 10_000}, "views"),
        ({"recipes": ()}, "recipes"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused_by_its_field(change, field):
    with pytest.raises(InvalidInput) as caught:
        data.check_configuration(replace(Configuration("bees"), **change), LIMITS, MODEL)
    assert caught.value.field == field


def test_stages_of_other_networks_cannot_be_unfrozen():
    recipe = Recipe(strategy=Strategy.ALL_AT_ONCE, stages=("layer4",))
    with pytest.raises(InvalidInput, match="vgg16"):
        data.check_configuration(Configuration("bees", (recipe,)), LIMITS, replace(MODEL, backbone="vgg16"))


def test_lbfgs_trains_a_linear_probe():
    recipe = Recipe(kind=HeadKind.LINEAR, optimizer=Optimizer.LBFGS)
    data.check_configuration(Configuration("bees", (recipe,)), LIMITS, MODEL)


def test_the_split_is_stratified_seeded_and_independent_of_the_order():
    listed = [*entries(20, "a"), *entries(5, "b"), *entries(2, "c")]
    parts = data.split(listed, 0.2, seed=1)
    chosen = {entry.name for entry in parts if entry.set == "val"}
    assert [sum(entry.label == label and entry.name in chosen for entry in parts) for label in "abc"] == [4, 1, 1]
    assert chosen == {entry.name for entry in data.split(listed[::-1], 0.2, seed=1) if entry.set == "val"}
    assert chosen != {entry.name for entry in data.split(listed, 0.2, seed=2) if entry.set == "val"}


def test_given_validation_pictures_are_kept():
    listed = [*entries(), *entries(2, "a", "val")]
    assert data.split(listed, 0.5, seed=0) == listed


def test_a_class_with_one_picture_is_trained_on_not_held_out():
    parts = data.split([*entries(4, "a"), *entries(1, "b")], 0.5, seed=0)
    assert {entry.label for entry in parts if entry.set == "val"} == {"a"}


def test_classes_of_one_picture_each_cannot_be_split():
    with pytest.raises(InvalidInput, match="no class has two pictures"):
        data.split(entries(1), 0.2, seed=0)


def test_of_a_picture_that_stands_twice_the_later_is_left_out():
    twice = Entry("val/a/copy", "a", "val", "a0")
    kept, found = data.duplicates([*entries(), twice])
    assert kept == entries()
    assert [(item.name, item.first, item.conflicting) for item in found] == [("val/a/copy", "train/a/0", False)]


def test_of_a_picture_with_two_labels_neither_is_kept():
    kept, found = data.duplicates([*entries(), Entry("val/b/copy", "b", "val", "a0")])
    assert kept == entries()[1:]
    assert found[0].conflicting


def test_a_class_that_lost_all_its_pictures_is_an_error_with_the_reasons():
    whole = [*entries(count=2), Entry("train/b/copy", "b", "train", "a0")]
    kept, copies = data.duplicates(whole)
    check_remaining(whole, kept, copies, {})
    with pytest.raises(InvalidInput) as caught:
        check_remaining(whole, [entry for entry in kept if entry.label == "b"], copies, {"train/a/1": "cut short"})
    assert caught.value.message == (
        "class 'a' has no training picture left: train/a/0 is the same picture as train/b/copy (class 'b', set "
        "'train'); train/a/1 cannot be read: cut short"
    )


def test_a_validation_set_of_training_pictures_is_an_error_with_the_reasons():
    whole = [*entries(count=2), *(replace(entry, name=f"val/{entry.name}", set="val") for entry in entries(count=2))]
    with pytest.raises(InvalidInput) as caught:
        check_remaining(whole, *data.duplicates(whole), {})
    assert caught.value.message == (
        "the validation set has no picture left: val/train/a/0 is the same picture as train/a/0 (class 'a', set "
        "'train'); val/train/a/1 is the same picture as train/a/1 (class 'a', set 'train'); val/train/b/0 is the same "
        "picture as train/b/0 (class 'b', set 'train'); and 1 more"
    )


def test_a_mislabelled_picture_among_clear_neighbors_is_suspected():
    rng = np.random.default_rng(0)
    listed = entries(20)
    embeddings = np.array([[1.0, 0] if entry.label == "a" else [0, 1.0] for entry in listed])
    embeddings[3] = [0, 1.0]
    (found,) = data.suspects(listed, embeddings + 0.05 * rng.standard_normal(embeddings.shape))
    assert (found.name, found.label, found.suggestion) == (listed[3].name, "a", "b")


def test_classes_that_overlap_make_nobody_suspect():
    embeddings = np.random.default_rng(0).standard_normal((40, 8))
    assert data.suspects(entries(20), embeddings) == ()
