from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gramlet.embed.settings import Descriptor, Exactness, MapSettings, Method, Metric
from gramlet.errors import InvalidInput
from gramlet_server.embed.descriptors import Describer
from gramlet_server.embed.distances import Budget, Measurer
from gramlet_server.embed.runs import check_memory, default_stages, memory_bound

from tests.embed.conftest import gram_features

GRAMS = MapSettings(stages=("stage0", "stage1"), balance_stages=False)
VECTORS = MapSettings(descriptor=Descriptor.VECTOR)


def _joined(seed: int) -> np.ndarray:
    """The flattened and joined Gram matrices in float64, of which a descriptor keeps the distances."""
    return np.concatenate([gram.ravel() for gram in gram_features(seed).grams.values()]).astype(np.float64)


def _squared(vectors: np.ndarray) -> np.ndarray:
    return ((vectors[:, None] - vectors[None]) ** 2).sum(axis=2)


def test_a_packed_triangle_has_the_distances_of_the_whole_matrices() -> None:
    describer = Describer(GRAMS)
    packed = np.stack([describer.of_features(gram_features(seed)) for seed in range(6)])
    assert packed.shape[1] == 8 * 9 // 2 + 12 * 13 // 2
    np.testing.assert_allclose(_squared(packed), _squared(np.stack([_joined(seed) for seed in range(6)])), rtol=1e-5)


@pytest.mark.parametrize("sketch_size", [64, 100_000])
def test_exact_distances_are_those_of_float64(sketch_size: int) -> None:
    """Descriptors that are longer than a sketch go through the file, the others stay in memory."""
    settings = replace(GRAMS, sketch_size=sketch_size, exactness=Exactness.EXACT)
    describer = Describer(settings)
    with Measurer(70, settings, Budget()) as measurer:
        for seed in range(70):
            measurer.add(describer.of_features(gram_features(seed)))
        distances = measurer.measure()
    truth = _squared(np.stack([_joined(seed) for seed in range(70)]))
    np.testing.assert_allclose(distances.squared, truth, rtol=1e-4, atol=1e-5 * truth.max())
    assert distances.measured.exactness is Exactness.EXACT
    assert distances.measured.descriptor_size == 114
    assert distances.measured.pairs_checked == 24 * 23 // 2
    assert distances.measured.largest_error < 1e-4


def test_many_blocks_and_slices_give_the_same_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gramlet_server.embed.distances.BLOCK_BYTES", 4 * 1000 * 7)
    monkeypatch.setattr("gramlet_server.embed.distances.SLICE_BYTES", 4 * 300 * 50)
    vectors = np.random.default_rng(0).normal(3, 1, (50, 1000)).astype(np.float32)
    settings = replace(VECTORS, sketch_size=64, exactness=Exactness.EXACT)
    with Measurer(50, settings, Budget()) as measurer:
        for vector in vectors:
            measurer.add(vector)
        distances = measurer.measure()
    np.testing.assert_allclose(distances.squared, _squared(vectors.astype(np.float64)), rtol=1e-4)


def test_the_error_of_sketches_is_measured_and_as_small_as_documented() -> None:
    random = np.random.default_rng(1)
    vectors = (random.normal(size=(60, 8)) @ random.normal(size=(8, 5000))).astype(np.float32)
    settings = replace(VECTORS, sketch_size=1024, exactness=Exactness.SKETCH)
    with Measurer(60, settings, Budget()) as measurer:
        for vector in vectors:
            measurer.add(vector)
        distances = measurer.measure()
    truth = np.sqrt(_squared(vectors.astype(np.float64)))
    pairs = np.triu_indices(60, 1)
    errors = np.abs(np.sqrt(distances.squared[pairs]) - truth[pairs]) / truth[pairs]
    assert distances.measured.exactness is Exactness.SKETCH
    # The standard error of a distance is half that of its square, √(2/k).
    assert 0 < distances.measured.rms_error < 2 * np.sqrt(2 / 1024) / 2
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(distances.measured.rms_error, rel=0.5)


