from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gramlet.embed.settings import Descriptor, MapSettings, Method, Metric, Tsne
from gramlet.embed.types import (
    BadItem,
    Described,
    Item,
    LayoutIteration,
    MapStart,
    MeasuredItems,
    Position,
    RefusedItem,
    Started,
    StyleMap,
    Task,
    Working,
)
from gramlet.errors import (
    AlreadyExists,
    FailedPrecondition,
    GramletError,
    InvalidInput,
    NotFound,
    Overloaded,
    Unavailable,
)
from gramlet.types import Resize
from gramlet_server.embed import stored
from gramlet_server.embed.distances import Budget
from gramlet_server.embed.runs import Maps, RunSettings
from gramlet_server.embed.transform import transform
from gramlet_server.feature.engine import Engine
from gramlet_server.runs.run import Run
from gramlet_server.runs.store import Store
from sklearn.decomposition import PCA

from tests.embed.conftest import SIDE, MakeMap, clusters, computed, drawn, events_of, picture_items, vector_items

QUICK = Tsne(perplexities=(5.0,), iterations=60, early_iterations=30)
VECTORS = MapSettings(descriptor=Descriptor.VECTOR, tsne=QUICK)
GRAMS = MapSettings(stages=("conv1", "layer1"), resize=Resize(), tsne=QUICK)


def test_events_come_in_order_and_the_map_is_stored(maps: Maps, store: Store) -> None:
    items = picture_items(12)
    events = list(events_of(maps, MapStart(GRAMS, count=12, map_id="m"), items))
    assert isinstance(events[0], Started)
    assert [e.iteration for e in events if isinstance(e, LayoutIteration)] == [10, 20, 30, 40, 50, 60]
    assert sum(isinstance(event, Described) for event in events) == 12
    assert sum(isinstance(event, MeasuredItems) for event in events) == 1
    last = events[-1]
    assert isinstance(last, StyleMap)
    assert last.places[1].id == "1.png"
    assert last.backbone == "resnet50"
    quality = last.layouts[0].quality
    assert quality.descriptor_label_accuracy == 1.0
    again = stored.get_map(store, "m")
    np.testing.assert_array_equal(again.layouts[0].coordinates, last.layouts[0].coordinates)
    assert replace(again, layouts=()) == replace(last, layouts=())
    (summary,) = stored.list_maps(store)
    assert (summary.map_id, summary.items, summary.layouts, summary.finished) == ("m", 12, 1, True)


def test_pooled_features_make_maps_too(make_map: MakeMap) -> None:
    style_map = make_map(picture_items(8), replace(GRAMS, descriptor=Descriptor.POOLED, stages=()))
    assert style_map.settings.stages == ("layer3",)
    assert style_map.measured.descriptor_size == 1024


def test_items_that_fail_fail_alone_and_the_result_names_them(make_map: MakeMap) -> None:
    items = picture_items(8)
    odd: list[Item | BadItem] = [
        Item("rubbish", "", b"no picture"),
        BadItem("undecodable", InvalidInput("no picture", field="item.picture")),
        Item("nothing"),
    ]
    style_map = make_map([*odd[:2], *items, odd[2]], GRAMS)
    assert [(refused.index, refused.id, refused.code) for refused in style_map.refused] == [
        (0, "rubbish", 3),
        (1, "undecodable", 3),
        (10, "nothing", 3),
    ]
    assert [place.id for place in style_map.places] == [item.id for item in items]
    assert style_map.notes[0] == "3 items could not be described and are not on the map."


def test_vectors_that_are_not_finite_or_of_another_size_fail_alone(make_map: MakeMap) -> None:
    items = vector_items(10)
    items[3] = Item("nan", vector=np.array([np.nan] * 20, np.float32))
    items[4] = Item("short", vector=np.ones(3, np.float32))
    style_map = make_map(items, VECTORS)
    assert [refused.id for refused in style_map.refused] == ["nan", "short"]
    assert len(style_map.places) == 8


def test_notes_report_what_a_reader_should_know(make_map: MakeMap) -> None:
    plain = np.full((SIDE, SIDE, 3), 200, np.uint8)
    items = [
        *picture_items(6),
        Item("again", picture=picture_items(1)[0].picture),
        Item("plain", picture=plain),
        Item("large", picture=drawn((1, 2, 3), 9, 96)),
    ]
    notes = "\n".join(make_map(items, GRAMS).notes)
    assert "1 item has the same content as an earlier one." in notes
    assert "1 picture is of one color" in notes
    assert "pictures of 2 sizes" in notes
    assert "9 items are too few for perplexity 5" in notes
    zero = [*vector_items(6), Item("zero", vector=np.zeros(20, np.float32))]
    notes = "\n".join(make_map(zero, replace(VECTORS, metric=Metric.COSINE)).notes)
    assert "1 item without direction is taken for zero" in notes


