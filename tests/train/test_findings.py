"""What may be wrong with a data set: copies, wrong labels, and figures that say little."""

from dataclasses import replace

import numpy as np
import pytest
from gramlet.inputs.values import lookalikes
from gramlet.train.configuration import ClassWeights, Entry, Recipe
from gramlet.train.types import Outcome
from gramlet_server.train import findings, report
from gramlet_server.train.folds import fold_count, make_folds


def entries(count: int, set_name: str = "train") -> list[Entry]:
    return [Entry(f"{set_name}/{'ab'[i % 2]}/{i}", "ab"[i % 2], set_name, str(i)) for i in range(count)]


def embeddings(count: int, seed: int = 0) -> np.ndarray:
    """Two classes with clear centers."""
    rng = np.random.default_rng(seed)
    centers = 2 * rng.standard_normal((2, 96))
    return (centers[np.arange(count) % 2] + rng.standard_normal((count, 96))).astype(np.float32)


@pytest.mark.parametrize("count", [40, 300])
def test_copies_that_differ_a_little_are_found_across_sets_and_pictures_of_a_class_are_none(count):
    points = embeddings(count)
    assert findings.near_duplicates(entries(count), points) == ()
    copies = points[:4] + 0.05 * np.random.default_rng(1).standard_normal((4, 96)).astype(np.float32)
    listed = [*entries(count), *entries(4, "test")]
    listed[-1] = replace(listed[-1], label="a")  # a copy of a "b"
    pairs = findings.near_duplicates(listed, np.concatenate([points, copies]))
    assert {(pair.first, pair.name) for pair in pairs} == {(listed[i].name, listed[count + i].name) for i in range(4)}
    assert [pair.conflicting for pair in sorted(pairs, key=lambda pair: pair.name)] == [False, False, False, True]
    assert all((pair.first_set, pair.set) == ("train", "test") for pair in pairs)
    (leak, labels) = findings.warnings(outcome(points), {"a": 50, "b": 50}, pairs)
    assert "4 near-copies of training pictures are in set test" in leak
    assert "with two labels: 1;" in labels


def test_pictures_that_are_all_alike_are_one_group_and_a_few_pairs_each():
    points = embeddings(120)
    points[20:] = points[20]  # saved again without any loss, a hundred times
    listed = entries(120)
    pairs = findings.near_duplicates(listed, points)
    assert 99 <= len(pairs) <= 100 * findings.NEIGHBOR
    groups = findings.copy_groups(listed, pairs)
    assert len({*groups[:20], *groups[20:]}) == 21
    assert set(groups[20:]) == {20}


def test_near_copies_share_a_fold_and_every_other_picture_of_a_class_is_spread_over_the_folds():
    listed = entries(40)
    pairs = findings.near_duplicates(listed, np.concatenate([embeddings(38), embeddings(38)[:2]]))
    groups = findings.copy_groups(listed, pairs)
    labels = np.arange(40) % 2
    folds = make_folds(labels, groups, 5, seed=3)
    assert (folds.fold[0], folds.fold[1]) == (folds.fold[38], folds.fold[39])
    assert all(np.bincount(folds.fold[labels == label], minlength=5).min() >= 3 for label in (0, 1))
    assert np.array_equal(folds.fold, make_folds(labels, groups, 5, seed=3).fold)
    assert not np.array_equal(folds.fold, make_folds(labels, groups, 5, seed=4).fold)


def test_the_only_picture_of_a_class_is_in_every_training():
    folds = make_folds(np.array([0, 0, 0, 1]), np.arange(4), 5, seed=0)
    assert list(folds.covered) == [True, True, True, False]


def test_large_sets_have_fewer_folds_and_one_part_is_judged_in_groups():
    assert [fold_count(n, unfrozen=False) for n in (10, 5_000, 50_000)] == [5, 3, 1]
    assert [fold_count(n, unfrozen=True) for n in (10, 5_000)] == [3, 1]
    folds = make_folds(np.arange(100) % 2, np.arange(100), 1, seed=0)
    assert folds.covered.sum() == 20
    assert list(np.bincount(folds.group[folds.covered])) == [4] * 5


def outcome(points: np.ndarray, **fields) -> Outcome:
    logits = 9 * np.eye(2)[np.arange(400) % 2]
    found = report.report("out_of_fold", ("a", "b"), logits, np.arange(400) % 2)
    return Outcome(Recipe(**fields), (found,), (), 1, 1.0, 0.0)


def test_warnings_name_small_and_imbalanced_classes():
    few, imbalance = findings.warnings(outcome(None), {"a": 100, "b": 5}, ())
    assert "'b' (5)" in few
    assert "100 pictures of 'a', 5 of 'b'" in imbalance
    assert "weighted" in imbalance
    _, imbalance = findings.warnings(outcome(None, class_weights=ClassWeights.NONE), {"a": 100, "b": 5}, ())
    assert "use class weights" in imbalance
    assert findings.warnings(outcome(None), {"a": 100, "b": 90}, ()) == []
    (alike,) = findings.warnings(outcome(None), {"Ant": 90, "ant ": 90, "b": 90}, ())
    assert alike == "the classes 'Ant', 'ant ' look alike: are they one?"
    assert lookalikes(["\\xff", "\\xFF", "é", "É"]) == [
        "the classes '\\xff', '\\xFF' look alike: are they one?",
        "the classes '\\xe9', '\\xc9' look alike: are they one?",
    ]


def test_recipes_are_told_apart_by_mcnemars_test():
    labels = np.zeros(20, int)
    right, wrong = np.tile([1.0, 0.0], (20, 1)), np.tile([0.0, 1.0], (20, 1))
    assert findings.told_apart(labels, right, right) == 1
    assert findings.told_apart(labels, right, wrong) == pytest.approx(2 * 0.5**20)
