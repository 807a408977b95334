from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from gramlet.embed.settings import Descriptor, Exactness, MapSettings, Method, Metric, Preset
from gramlet.embed.types import Measured
from gramlet.errors import InvalidInput
from gramlet.feature.types import Model, Stage
from gramlet_server.embed.descriptors import Describer
from gramlet_server.embed.distances import Budget, Measurer
from gramlet_server.embed.geometry import Kept, points_of
from gramlet_server.embed.memory import MapSize, memory_bound
from gramlet_server.embed.runs import check_memory, complete, default_sketch_size
from gramlet_server.process.memory_budget import PROCESS

from tests.embed.conftest import gram_features

GRAMS = MapSettings(stages=("stage0", "stage1"), balance_stages=False, sketch_size=4096)
VECTORS = MapSettings(descriptor=Descriptor.VECTOR, sketch_size=4096)
BUDGET = Budget()


def _joined(seed: int) -> np.ndarray:
    """The flattened and joined Gram matrices in float64, of which a descriptor keeps the distances."""
    return np.concatenate([gram.ravel() for gram in gram_features(seed).grams.values()]).astype(np.float64)


def _measured(
    vectors: np.ndarray,
    settings: MapSettings,
    budget: Budget = BUDGET,
    ones: np.ndarray | None = None,
) -> tuple[Kept, Measured]:
    with Measurer(len(vectors), settings, budget) as measurer:
        for vector in vectors:
            measurer.add(vector, lambda: np.ones(vectors.shape[1], np.float32) if ones is None else ones)
        return measurer.measure()