@pytest.mark.parametrize("items", [1, 2, 4])
def test_few_items_make_a_map(make_map: MakeMap, items: int) -> None:
    assert make_map(vector_items(items), VECTORS).layouts[0].coordinates.shape == (items, 2)


def test_the_work_between_the_iterations_is_reported_too(maps: Maps) -> None:
    events = list(events_of(maps, MapStart(VECTORS, count=24), vector_items(24)))
    working = [event for event in events if isinstance(event, Working)]
    assert [event.task for event in working] == [Task.DISTANCES, Task.DISTANCES, Task.QUALITY]
    assert (working[-1].done, working[-1].total) == (24, 24)


def test_items_are_laid_out_once_more_without_pictures_or_network(
    maps: Maps, make_map: MakeMap, store: Store, replica: Maps
) -> None:
    settings = replace(GRAMS, metric=Metric.COSINE, tsne=replace(QUICK, perplexities=(3.0,)))
    items = picture_items(12)
    made = make_map(items, GRAMS, map_id="old")
    directly = make_map(items, settings)
    offline = Maps(None, store)  # type: ignore[arg-type]
    again = computed(offline, MapStart(replace(settings, stages=()), map_id="new", items_of_map_id="old"), ())
    assert again.places == made.places
    assert again.settings == replace(directly.settings, stages=GRAMS.stages)
    assert (again.weights_digest, again.backbone) == (made.weights_digest, "resnet50")
    np.testing.assert_allclose(again.layouts[0].coordinates, directly.layouts[0].coordinates, atol=1e-3)
    stored.delete_map(store, "old")
    pca = replace(settings, method=Method.PCA)
    assert computed(offline, MapStart(pca, items_of_map_id="new"), ()).settings.method is Method.PCA


def test_an_interrupted_second_layout_resumes_without_items(maps: Maps, make_map: MakeMap) -> None:
    make_map(vector_items(24), VECTORS, map_id="old")
    start = MapStart(replace(VECTORS, seed=3), map_id="new", items_of_map_id="old", report_every=1)
    whole = computed(maps, replace(start, map_id=""), ())
    for until in (Started, LayoutIteration):
        events = events_of(maps, start if until is Started else MapStart(None, "new"), ())
        next(event for event in events if isinstance(event, until))
        events.close()
    *_, resumed = events_of(maps, MapStart(None, "new"), ())
    assert isinstance(resumed, StyleMap)
    np.testing.assert_array_equal(resumed.layouts[0].coordinates, whole.layouts[0].coordinates)


def test_descriptors_are_compared_from_one_pass(make_map: MakeMap) -> None:
    style_map = make_map(picture_items(20), replace(GRAMS, stages=("layer3",), compare=True))
    rows = style_map.comparison
    assert {row.descriptor for row in rows} == {Descriptor.GRAM, Descriptor.POOLED}
    assert [row.descriptor_label_accuracy for row in rows] == sorted(
        (row.descriptor_label_accuracy for row in rows), reverse=True
    )
    assert all(0 <= row.descriptor_label_accuracy <= 1 for row in rows)
    own = next(row for row in rows if row.stages == ("layer3",) and row.balance_stages)
    quality = style_map.layouts[0].quality
    assert own.descriptor_label_accuracy == pytest.approx(quality.descriptor_label_accuracy, abs=0.11)
    assert own.label_accuracy is not None
    assert sum(row.label_accuracy is not None for row in rows) in (8, 9, 10)


def test_without_labels_nothing_is_compared_and_a_note_says_so(make_map: MakeMap) -> None:
    items = [replace(item, label="") for item in picture_items(6)]
    style_map = make_map(items, replace(GRAMS, compare=True))
    assert style_map.comparison == ()
    assert "Descriptors were not compared: that needs two labels." in style_map.notes


def test_several_perplexities_make_several_layouts(make_map: MakeMap) -> None:
    settings = replace(VECTORS, tsne=replace(QUICK, perplexities=(3.0, 6.0)))
    assert [layout.perplexity for layout in make_map(vector_items(24), settings).layouts] == [3.0, 6.0]