def test_sketches_are_used_where_files_would_be_too_large() -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 500)).astype(np.float32)
    settings = replace(VECTORS, sketch_size=100)
    with Measurer(20, settings, Budget(disk_bytes=1000)) as measurer:
        for vector in vectors:
            measurer.add(vector)
        assert measurer.measure().measured.exactness is Exactness.SKETCH
    with (
        Measurer(20, replace(settings, exactness=Exactness.EXACT), Budget(disk_bytes=1000)) as measurer,
        pytest.raises(InvalidInput) as error,
    ):
        measurer.add(vectors[0])
    assert error.value.field == "start.settings.exactness"


def test_cosine_and_correlation_distances() -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(2, 1, (5, 40)).astype(np.float32)
    found = [Describer(replace(VECTORS, metric=Metric.COSINE)).of_vector(vector) for vector in vectors]
    cosines = np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in vectors] for a in vectors])
    np.testing.assert_allclose(_squared(np.stack(found)), 2 - 2 * cosines, atol=1e-5)
    found = [Describer(replace(VECTORS, metric=Metric.CORRELATION)).of_vector(vector) for vector in vectors]
    np.testing.assert_allclose(_squared(np.stack(found)), 2 - 2 * np.corrcoef(vectors), atol=1e-5)


def test_correlation_of_packed_grams_is_that_of_the_whole_matrices() -> None:
    describer = Describer(replace(GRAMS, metric=Metric.CORRELATION))
    found = np.stack([describer.of_features(gram_features(seed)) for seed in range(4)])
    truth = np.corrcoef(np.stack([_joined(seed) for seed in range(4)]))
    np.testing.assert_allclose(found @ found.T, truth, atol=1e-5)


def test_balanced_stages_have_the_same_weight() -> None:
    descriptor = Describer(replace(GRAMS, balance_stages=True)).of_features(gram_features(1))
    assert np.linalg.norm(descriptor[:36]) == pytest.approx(1, abs=1e-6)
    assert np.linalg.norm(descriptor[36:]) == pytest.approx(1, abs=1e-6)


def test_a_descriptor_without_direction_is_taken_for_zero_and_counted() -> None:
    describer = Describer(replace(VECTORS, metric=Metric.COSINE))
    assert not describer.of_vector(np.zeros(5, np.float32)).any()
    assert describer.undirected == 1


@pytest.mark.parametrize("bad", [np.array([1, np.nan]), np.array([np.inf, 1]), np.zeros((2, 2)), np.zeros(0)])
def test_values_that_are_not_finite_vectors_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(InvalidInput) as error:
        Describer(VECTORS).of_vector(bad.astype(np.float32))
    assert error.value.field == "vector"


def test_duplicates_are_counted() -> None:
    with Measurer(3, VECTORS, Budget()) as measurer:
        for vector, content in (([1, 2], "a"), ([1, 2], "a"), ([3, 4], "b")):
            measurer.add(np.array(vector, np.float32), content)
        distances = measurer.measure()
    assert distances.measured.duplicates == 1
    assert distances.squared[0, 1] == 0


def test_10000_pictures_fit_4_gib_and_memory_is_checked_before_work() -> None:
    assert memory_bound(10_000, MapSettings()) < 4 * 2**30
    check_memory(10_000, MapSettings(), Budget())
    with pytest.raises(InvalidInput) as error:
        check_memory(10_000, MapSettings(method=Method.MDS), Budget())
    assert error.value.field == "start.count"


def test_default_stages_are_known_for_each_network() -> None:
    assert default_stages("resnet50", Descriptor.GRAM) == ("conv1", "maxpool", "layer1", "layer2")
    assert default_stages("vgg19", Descriptor.GRAM)[0] == "relu1_1"
    with pytest.raises(InvalidInput):
        default_stages("alexnet", Descriptor.GRAM)
