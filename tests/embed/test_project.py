from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gramlet.embed.settings import Descriptor, Gradient, MapSettings, Method, Tsne
from gramlet.errors import FailedPrecondition, InvalidInput
from gramlet_server.embed import geometry, project, tsne
from gramlet_server.embed.bounds import check_settings
from gramlet_server.embed.geometry import PairPoints, Points
from gramlet_server.embed.project import FinishedLayout, LayoutProgress, NeighborsFound
from gramlet_server.embed.tsne import EarlierLayout
from sklearn.decomposition import PCA

from tests.embed.conftest import clusters, judged, points_of

SHORT = MapSettings(descriptor=Descriptor.VECTOR, tsne=Tsne(perplexities=(10.0,), iterations=120, early_iterations=60))


def laid_out(points: Points, settings: MapSettings) -> FinishedLayout:
    """The last layout."""
    *_, last = project.layouts(points, settings)
    assert isinstance(last, FinishedLayout)
    return last


def direct_divergence_and_gradient(p: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """A transcription of van der Maaten and Hinton (2008), equations 3 to 5, in float64; a quarter of the gradient."""
    difference = y[:, None] - y[None]
    kernel = 1 / (1 + (difference**2).sum(axis=2))
    np.fill_diagonal(kernel, 0)
    q = kernel / kernel.sum()
    gradient = ((p - q) * kernel)[..., None] * difference
    mask = p > 0
    return float((p[mask] * np.log(p[mask] / q[mask])).sum()), gradient.sum(axis=1)


@pytest.fixture(scope="module")
def affinities():  # type: ignore[no-untyped-def]
    indices, distances = points_of(clusters(150)[0]).nearest(30)
    return tsne.affinities(indices, distances, 10.0)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_the_gradient_of_all_pairs_is_that_of_the_formula(affinities, dimensions: int) -> None:  # type: ignore[no-untyped-def]
    y = np.random.default_rng(0).normal(0, 5, (150, dimensions))
    divergence, gradient = tsne.AllPairs(affinities)(y, 1.0, True)
    true_divergence, true_gradient = direct_divergence_and_gradient(affinities.toarray(), y)
    assert divergence == pytest.approx(true_divergence, rel=1e-4)
    np.testing.assert_allclose(gradient, true_gradient, atol=1e-3 * np.abs(true_gradient).max())


@pytest.mark.parametrize("gradient", [Gradient.BARNES_HUT, Gradient.EXACT, Gradient.INTERPOLATION])
def test_every_gradient_leads_to_a_good_map(gradient: Gradient) -> None:
    vectors, labels = clusters(120)
    settings = replace(SHORT, tsne=replace(SHORT.tsne, gradient=gradient, iterations=100))
    points = points_of(vectors)
    quality = judged(points, laid_out(points, settings).coordinates, labels, 10)
    assert quality.label_accuracy == 1.0
    assert quality.trustworthiness > 0.85


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("method", [Method.TSNE, Method.PCA, Method.ISOMAP, Method.MDS, Method.LLE])
def test_every_method_keeps_groups_together(method: Method, dimensions: int) -> None:
    vectors, labels = clusters(60, groups=2)
    settings, _ = project.fit_to_items(replace(SHORT, method=method, dimensions=dimensions), 60)
    points = points_of(vectors)
    layout = laid_out(points, settings)
    assert layout.coordinates.shape == (60, dimensions)
    accuracy = judged(points, layout.coordinates, labels, 5).label_accuracy
    assert accuracy is not None
    assert accuracy > 0.9


@pytest.mark.parametrize("exact", [True, False])
def test_principal_coordinates_are_principal_components(exact: bool) -> None:
    vectors, _ = clusters(40)
    points: Points = points_of(vectors)
    if exact:
        points = PairPoints(points.all_squared(), 0)
    found, share = points.principal_coordinates(3)
    components = PCA(3).fit(vectors)
    truth = components.transform(vectors)
    np.testing.assert_allclose(np.abs(found), np.abs(truth), atol=1e-2)
    assert share == pytest.approx(components.explained_variance_ratio_.sum(), rel=1e-3)


@pytest.mark.parametrize("exact", [True, False])
def test_large_sets_have_the_same_principal_coordinates(exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    points: Points = points_of(clusters(80)[0])
    if exact:
        points = PairPoints(points.all_squared(), 0)
    small, share = points.principal_coordinates(2)
    monkeypatch.setattr(geometry, "_DENSE_UP_TO", 10)
    large, large_share = points.principal_coordinates(2)
    np.testing.assert_allclose(large, small, atol=1e-2 * np.abs(small).max())
    assert large_share == pytest.approx(share, rel=1e-3)


def test_every_search_finds_the_true_neighbors(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, _ = clusters(300, size=200)
    points = points_of(vectors)
    distances = np.linalg.norm(vectors[:, None].astype(float) - vectors[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    truth = np.argsort(distances, axis=1, kind="stable")[:, :10]
    for indices, found in (points.nearest(10), PairPoints(points.all_squared(), 0).nearest(10)):
        np.testing.assert_array_equal(indices, truth)
        np.testing.assert_allclose(found, np.take_along_axis(distances, truth, axis=1), rtol=1e-3)
    monkeypatch.setattr(geometry, "_STRIPS_UP_TO", 10)
    np.testing.assert_array_equal(points.nearest(10)[0], truth)


def test_the_recall_of_an_approximate_search_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "_STRIPS_UP_TO", 10)
    monkeypatch.setattr(geometry, "_EXACT_PRODUCTS", 1.0)
    monkeypatch.setattr(geometry, "_COMPONENTS", 3)
    vectors = np.random.default_rng(0).normal(size=(300, 40))
    points = points_of(vectors)
    assert points.approximates
    indices, distances = points.nearest(10)
    truth = PairPoints(points.all_squared(), 0).nearest(10)[0]
    rows = np.random.default_rng(0).permutation(300)[:200]
    expected = np.mean([len(np.intersect1d(indices[row], truth[row])) / 10 for row in rows])
    assert points.recall(indices) == pytest.approx(expected)
    assert expected < 0.9
    assert (np.diff(distances, axis=1) >= 0).all()
    np.testing.assert_array_equal(indices, points.nearest(10)[0])


def test_same_seed_same_map_and_another_seed_another() -> None:
    points = points_of(clusters(80)[0])
    first, second = (laid_out(points, SHORT).coordinates for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, laid_out(points, replace(SHORT, seed=1)).coordinates)


def test_a_descent_continues_from_a_state_bit_for_bit() -> None:
    points = points_of(clusters(80)[0])
    steps = list(project.layouts(points, SHORT))
    middle = steps[45]  # the first step finds the neighbors
    assert isinstance(middle, LayoutProgress)
    *_, resumed = project.layouts(points, SHORT, states={0: middle.state})
    assert isinstance(resumed, FinishedLayout)
    np.testing.assert_array_equal(resumed.coordinates, steps[-1].coordinates)  # type: ignore[union-attr]
    assert resumed.kl_divergence == steps[-1].kl_divergence  # type: ignore[union-attr]


def test_the_divergence_falls_and_is_reported_as_often_as_asked_for() -> None:
    steps = [
        s for s in project.layouts(points_of(clusters(80)[0]), SHORT, report_every=20) if isinstance(s, LayoutProgress)
    ]
    reported = [(step.iteration, step.kl_divergence) for step in steps if step.kl_divergence is not None]
    assert [iteration for iteration, _ in reported] == [20, 40, 60, 80, 100, 120]
    assert reported[-1][1] < 0.7 * reported[0][1]
    assert len(steps) == 120


def test_several_perplexities_give_several_layouts_and_finished_ones_are_not_computed_again() -> None:
    settings = replace(SHORT, tsne=replace(SHORT.tsne, perplexities=(5.0, 15.0), iterations=20))
    points = points_of(clusters(60)[0])
    found = [step for step in project.layouts(points, settings) if isinstance(step, FinishedLayout)]
    assert [(step.layout, step.perplexity) for step in found] == [(0, 5.0), (1, 15.0)]
    rest = list(project.layouts(points, settings, done={0}))
    assert {step.layout for step in rest if not isinstance(step, NeighborsFound)} == {1}


@pytest.mark.parametrize("items", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("method", [Method.TSNE, Method.ISOMAP, Method.MDS, Method.LLE, Method.PCA])
def test_few_items_still_give_a_map_and_a_note(items: int, method: Method) -> None:
    settings, notes = project.fit_to_items(replace(SHORT, method=method), items)
    layout = laid_out(points_of(clusters(items)[0]), settings)
    assert layout.coordinates.shape == (items, 2)
    assert np.isfinite(layout.coordinates).all()
    assert notes or method in (Method.PCA, Method.MDS)


def test_too_large_perplexities_are_lowered_with_a_note() -> None:
    settings, notes = project.fit_to_items(MapSettings(tsne=Tsne(perplexities=(5.0, 30.0, 50.0))), 40)
    assert settings.tsne.perplexities == (5.0, 13.0)
    assert "too few for perplexity 5, 30, 50" in notes[0]
    assert project.fit_to_items(MapSettings(tsne=Tsne(perplexities=(3.0, 3.0))), 12)[1] == ()


def test_items_that_are_all_the_same_give_a_finite_map() -> None:
    layout = laid_out(points_of(np.ones((20, 3))), project.fit_to_items(SHORT, 20)[0])
    assert np.isfinite(layout.coordinates).all()


def test_a_grown_set_starts_from_the_old_map_and_stays_recognizable() -> None:
    vectors, _ = clusters(100)
    settings = replace(SHORT, tsne=replace(SHORT.tsne, iterations=400))
    old = laid_out(points_of(vectors[:80]), settings).coordinates
    earlier = EarlierLayout((*range(80), *[None] * 20), old)
    points = points_of(vectors)
    start = earlier.initial_coordinates(points)
    np.testing.assert_array_equal(start[:80], old)
    *_, grown = project.layouts(points, project.fit_to_start(settings, 100), start=start)
    assert isinstance(grown, FinishedLayout)
    aligned = earlier.align(grown.coordinates)
    moved = np.linalg.norm(aligned[:80] - old, axis=1).mean()
    assert moved < 0.1 * np.linalg.norm(old, axis=1).mean()
    from_principal = laid_out(points, settings)
    assert moved < np.linalg.norm(earlier.align(from_principal.coordinates)[:80] - old, axis=1).mean()
    # It is as good a map as one that starts from principal coordinates.
    assert grown.kl_divergence < from_principal.kl_divergence + 0.05


def test_a_new_item_is_transformed_into_its_own_group() -> None:
    vectors, labels = clusters(84)
    layout = laid_out(points_of(vectors[:80]), SHORT).coordinates
    for number in range(80, 84):
        distances = np.linalg.norm(vectors[:80] - vectors[number], axis=1).astype(np.float64)
        order = np.argsort(distances)[:15]
        point = tsne.transform(order, distances[order], layout, 5.0)
        nearest = int(np.linalg.norm(layout - point, axis=1).argmin())
        assert labels[nearest] == labels[number]


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"dimensions": 4}, "dimensions"),
        ({"dimensions": 0}, "dimensions"),
        ({"neighbors": 0}, "neighbors"),
        ({"neighbors": 2000}, "neighbors"),
        ({"quality_neighbors": 0}, "quality_neighbors"),
        ({"sketch_size": 2}, "sketch_size"),
        ({"sketch_size": 2**20}, "sketch_size"),
        ({"stages": ("conv1",) * 17}, "stages"),
        ({"tsne": Tsne(perplexities=())}, "tsne.perplexities"),
        ({"tsne": Tsne(perplexities=(5.0,) * 17)}, "tsne.perplexities"),
        ({"tsne": Tsne(perplexities=(0.5,))}, "tsne.perplexities"),
        ({"tsne": Tsne(perplexities=(float("nan"),))}, "tsne.perplexities"),
        ({"tsne": Tsne(perplexities=(float("inf"),))}, "tsne.perplexities"),
        ({"tsne": Tsne(iterations=0)}, "tsne.iterations"),
        ({"tsne": Tsne(iterations=2**31)}, "tsne.iterations"),
        ({"tsne": Tsne(early_iterations=2**31)}, "tsne.early_iterations"),
        ({"tsne": Tsne(early_exaggeration=1e308)}, "tsne.early_exaggeration"),
        ({"tsne": Tsne(early_exaggeration=float("nan"))}, "tsne.early_exaggeration"),
        ({"tsne": Tsne(learning_rate=-1.0)}, "tsne.learning_rate"),
        ({"tsne": Tsne(learning_rate=1e308)}, "tsne.learning_rate"),
        ({"tsne": Tsne(learning_rate=float("nan"))}, "tsne.learning_rate"),
        ({"tsne": Tsne(angle=2.0)}, "tsne.angle"),
        ({"tsne": Tsne(gradient=Gradient.INTERPOLATION), "dimensions": 3}, "tsne.gradient"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(changed: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as error:
        check_settings(replace(MapSettings(), **changed))  # type: ignore[arg-type]
    assert error.value.field == f"start.settings.{field}"


def test_a_layout_that_grows_without_bound_stops_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tsne, "_LARGEST_COORDINATE", 10.0)
    settings = replace(SHORT, tsne=replace(SHORT.tsne, learning_rate=1e6, iterations=400))
    with pytest.raises(FailedPrecondition, match="lower the learning rate") as error:
        laid_out(points_of(clusters(40)[0]), project.fit_to_items(settings, 40)[0])
    assert error.value.field == "start.settings.tsne.learning_rate"


def test_umap_makes_a_map_or_says_how_to_install_it() -> None:
    settings = replace(SHORT, method=Method.UMAP)
    try:
        import umap  # noqa: F401
    except ImportError:
        with pytest.raises(FailedPrecondition, match=r"gramlet-server\[umap\]"):
            project.check_installed(settings.method)
    else:
        vectors, labels = clusters(60)
        layout = laid_out(points_of(vectors), settings)
        assert judged(points_of(vectors), layout.coordinates, labels, 5).label_accuracy == 1.0