def test_same_seed_same_map(make_map: MakeMap) -> None:
    first, second = (make_map(vector_items(20), VECTORS).layouts[0].coordinates for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_more_items_than_announced_are_refused(maps: Maps) -> None:
    with pytest.raises(InvalidInput, match="more items came than the 3 announced"):
        computed(maps, MapStart(VECTORS, count=3), vector_items(4))


@pytest.mark.parametrize(
    ("start", "error", "field"),
    [
        (MapStart(VECTORS), InvalidInput, "start.count"),
        (MapStart(replace(GRAMS, stages=("nowhere",)), count=3), InvalidInput, "start.settings.stages[0]"),
        (MapStart(replace(VECTORS, dimensions=5), count=3), InvalidInput, "start.settings.dimensions"),
        (MapStart(VECTORS, count=5_000_000), InvalidInput, "start.count"),
        (MapStart(VECTORS, count=3, from_map_id="nowhere"), NotFound, "map_id"),
        (MapStart(None, "nowhere"), NotFound, "resume_run_id"),
    ],
)
def test_wrong_orders_are_refused_before_any_work(
    maps: Maps, start: MapStart, error: type[GramletError], field: str
) -> None:
    with pytest.raises(error) as raised:
        maps.start(start, iter(()))
    assert raised.value.field == field


def test_a_map_without_items_is_refused(maps: Maps) -> None:
    with pytest.raises(InvalidInput, match="no item could be described"):
        computed(maps, MapStart(VECTORS, count=3), [])


def test_a_name_that_is_taken_is_refused(maps: Maps, make_map: MakeMap) -> None:
    make_map(vector_items(5), VECTORS, map_id="m")
    with pytest.raises(AlreadyExists):
        maps.start(MapStart(VECTORS, count=5, map_id="m"), iter(()))


def test_cancelling_stops_within_one_iteration(maps: Maps, store: Store) -> None:
    settings = replace(VECTORS, tsne=replace(QUICK, iterations=1_000_000))
    execution = maps.start(MapStart(settings, count=30, map_id="m", report_every=1), vector_items(30))
    seen = next(event for event in execution if isinstance(event, LayoutIteration))
    assert seen.iteration >= 1
    execution.cancel()
    execution.join()
    assert maps.lifecycle.queue.running == 0


def test_a_cancelled_map_resumes_to_the_same_result(maps: Maps, store: Store, make_map: MakeMap) -> None:
    items, settings = vector_items(30), replace(VECTORS, tsne=replace(QUICK, perplexities=(4.0, 7.0)))
    whole = make_map(items, settings)
    events_so_far = events_of(maps, MapStart(settings, count=30, map_id="m", report_every=1), items)
    next(e for e in events_so_far if isinstance(e, LayoutIteration) and e.layout == 1 and e.iteration == 25)
    events_so_far.close()
    assert not stored.list_maps(store)[0].finished
    events = list(events_of(maps, MapStart(None, "m"), []))
    assert isinstance(events[0], Started)
    assert events[0].resumed
    assert not any(isinstance(event, Described) for event in events)
    first = next(event for event in events if isinstance(event, LayoutIteration))
    assert (first.layout, first.iteration) == (1, 30)  # the checkpoint is of iteration 20
    last = events[-1]
    assert isinstance(last, StyleMap)
    for found, expected in zip(last.layouts, whole.layouts, strict=True):
        np.testing.assert_array_equal(found.coordinates, expected.coordinates)
        assert found.quality == expected.quality


def test_a_map_whose_items_had_not_all_arrived_takes_them_again(maps: Maps, replica: Maps) -> None:
    items = vector_items(10)
    events = events_of(maps, MapStart(VECTORS, count=30, map_id="m"), items[:5])
    next(event for event in events if isinstance(event, Described) and event.described == 3)
    events.close()
    with pytest.raises(FailedPrecondition, match="not all items of map m had arrived"):
        replica.start(MapStart(None, "m"), iter(()))
    style_map = computed(replica, MapStart(None, "m", count=10), items)
    assert len(style_map.places) == 10


def test_items_that_are_sent_again_are_not_described_by_other_weights(maps: Maps, replica: Maps, store: Store) -> None:
    events = events_of(maps, MapStart(GRAMS, count=4, map_id="m"), picture_items(2))
    next(event for event in events if isinstance(event, Described))
    events.close()
    give_other_weights(store, "m")
    with pytest.raises(FailedPrecondition, match="other weights"):
        replica.start(MapStart(None, "m", count=4), picture_items(4))


def test_a_finished_map_is_sent_again_to_a_caller_that_lost_its_last_event(make_map: MakeMap, replica: Maps) -> None:
    style_map = make_map(vector_items(10), VECTORS, map_id="m")
    events = list(events_of(replica, MapStart(None, "m"), []))
    assert [type(event) for event in events] == [Started, MeasuredItems, StyleMap]
    np.testing.assert_array_equal(events[-1].layouts[0].coordinates, style_map.layouts[0].coordinates)


def test_a_map_on_a_server_that_shuts_down_continues_on_another_replica(maps: Maps, replica: Maps) -> None:
    settings = replace(VECTORS, tsne=replace(QUICK, iterations=300))
    items = vector_items(20)
    rest = events_of(maps, MapStart(settings, count=20, map_id="m", report_every=1), items)
    seen = next(event for event in rest if isinstance(event, LayoutIteration))
    maps.lifecycle.drain()
    with pytest.raises(Unavailable) as error:
        list(rest)
    assert error.value.retry_after == 0
    events = events_of(replica, MapStart(None, "m", report_every=1), [])
    iterations = [event.iteration for event in events if isinstance(event, LayoutIteration)]
    assert iterations[0] in (seen.iteration + 1, seen.iteration + 2)
    assert iterations[-1] == 300


def test_maps_beyond_the_limits_are_refused(engine: Engine, store: Store) -> None:
    maps = Maps(engine, store, RunSettings(running_limit=1, queue_limit=1))
    settings = replace(VECTORS, tsne=replace(QUICK, iterations=1_000_000))
    executions = [maps.start(MapStart(settings, count=20), vector_items(20)) for _ in range(2)]
    with pytest.raises(Overloaded) as error:
        maps.start(MapStart(settings, count=20), vector_items(20))
    assert error.value.retry_after
    for execution in executions:
        execution.cancel()
        execution.join()


def test_a_map_beyond_the_memory_budget_is_refused(engine: Engine, store: Store) -> None:
    maps = Maps(engine, store, RunSettings(budget=Budget(memory_bytes=10_000)))
    with pytest.raises(InvalidInput, match="GiB of memory"):
        maps.start(MapStart(VECTORS, count=20), iter(()))


def test_a_grown_set_starts_from_the_old_map(make_map: MakeMap) -> None:
    items = vector_items(60)
    settings = replace(VECTORS, tsne=replace(QUICK, iterations=300))
    old = make_map(items[:50], settings, map_id="old")
    renamed = [replace(item, id=f"new name {n}") for n, item in enumerate(items)]
    grown = make_map(renamed, settings, from_map_id="old")
    assert grown.notes[-1] == "50 of 60 items started from their coordinates on old."
    assert grown.settings.tsne.iterations == 250
    before, after = old.layouts[0].coordinates, grown.layouts[0].coordinates[:50]
    assert np.linalg.norm(after - before, axis=1).mean() < 0.15 * np.linalg.norm(before, axis=1).mean()


def test_a_start_from_another_kind_of_map_is_refused(maps: Maps, make_map: MakeMap) -> None:
    make_map(vector_items(6), replace(VECTORS, dimensions=3), map_id="old")
    with pytest.raises(FailedPrecondition, match="3 dimensions"):
        maps.start(MapStart(VECTORS, count=6, from_map_id="old"), iter(()))
    with pytest.raises(InvalidInput, match="only t-SNE"):
        maps.start(MapStart(replace(VECTORS, method=Method.PCA), count=6, from_map_id="old"), iter(()))


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


def give_other_weights(store: Store, map_id: str) -> None:
    """Changes the digest of the weights in the plan of a map."""
    run = Run.take_over(store, stored.KIND, map_id)
    stored.put_plan(run, replace(stored.get_plan(run), weights_digest="other"))


def test_a_map_of_other_weights_is_refused(make_map: MakeMap, engine: Engine, store: Store) -> None:
    make_map(picture_items(4), GRAMS, map_id="m")
    give_other_weights(store, "m")
    with pytest.raises(FailedPrecondition, match="other weights"):
        list(transform("m", picture_items(1), engine, store))


def test_deleted_maps_are_gone(make_map: MakeMap, store: Store) -> None:
    make_map(vector_items(5), VECTORS, map_id="m")
    stored.delete_map(store, "m")
    assert stored.list_maps(store) == []
    for gone in (stored.get_map, stored.delete_map):
        with pytest.raises(NotFound):
            gone(store, "m")


def test_refused_items_are_events(maps: Maps) -> None:
    events = events_of(maps, MapStart(VECTORS, count=6), [*vector_items(5), Item("none")])
    (refused,) = [event.refused for event in events if isinstance(event, RefusedItem)]
    assert (refused.index, refused.id, refused.field) == (5, "none", "item.vector")
