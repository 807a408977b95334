"""The data set of a run: errors are found before any work, and oddities are reported."""

from dataclasses import replace

import pytest
from gramlet.errors import InvalidInput
from gramlet.feature.types import Model
from gramlet.train.configuration import Configuration, Entry, HeadKind, Optimizer, Recipe, Strategy
from gramlet_server.train import data, findings
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
        ({"folds": 21}, "folds"),
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


def test_classes_of_one_picture_each_have_no_out_of_fold_predictions():
    with pytest.raises(InvalidInput, match="no class has two pictures"):
        data.check_entries(entries(1), LIMITS)


def test_the_name_of_the_out_of_fold_report_is_not_a_set():
    with pytest.raises(InvalidInput, match="out_of_fold"):
        data.check_entries([*entries(), *entries(2, "a", "out_of_fold")], LIMITS)


def test_of_a_picture_that_stands_twice_the_later_is_left_out():
    twice = Entry("val/a/copy", "a", "val", "a0")
    kept, found = findings.duplicates([*entries(), twice])
    assert kept == entries()
    assert [(item.name, item.first, item.conflicting) for item in found] == [("val/a/copy", "train/a/0", False)]


def test_of_a_picture_with_two_labels_neither_is_kept():
    kept, found = findings.duplicates([*entries(), Entry("val/b/copy", "b", "val", "a0")])
    assert kept == entries()[1:]
    assert found[0].conflicting


def test_a_class_that_lost_all_its_pictures_is_an_error_with_the_reasons():
    whole = [*entries(count=2), Entry("train/b/copy", "b", "train", "a0")]
    kept, copies = findings.duplicates(whole)
    check_remaining(whole, kept, copies, {})
    with pytest.raises(InvalidInput) as caught:
        check_remaining(whole, [entry for entry in kept if entry.label == "b"], copies, {"train/a/1": "cut short"})
    assert caught.value.message == (
        "class 'a' has no training picture left: train/a/0 is the same picture as train/b/copy (class 'b', set "
        "'train'); train/a/1 cannot be read: cut short"
    )


def test_where_copies_have_two_labels_the_reason_names_the_other_label():
    whole = [Entry(f"{label}/{n}", label, "train", "same") for label in "ab" for n in range(2)]
    with pytest.raises(InvalidInput) as caught:
        check_remaining(whole, *findings.duplicates(whole), {})
    assert caught.value.message == (
        "class 'a' has no training picture left: a/0 is the same picture as b/0 (class 'b', set 'train'); a/1 is the "
        "same picture as b/0 (class 'b', set 'train')"
    )


def test_a_validation_set_of_training_pictures_is_an_error_with_the_reasons():
    whole = [*entries(count=2), *(replace(entry, name=f"val/{entry.name}", set="val") for entry in entries(count=2))]
    with pytest.raises(InvalidInput) as caught:
        check_remaining(whole, *findings.duplicates(whole), {})
    assert caught.value.message == (
        "the validation set has no picture left: val/train/a/0 is the same picture as train/a/0 (class 'a', set "
        "'train'); val/train/a/1 is the same picture as train/a/1 (class 'a', set 'train'); val/train/b/0 is the same "
        "picture as train/b/0 (class 'b', set 'train'); and 1 more"
    )
