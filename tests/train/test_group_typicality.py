"""Pictures of one source are judged together, by how many of them are in the tail of the training pictures."""

import numpy as np
import pytest
from gramlet.train.predictions import TAIL, group_typicality
from gramlet_server.train.typicality import typicality, typicality_reference
from scipy import stats


@pytest.mark.parametrize(
    ("pictures", "atypical", "training"), [(50, 12, 244), (3, 3, 30), (20, 1, 100), (400, 90, 5_000)]
)
def test_the_p_value_is_the_tail_of_a_beta_binomial_distribution(pictures: int, atypical: int, training: int) -> None:
    found = group_typicality([0.05] * atypical + [0.5] * (pictures - atypical), training)
    reference = min(training, 2_000)
    tail = (reference + 1) // 10
    counts = np.arange(atypical, pictures + 1)
    expected = stats.betabinom.pmf(counts, pictures, tail, reference + 1 - tail).sum()
    assert found.p_value == pytest.approx(expected, rel=1e-6)
    assert (found.pictures, found.atypical, found.expected) == (pictures, atypical, pytest.approx(TAIL * pictures))


def test_nothing_is_claimed_without_atypical_pictures_or_with_too_few_training_pictures() -> None:
    assert group_typicality([0.5] * 30, 100).p_value == 1
    assert group_typicality([0.1] * 30, 8).p_value == 1
    assert group_typicality([], 100).p_value == 1


def test_pictures_of_the_same_source_have_a_low_p_value_by_chance_only() -> None:
    alarms, rng = [], np.random.default_rng(0)
    for seed in range(60):
        points = (1 + rng.standard_normal((150, 32))).astype(np.float32)
        kept = typicality_reference(points, np.arange(100), seed)
        alarms.append(group_typicality(typicality(kept, points[100:]).tolist(), 100).p_value <= 0.05)
    assert np.mean(alarms) <= 0.15
