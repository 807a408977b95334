"""New items get positions on a stored map, which stays as it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gramlet.embed.settings import Method
from gramlet.embed.types import (
    BadItem,
    Item,
    Position,
)
from gramlet.errors import (
    FailedPrecondition,
    InvalidInput,
)
from gramlet_server.embed import stored
from gramlet_server.embed.transform import transform
from gramlet_server.feature.engine import Engine
from gramlet_server.process.memory_budget import PROCESS
from gramlet_server.runs.store import Store
from sklearn.decomposition import PCA

from tests.embed.conftest import (
    GRAMS,
    QUICK,
    VECTORS,
    MakeMap,
    clusters,
    give_other_weights,
    picture_items,
    vector_items,
)


def test_new_items_are_transformed_and_the_map_stays(make_map: MakeMap, engine: Engine, store: Store) -> None:
    items = vector_items(44)
    settings = replace(VECTORS, tsne=replace(QUICK, iterations=300))
    style_map = make_map(items[:40], settings, map_id="m")
    new: list[Item | BadItem] = [*items[40:], Item("nan", vector=np.full(20, np.nan, np.float32)), Item("none")]
    outcomes = dict(transform("m", new, engine, store))
    assert isinstance(outcomes["nan"], InvalidInput)
    assert isinstance(outcomes["none"], InvalidInput)
    for item in items[40:]:
        position = outcomes[item.id]
        assert isinstance(position, Position)
        nearest = np.linalg.norm(style_map.layouts[0].coordinates - position.coordinates[0], axis=1).argmin()
        assert style_map.places[nearest].label == item.label
        assert style_map.places[position.neighbors[0].index].label == item.label
    by_itself = dict(transform("m", [items[41]], engine, store))[items[41].id]
    in_company = outcomes[items[41].id]
    assert isinstance(by_itself, Position)
    assert isinstance(in_company, Position)
    np.testing.assert_array_equal(by_itself.coordinates, in_company.coordinates)
    np.testing.assert_array_equal(stored.get_map(store, "m").layouts[0].coordinates, style_map.layouts[0].coordinates)


def test_a_map_that_the_server_has_no_memory_for_takes_no_new_items(
    make_map: MakeMap, engine: Engine, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = vector_items(40)
    make_map(items, replace(VECTORS, method=Method.PCA), map_id="m")
    monkeypatch.setattr(PROCESS, "_limit", 1_000)
    with pytest.raises(InvalidInput, match="bytes of memory"):
        next(transform("m", items[:1], engine, store))


def test_a_picture_of_the_map_is_transformed_to_its_own_point(make_map: MakeMap, engine: Engine, store: Store) -> None:
    items = picture_items(20)
    style_map = make_map(items, GRAMS, map_id="m")
    ((_, position),) = transform("m", [items[7]], engine, store)
    assert isinstance(position, Position)
    assert position.neighbors[0].index == 7
    assert position.neighbors[0].distance == pytest.approx(0, abs=1e-3)
    spread = np.linalg.norm(style_map.layouts[0].coordinates, axis=1).mean()
    assert np.linalg.norm(position.coordinates[0] - style_map.layouts[0].coordinates[7]) < spread


def test_a_pca_map_takes_new_items_by_its_own_projection(make_map: MakeMap, engine: Engine, store: Store) -> None:
    items = vector_items(44)
    vectors = np.stack([item.vector for item in items])  # type: ignore[misc]
    style_map = make_map(items[:40], replace(VECTORS, method=Method.PCA), map_id="m")
    components = PCA(2).fit(vectors[:40])
    signs = np.sign((components.transform(vectors[:40]) * style_map.layouts[0].coordinates).sum(axis=0))
    expected = components.transform(vectors[40:]) * signs
    found = [position for _, position in transform("m", items[40:], engine, store)]
    coordinates = np.concatenate([position.coordinates for position in found if isinstance(position, Position)])
    np.testing.assert_allclose(coordinates, expected, atol=1e-3 * np.abs(expected).max())


def test_a_map_of_long_descriptors_projects_its_own_items_close_to_their_points(
    make_map: MakeMap, engine: Engine, store: Store
) -> None:
    items = picture_items(16)
    style_map = make_map(items, replace(GRAMS, method=Method.PCA, sketch_size=4096), map_id="m")
    assert style_map.measured.descriptor_size > 4096
    found = [position for _, position in transform("m", items, engine, store)]
    coordinates = np.concatenate([position.coordinates for position in found if isinstance(position, Position)])
    width = np.ptp(style_map.layouts[0].coordinates, axis=0).max()
    assert np.abs(coordinates - style_map.layouts[0].coordinates).max() < 0.05 * width


@pytest.mark.parametrize("method", [Method.ISOMAP, Method.MDS, Method.UMAP])
def test_maps_of_other_methods_take_new_items_too(
    make_map: MakeMap, engine: Engine, store: Store, method: Method
) -> None:
    if method is Method.UMAP:
        pytest.importorskip("umap", reason="umap-learn is an optional extra")
    items = vector_items(44)
    style_map = make_map(items[:40], replace(VECTORS, method=method), map_id="m")
    ((_, position),) = transform("m", items[40:41], engine, store)
    assert isinstance(position, Position)
    nearest = np.linalg.norm(style_map.layouts[0].coordinates - position.coordinates[0], axis=1).argmin()
    assert style_map.places[nearest].label == items[40].label


def test_held_back_items_keep_their_labels_on_a_tsne_map(make_map: MakeMap, engine: Engine, store: Store) -> None:
    """As many as by the descriptors themselves, within a few items."""
    vectors, labels = clusters(260, groups=6, size=4)
    items = [Item(str(n), label, vector=vector) for n, (vector, label) in enumerate(zip(vectors, labels, strict=True))]
    style_map = make_map(
        items[:200], replace(VECTORS, tsne=replace(QUICK, perplexities=(20.0,), iterations=400)), map_id="m"
    )
    numbers = np.array([int(label.split()[1]) for label in labels])

    def accuracy(known: np.ndarray, new: np.ndarray) -> float:
        near = np.argsort(((new[:, None] - known[None]) ** 2).sum(axis=2), axis=1)[:, :10]
        votes = np.array([np.bincount(numbers[row], minlength=6).argmax() for row in near])
        return float((votes == numbers[200:]).mean())

    found = [position for _, position in transform("m", items[200:], engine, store)]
    coordinates = np.concatenate([position.coordinates for position in found if isinstance(position, Position)])
    on_map = accuracy(style_map.layouts[0].coordinates, coordinates)
    assert on_map > accuracy(vectors[:200], vectors[200:]) - 0.1


def test_a_map_of_other_weights_is_refused(make_map: MakeMap, engine: Engine, store: Store) -> None:
    make_map(picture_items(4), GRAMS, map_id="m")
    give_other_weights(store, "m")
    with pytest.raises(FailedPrecondition, match="other weights"):
        list(transform("m", picture_items(1), engine, store))
