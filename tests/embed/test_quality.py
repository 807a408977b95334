from __future__ import annotations

import numpy as np
import pytest
from gramlet_server.embed import quality
from sklearn.manifold import trustworthiness
from sklearn.metrics import silhouette_score

from tests.embed.conftest import clusters, judged, points_of


def test_measures_are_those_of_scikit_learn() -> None:
    vectors, labels = clusters(300)
    coordinates = vectors[:, :2].astype(np.float64)
    found = judged(points_of(vectors), coordinates, labels, 12)
    assert found.trustworthiness == pytest.approx(trustworthiness(vectors, coordinates, n_neighbors=12), abs=1e-6)
    # Continuity is trustworthiness with the two spaces exchanged.
    assert found.continuity == pytest.approx(trustworthiness(coordinates, vectors, n_neighbors=12), abs=1e-6)
    assert found.silhouette == pytest.approx(silhouette_score(coordinates, labels), abs=1e-6)
    assert found.descriptor_silhouette == pytest.approx(silhouette_score(vectors, labels), abs=1e-4)


def test_a_perfect_map_has_the_best_value_of_every_measure() -> None:
    vectors, labels = clusters(90, size=2, groups=3)
    found = judged(points_of(vectors), vectors.astype(np.float64), labels, 8)
    assert (found.trustworthiness, found.continuity, found.neighbor_preservation) == (1.0, 1.0, 1.0)
    assert found.label_accuracy == found.descriptor_label_accuracy


def test_label_accuracy_counts_items_among_their_own() -> None:
    line = np.array([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]])
    labels = ["a", "a", "b", "b", "b", "b"]
    found = judged(points_of(line), line, labels, 2)
    assert found.neighbors == 2
    assert found.label_accuracy == pytest.approx(5 / 6)  # the b at 2 lies among a's


def test_without_two_labels_no_label_measure_is_given() -> None:
    vectors, _ = clusters(20)
    for labels in ([""] * 20, ["same"] * 20):
        assert judged(points_of(vectors), vectors[:, :2].astype(float), labels, 5).label_accuracy is None


def test_unlabelled_items_are_left_out_of_label_measures() -> None:
    vectors, labels = clusters(60, groups=2)
    coordinates = vectors[:, :2].astype(float)
    some = [label if number < 40 else "" for number, label in enumerate(labels)]
    found = judged(points_of(vectors), coordinates, some, 5)
    of_those = judged(points_of(vectors[:40]), coordinates[:40], labels[:40], 5)
    assert found.silhouette == pytest.approx(of_those.silhouette)
    assert found.label_accuracy == of_those.label_accuracy


@pytest.mark.parametrize("items", [1, 2, 3])
def test_few_items_are_measured_too(items: int) -> None:
    vectors, labels = clusters(items, groups=2)
    found = judged(points_of(vectors), vectors[:, :2].astype(float), labels, 10)
    assert 0 <= found.trustworthiness <= 1


def test_many_items_are_measured_by_a_sample_within_its_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, labels = clusters(1500, groups=3)
    coordinates = vectors[:, :2].astype(np.float64)
    whole = judged(points_of(vectors), coordinates, labels, 10)
    monkeypatch.setattr(quality, "SAMPLE", 400)
    sample = judged(points_of(vectors), coordinates, labels, 10)
    assert (whole.items, whole.standard_error) == (1500, 0.0)
    assert sample.items == 400
    assert 0 < sample.standard_error < 0.03
    for name in ("trustworthiness", "continuity", "neighbor_preservation", "label_accuracy"):
        assert getattr(sample, name) == pytest.approx(getattr(whole, name), abs=4 * sample.standard_error)


def test_label_accuracy_alone_is_that_of_the_whole_quality() -> None:
    vectors, labels = clusters(200, groups=8, size=3)
    expected = judged(points_of(vectors), vectors[:, :2], labels, 10).descriptor_label_accuracy
    assert quality.label_accuracy(points_of(vectors), labels, 10) == expected
