"""Maps as runs: their events in order, wrong orders, interruptions, and what is stored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gramlet.embed.settings import Descriptor, Method, Metric
from gramlet.embed.types import (
    BadItem,
    Described,
    Item,
    LayoutIteration,
    MapStart,
    MeasuredItems,
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
from gramlet_server.embed import stored
from gramlet_server.embed.distances import Budget
from gramlet_server.embed.runs import Maps, RunSettings
from gramlet_server.feature.engine import Engine
from gramlet_server.runs.store import Store

from tests.embed.conftest import (
    GRAMS,
    QUICK,
    SIDE,
    VECTORS,
    MakeMap,
    computed,
    drawn,
    events_of,
    give_other_weights,
    picture_items,
    vector_items,
)


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


def test_deleted_maps_are_gone(make_map: MakeMap, store: Store) -> None:
    make_map(vector_items(5), VECTORS, map_id="m")
    stored.delete_map(store, "m")
    assert stored.list_maps(store) == []
    for gone in (stored.get_map, stored.delete_map):
        with pytest.raises(NotFound):
            gone(store, "m")


def test_refused_items_are_events(maps: Maps) -> None:
    start = MapStart(VECTORS, count=6, map_id="refusing")
    events = events_of(maps, start, [*vector_items(5), Item("none")])
    (refused,) = [event.refused for event in events if isinstance(event, RefusedItem)]
    assert (refused.index, refused.id, refused.field) == (5, "none", "item.vector")
    # Resumed, for whoever lost the end of the events.
    again = list(events_of(maps, MapStart(None, "refusing"), ()))
    assert [event.refused for event in again if isinstance(event, RefusedItem)] == [refused]
    assert isinstance(again[-1], StyleMap)
