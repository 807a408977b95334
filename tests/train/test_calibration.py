"""Probabilities that can be trusted: temperatures, and prediction sets with coverage."""

import numpy as np
import pytest
from gramlet_server.train import calibration, report
from gramlet_server.train.calibration import calibrate, conformal_scores, prediction_set


def drawn(count: int, seed: int, scale: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from the probabilities that they give."""
    rng = np.random.default_rng(seed)
    logits = scale * rng.standard_normal((count, 4))
    return logits, np.array([rng.choice(4, p=p) for p in report.softmax(logits)])


def test_temperature_recovers_the_scale_of_overconfident_logits():
    logits, labels = drawn(5000, 1)
    found = calibrate(3 * logits, labels, np.arange(5000) % 5)
    assert found.temperature == pytest.approx(3, rel=0.05)
    assert report.cross_entropy(found.logits, labels) == pytest.approx(report.cross_entropy(logits, labels), rel=0.01)


def test_logits_that_are_calibrated_stay_as_they_are():
    logits, labels = drawn(500, 2)
    found = calibrate(logits, labels, np.arange(500) % 5)
    assert found.temperature == 1
    assert np.array_equal(found.logits, logits)


def test_a_few_pictures_that_are_all_classified_rightly_ask_for_no_extreme_temperature():
    labels = np.arange(60) % 3
    assert calibration.fit_temperature(4 * np.eye(3)[labels[:6]], labels[:6]) == pytest.approx(1, abs=1e-3)
    assert calibration.fit_temperature(4 * np.eye(3)[labels], labels) > 0.4


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_prediction_sets_cover_the_right_class_as_often_as_promised(coverage):
    covered = []
    for seed in range(40):
        logits, labels = drawn(300, seed)
        probabilities = report.softmax(logits)
        scores = conformal_scores(probabilities[:100], labels[:100])
        sets = np.array([prediction_set(p, scores, coverage) for p in probabilities[100:]])
        covered.append(sets[np.arange(200), labels[100:]].mean())
    assert np.mean(covered) == pytest.approx(coverage, abs=0.02)


def test_too_few_scores_for_a_coverage_leave_every_class_plausible():
    assert prediction_set(np.array([0.99, 0.01]), np.array([0.1, 0.2]), 0.9).all()
