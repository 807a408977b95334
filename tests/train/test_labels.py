"""Pictures whose label is probably wrong."""

import numpy as np
from gramlet_server.train import report
from gramlet_server.train.labels import confident_errors, mislabelled

TRUTH = np.arange(300) % 3


def features(truth: np.ndarray, seed: int = 0) -> np.ndarray:
    """(n, 64) around one center for each class, not negative, with a common part."""
    rng = np.random.default_rng(seed)
    centers = rng.gamma(1.0, 1.0, (3, 64))
    return np.maximum(2 + centers[truth] + rng.normal(0, 1.2, (len(truth), 64)), 0).astype(np.float32)


def test_concentrated_label_noise_is_found() -> None:
    labels = TRUTH.copy()
    wrong = set(np.flatnonzero(TRUTH == 0)[:40].tolist())
    labels[list(wrong)] = 1  # 40 of 100 pictures of class a are called b
    found = mislabelled(features(TRUTH), labels, np.arange(300), 3)
    right = [item for item in found if item.picture in wrong and item.suggestion == 0]
    assert len(right) >= 36
    assert len(found) - len(right) <= 4
    assert found[0].share > found[-1].share > 0.5


def test_right_labels_are_not_suspected_even_of_a_rare_class() -> None:
    assert len(mislabelled(features(TRUTH), TRUTH, np.arange(300), 3)) <= 3
    few = np.concatenate([np.flatnonzero(TRUTH == 0)[:6], np.flatnonzero(TRUTH > 0)])
    assert len(mislabelled(features(TRUTH)[few], TRUTH[few], np.arange(len(few)), 3)) <= 3


def test_pictures_of_other_sets_are_judged_and_do_not_vote() -> None:
    points, groups = features(TRUTH), np.where(np.arange(300) < 150, np.arange(300), -1)
    labels = TRUTH.copy()
    labels[150:] = (labels[150:] + 1) % 3  # every picture of the other set
    found = mislabelled(points, labels, groups, 3)
    assert {item.picture for item in found} >= set(range(160, 300))
    assert not {item.picture for item in found} & set(range(140))


def test_near_copies_do_not_vote_for_each_other() -> None:
    points, groups, labels = features(TRUTH), np.arange(300), TRUTH.copy()
    copies = np.flatnonzero(TRUTH == 0)[:25]
    points[copies], groups[copies], labels[copies] = points[copies[0]], copies[0], 1
    assert {item.picture for item in mislabelled(points, labels, groups, 3)} >= set(copies.tolist())


def test_two_pictures_of_a_class_are_enough() -> None:
    assert mislabelled(features(TRUTH)[:4], np.array([0, 0, 1, 1]), np.arange(4), 2) is not None
    assert mislabelled(features(TRUTH)[:2], np.array([0, 0]), np.array([0, 0]), 2) == []


def test_confident_learning_finds_as_many_as_were_changed() -> None:
    labels = TRUTH.copy()
    wrong = np.flatnonzero(TRUTH == 0)[:30]
    labels[wrong] = 1
    noisy = 3 * np.eye(3)[TRUTH] + np.random.default_rng(0).standard_normal((300, 3))
    found = confident_errors(labels, report.softmax(noisy))
    assert len(set(found) & set(wrong.tolist())) >= 18
    assert len(set(found) - set(wrong.tolist())) <= 2
    sure = 4 * np.eye(3)[TRUTH] + np.random.default_rng(0).standard_normal((300, 3))
    assert len(confident_errors(TRUTH, report.softmax(sure))) <= 3
