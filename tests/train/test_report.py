"""Every number of a report, against its definition written out or against scikit-learn."""

import numpy as np
import pytest
from gramlet_server.train import report
from sklearn import metrics as oracle


@pytest.fixture
def logits_and_labels():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 200)
    return 3 * rng.standard_normal((200, 5)) + 2 * np.eye(5)[labels], labels


def test_report_agrees_with_scikit_learn(logits_and_labels):
    logits, labels = logits_and_labels
    got = report.report("val", tuple("abcde"), logits, labels)
    predicted = logits.argmax(axis=1)
    precision, recall, f1, support = oracle.precision_recall_fscore_support(labels, predicted)
    assert got.accuracy == pytest.approx(oracle.accuracy_score(labels, predicted))
    assert got.macro_f1 == pytest.approx(oracle.f1_score(labels, predicted, average="macro"))
    assert got.loss == pytest.approx(oracle.log_loss(labels, report.softmax(logits)))
    assert np.array_equal(got.confusion, oracle.confusion_matrix(labels, predicted))
    assert [c.precision for c in got.classes] == pytest.approx(precision)
    assert [c.recall for c in got.classes] == pytest.approx(recall)
    assert [c.f1 for c in got.classes] == pytest.approx(f1)
    assert [c.support for c in got.classes] == list(support)
    assert got.top[1] == got.accuracy
    assert got.top[3] == pytest.approx(oracle.top_k_accuracy_score(labels, logits, k=3))


def test_a_class_that_is_absent_or_never_predicted_counts_as_zero_not_as_an_error():
    logits = np.array([[5.0, 0, 0], [4, 0, 0], [0, 6, 0]])
    got = report.report("val", ("a", "b", "c"), logits, np.array([0, 1, 1]))
    assert (got.classes[2].precision, got.classes[2].recall, got.classes[2].support) == (0, 0, 0)
    assert got.macro_f1 == pytest.approx((got.classes[0].f1 + got.classes[1].f1) / 2)


def test_calibration_error_is_the_mean_gap_over_bins_of_confidence():
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.6, 0.4], [0.4, 0.6]])
    labels = np.array([0, 1, 0, 1])
    # Bin (14/15, 1]: confidence 0.95, accuracy 0.5. Bin (8/15, 9/15]: confidence 0.6, accuracy 1.
    expected = 0.5 * abs(0.5 - 0.95) + 0.5 * abs(1 - 0.6)
    assert report.calibration_error(probabilities, labels) == pytest.approx(expected)


def test_the_interval_is_wilsons():
    # Wilson's formula for 8 of 10, written out.
    z, n, share = 1.959964, 10, 0.8
    center, half = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = ((center - half) / (1 + z**2 / n), (center + half) / (1 + z**2 / n))
    assert report.interval(8, 10) == pytest.approx((low, high))
    assert report.interval(0, 0) == (0, 1)