def _grams(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Packed descriptors, and that of matrices of ones."""
    describer = Describer(GRAMS)
    features = [gram_features(seed) for seed in range(count)]
    return np.stack([describer.of_features(one) for one in features]), describer.ones(features[0], 114)


def _squared(vectors: np.ndarray) -> np.ndarray:
    return ((vectors[:, None] - vectors[None]) ** 2).sum(axis=2)


def test_a_packed_triangle_has_the_distances_of_the_whole_matrices() -> None:
    describer = Describer(GRAMS)
    packed = np.stack([describer.of_features(gram_features(seed)) for seed in range(6)])
    assert packed.shape[1] == 8 * 9 // 2 + 12 * 13 // 2
    np.testing.assert_allclose(_squared(packed), _squared(np.stack([_joined(seed) for seed in range(6)])), rtol=1e-5)


@pytest.mark.parametrize("sketch_size", [64, 65_536])
def test_exact_distances_are_those_of_float64(sketch_size: int) -> None:
    """Descriptors that are longer than a sketch go through the file, the others stay in memory."""
    settings = replace(GRAMS, sketch_size=sketch_size, exactness=Exactness.EXACT)
    packed, ones = _grams(70)
    kept, measured = _measured(packed, settings, ones=ones)
    truth = _squared(np.stack([_joined(seed) for seed in range(70)]))
    found = points_of(kept, Metric.EUCLIDEAN, 0).all_squared()
    np.testing.assert_allclose(found, truth, rtol=1e-4, atol=1e-5 * truth.max())
    assert measured.exactness is Exactness.EXACT
    assert measured.descriptor_size == 114
    assert measured.pairs_checked == 24 * 23 // 2
    assert measured.largest_error < 1e-4


def test_many_blocks_and_slices_give_the_same_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gramlet_server.embed.slice_file.BLOCK_BYTES", 4 * 1000 * 7)
    monkeypatch.setattr("gramlet_server.embed.slice_file.SLICE_BYTES", 4 * 300 * 50)
    vectors = np.random.default_rng(0).normal(3, 1, (50, 1000)).astype(np.float32)
    settings = replace(VECTORS, sketch_size=64, exactness=Exactness.EXACT)
    kept, _ = _measured(vectors, settings)
    assert kept.squared is not None
    np.testing.assert_allclose(kept.squared, _squared(vectors.astype(np.float64)), rtol=1e-4)


def test_the_error_of_sketches_is_measured_and_as_small_as_documented() -> None:
    random = np.random.default_rng(1)
    vectors = (random.normal(size=(60, 8)) @ random.normal(size=(8, 5000))).astype(np.float32)
    settings = replace(VECTORS, sketch_size=1024, exactness=Exactness.SKETCH)
    kept, measured = _measured(vectors, settings)
    truth = np.sqrt(_squared(vectors.astype(np.float64)))
    pairs = np.triu_indices(60, 1)
    found = points_of(kept, Metric.EUCLIDEAN, 0).all_squared()
    errors = np.abs(np.sqrt(found[pairs]) - truth[pairs]) / truth[pairs]
    assert measured.exactness is Exactness.SKETCH
    # The standard error of a distance is half that of its square, √(2/k).
    assert 0 < measured.rms_error < 2 * np.sqrt(2 / 1024) / 2
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(measured.rms_error, rel=0.5)


def test_sketches_are_used_where_files_would_be_too_large() -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 500)).astype(np.float32)
    settings = replace(VECTORS, sketch_size=100)
    assert _measured(vectors, settings, Budget(disk_bytes=1000))[1].exactness is Exactness.SKETCH
    with pytest.raises(InvalidInput) as error:
        _measured(vectors, replace(settings, exactness=Exactness.EXACT), Budget(disk_bytes=1000))
    assert error.value.field == "start.settings.exactness"


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("exactness", [Exactness.EXACT, Exactness.SKETCH])
def test_every_metric_follows_from_what_a_map_keeps(metric: Metric, exactness: Exactness) -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(2, 1, (8, 40)).astype(np.float32)
    # Exact distances of a map of long descriptors, or the descriptors themselves.
    kept, _ = _measured(vectors, replace(VECTORS, exactness=exactness))
    if exactness is Exactness.EXACT:
        kept = replace(kept, squared=_squared(vectors.astype(np.float64)).astype(np.float32))
    truth = {
        Metric.EUCLIDEAN: _squared(vectors.astype(np.float64)),
        Metric.COSINE: 2
        - 2 * np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in vectors] for a in vectors]),
        Metric.CORRELATION: 2 - 2 * np.corrcoef(vectors),
    }[metric]
    np.testing.assert_allclose(points_of(kept, metric, 0).all_squared(), truth, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("exact", [True, False])
def test_correlation_of_packed_grams_is_that_of_the_whole_matrices(exact: bool) -> None:
    packed, ones = _grams(4)
    kept, _ = _measured(packed, GRAMS, ones=ones)
    if exact:
        kept = replace(kept, squared=_squared(packed.astype(np.float64)).astype(np.float32))
    truth = 2 - 2 * np.corrcoef(np.stack([_joined(seed) for seed in range(4)]))
    np.testing.assert_allclose(points_of(kept, Metric.CORRELATION, 0).all_squared(), truth, atol=1e-4)


def test_balanced_stages_have_length_1_each() -> None:
    descriptor = Describer(replace(GRAMS, balance_stages=True)).of_features(gram_features(1))
    assert np.linalg.norm(descriptor[:36]) == pytest.approx(1, abs=1e-6)
    assert np.linalg.norm(descriptor[36:]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(("metric", "constant"), [(Metric.COSINE, 0.0), (Metric.CORRELATION, 7.3)])
def test_a_descriptor_without_direction_is_taken_for_zero(metric: Metric, constant: float, exact: bool) -> None:
    vectors = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    vectors[2] = constant
    kept, _ = _measured(vectors, VECTORS)
    if exact:
        kept = replace(kept, squared=_squared(vectors.astype(np.float64)).astype(np.float32))
    assert kept.directed(metric).tolist() == [True, True, False, True]
    np.testing.assert_allclose(points_of(kept, metric, 0).all_squared()[2], [1, 1, 0, 1], atol=1e-5)


@pytest.mark.parametrize(
    "bad",
    [
        np.array([1, np.nan]),
        np.array([np.inf, 1]),
        np.zeros((2, 2)),
        np.zeros(0),
        np.array([1e38, 1e38]),
        np.array([1e19]),
        np.array([1e300]),
    ],
)
def test_values_that_are_not_finite_vectors_of_a_finite_distance_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(InvalidInput) as error:
        Describer(VECTORS).of_vector(bad)
    assert error.value.field == "vector"


def test_duplicates_are_counted() -> None:
    with Measurer(3, VECTORS, Budget()) as measurer:
        for vector, content in (([1, 2], "a"), ([1, 2], "a"), ([3, 4], "b")):
            measurer.add(np.array(vector, np.float32), lambda: np.ones(2, np.float32), content)
        kept, measured = measurer.measure()
    assert measured.duplicates == 1
    assert points_of(kept, Metric.EUCLIDEAN, 0).all_squared()[0, 1] == 0


def test_memory_is_checked_before_work() -> None:
    pictures = MapSettings(sketch_size=default_sketch_size(100_000))
    size = MapSize(100_000, 524_800, pictures=True)
    assert memory_bound(size, pictures) < 4 * 2**30
    check_memory(size, pictures, Budget())
    with pytest.raises(InvalidInput) as error:
        check_memory(replace(size, count=10_000), MapSettings(method=Method.MDS), Budget())
    assert error.value.field == "start.count"


@pytest.mark.parametrize(("count", "elements"), [(1, 300_000), (30, 60_000), (400, 256)])
def test_measuring_and_laying_out_take_no_more_than_the_bound(count: int, elements: int) -> None:
    vectors = np.random.default_rng(0).standard_normal((count, elements), dtype=np.float32)
    tracemalloc.start()
    try:
        kept, _ = _measured(vectors, VECTORS)
        points_of(kept, Metric.EUCLIDEAN, 0).principal_coordinates(2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= memory_bound(MapSize(count, elements, pictures=False), replace(VECTORS, method=Method.PCA))


def test_a_server_with_little_memory_makes_small_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PROCESS, "_limit", 100 * 2**20)
    check_memory(MapSize(1, 524_800, pictures=True), MapSettings(sketch_size=4096), Budget())  # of layer3 of resnet50
    check_memory(MapSize(50, 1_024, pictures=True), replace(MapSettings(sketch_size=4096), method=Method.TSNE), BUDGET)
    with pytest.raises(InvalidInput, match="bytes of memory"):
        check_memory(MapSize(50_000, 1_024, pictures=True), MapSettings(sketch_size=4096), BUDGET)


def _model(backbone: str, *stages: str) -> Model:
    return Model(backbone, "0" * 64, "random:0", "cpu", "float32", tuple(Stage(stage, 64, 4) for stage in stages))


def test_defaults_and_the_classic_preset_are_known_for_each_network() -> None:
    resnet = _model("resnet50", "conv1", "maxpool", "layer1", "layer2", "layer3", "layer4")
    assert complete(MapSettings(), resnet).stages == ("layer3",)
    classic = complete(MapSettings(descriptor=Descriptor.POOLED, metric=Metric.COSINE, preset=Preset.CLASSIC), resnet)
    assert classic.stages == ("conv1", "maxpool", "layer1", "layer2")
    assert (classic.descriptor, classic.metric, classic.balance_stages) == (Descriptor.GRAM, Metric.EUCLIDEAN, False)
    vgg = _model("vgg19", "relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
    assert complete(MapSettings(preset=Preset.CLASSIC), vgg).stages[0] == "relu1_1"
    assert complete(MapSettings(), vgg).stages == ("relu4_1",)
    with pytest.raises(InvalidInput):
        complete(MapSettings(), _model("alexnet", "features"))
