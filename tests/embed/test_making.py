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
from gramlet_server.embed.descriptors import Budget
from gramlet_server.embed.making import MakingSettings, Maps
from gramlet_server.embed.placing import placed
from gramlet_server.feature.engine import Engine
from gramlet_server.runs.store import Store

from tests.embed.conftest import SIDE, Make, drawn, made, picture_items, vector_items

QUICK = Tsne(perplexities=(5.0,), iterations=60, early_iterations=30)
VECTORS = MapSettings(descriptor=Descriptor.VECTOR, tsne=QUICK)
GRAMS = MapSettings(stages=("conv1", "layer1"), resize=Resize(), tsne=QUICK)


def test_events_come_in_order_and_the_map_is_stored(maps: Maps, store: Store) -> None:
    items = picture_items(12)
    events = made(maps, MapStart(GRAMS, count=12, map_id="m"), items)
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


def test_pooled_features_make_maps_too(make: Make) -> None:
    style_map = make(picture_items(8), replace(GRAMS, descriptor=Descriptor.POOLED, stages=()))
    assert style_map.settings.stages == ("avgpool",)
    assert style_map.measured.descriptor_size == 2048


def test_items_that_fail_fail_alone_and_the_result_says_so(make: Make) -> None:
    items = picture_items(8)
    odd: list[Item | BadItem] = [
        Item("rubbish", "", b"no picture"),
        BadItem("undecodable", InvalidInput("no picture", field="item.picture")),
        Item("nothing"),
    ]
    style_map = make([*odd[:2], *items, odd[2]], GRAMS)
    assert [(refused.index, refused.id, refused.code) for refused in style_map.refused] == [
        (0, "rubbish", 3),
        (1, "undecodable", 3),
        (10, "nothing", 3),
    ]
    assert [place.id for place in style_map.places] == [item.id for item in items]
    assert style_map.notes[0] == "3 items could not be described and are not on the map."


def test_vectors_that_are_no_numbers_or_of_another_size_fail_alone(make: Make) -> None:
    items = vector_items(10)
    items[3] = Item("nan", vector=np.array([np.nan] * 20, np.float32))
    items[4] = Item("short", vector=np.ones(3, np.float32))
    style_map = make(items, VECTORS)
    assert [refused.id for refused in style_map.refused] == ["nan", "short"]
    assert len(style_map.places) == 8


def test_what_a_reader_should_know_is_said(make: Make) -> None:
    plain = np.full((SIDE, SIDE, 3), 200, np.uint8)
    items = [
        *picture_items(6),
        Item("again", picture=picture_items(1)[0].picture),
        Item("plain", picture=plain),
        Item("large", picture=drawn((1, 2, 3), 9, 96)),
    ]
    notes = "\n".join(make(items, GRAMS).notes)
    assert "1 item has the same content as an earlier one." in notes
    assert "1 picture is of one color" in notes
    assert "pictures of 2 sizes" in notes
    assert "9 items are too few for perplexity 5" in notes
    zero = [*vector_items(6), Item("zero", vector=np.zeros(20, np.float32))]
    notes = "\n".join(make(zero, replace(VECTORS, metric=Metric.COSINE)).notes)
    assert "1 item without direction is taken for zero" in notes


@pytest.mark.parametrize("items", [1, 2, 4])
def test_few_items_make_a_map(make: Make, items: int) -> None:
    assert make(vector_items(items), VECTORS).layouts[0].coordinates.shape == (items, 2)


def test_several_perplexities_make_a_row(make: Make) -> None:
    settings = replace(VECTORS, tsne=replace(QUICK, perplexities=(3.0, 6.0)))
    assert [layout.perplexity for layout in make(vector_items(24), settings).layouts] == [3.0, 6.0]


def test_same_seed_same_map(make: Make) -> None:
    first, second = (make(vector_items(20), VECTORS).layouts[0].coordinates for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_more_items_than_announced_are_refused(maps: Maps) -> None:
    with pytest.raises(InvalidInput, match="more items came than the 3 announced"):
        made(maps, MapStart(VECTORS, count=3), vector_items(4))


@pytest.mark.parametrize(
    ("start", "error", "field"),
    [
        (MapStart(VECTORS), InvalidInput, "start.count"),
        (MapStart(replace(GRAMS, stages=("nowhere",)), count=3), InvalidInput, "start.settings.stages[0]"),
        (MapStart(replace(VECTORS, dimensions=5), count=3), InvalidInput, "start.settings.dimensions"),
        (MapStart(VECTORS, count=1_000_000), InvalidInput, "start.count"),
        (MapStart(VECTORS, count=3, from_map_id="nowhere"), NotFound, "map_id"),
        (MapStart(None, "nowhere"), NotFound, "resume_run_id"),
    ],
)
def test_what_cannot_be_made_is_refused_before_any_work(
    maps: Maps, start: MapStart, error: type[GramletError], field: str
) -> None:
    with pytest.raises(error) as raised:
        maps.start(start, iter(()))
    assert raised.value.field == field


def test_no_items_at_all_are_no_map(maps: Maps) -> None:
    with pytest.raises(InvalidInput, match="no item could be described"):
        made(maps, MapStart(VECTORS, count=3), [])


def test_a_name_is_given_once(maps: Maps, make: Make) -> None:
    make(vector_items(5), VECTORS, map_id="m")
    with pytest.raises(AlreadyExists):
        maps.start(MapStart(VECTORS, count=5, map_id="m"), iter(()))


def test_cancelling_stops_within_one_iteration(maps: Maps, store: Store) -> None:
    settings = replace(VECTORS, tsne=replace(QUICK, iterations=1_000_000))
    making = maps.start(MapStart(settings, count=30, map_id="m", report_every=1), vector_items(30))
    seen = next(event for event in making if isinstance(event, LayoutIteration))
    assert seen.iteration >= 1
    making.cancel()
    making.join()
    assert maps._turns.running == 0


def test_a_cancelled_map_goes_on_to_the_same_result(maps: Maps, store: Store, make: Make) -> None:
    items, settings = vector_items(30), replace(VECTORS, tsne=replace(QUICK, perplexities=(4.0, 7.0)))
    whole = make(items, settings)
    events_so_far = maps.events(MapStart(settings, count=30, map_id="m", report_every=1), items)
    next(e for e in events_so_far if isinstance(e, LayoutIteration) and e.layout == 1 and e.iteration == 25)
    events_so_far.close()
    assert not stored.list_maps(store)[0].finished
    events = made(maps, MapStart(None, "m"), [])
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


def test_a_map_whose_items_had_not_all_arrived_takes_them_again(maps: Maps) -> None:
    items = vector_items(10)
    events = maps.events(MapStart(VECTORS, count=30, map_id="m"), items[:5])
    next(event for event in events if isinstance(event, Described) and event.described == 3)
    events.close()
    with pytest.raises(FailedPrecondition, match="had not all arrived"):
        maps_of(maps).start(MapStart(None, "m"), iter(()))
    last = made(maps_of(maps), MapStart(None, "m", count=10), items)[-1]
    assert isinstance(last, StyleMap)
    assert len(last.places) == 10


def maps_of(other: Maps) -> Maps:
    """Another process at the same store."""
    return Maps(other._features, other._store, other._settings)


def test_draining_keeps_what_was_done_for_another_replica(maps: Maps, store: Store) -> None:
    settings = replace(VECTORS, tsne=replace(QUICK, iterations=300))
    items = vector_items(20)
    rest = maps.events(MapStart(settings, count=20, map_id="m", report_every=1), items)
    seen = next(event for event in rest if isinstance(event, LayoutIteration))
    maps.drain()
    with pytest.raises(Unavailable) as error:
        list(rest)
    assert error.value.retry_after == 0
    events = made(maps_of(maps), MapStart(None, "m", report_every=1), [])
    iterations = [event.iteration for event in events if isinstance(event, LayoutIteration)]
    assert iterations[0] in (seen.iteration + 1, seen.iteration + 2)
    assert iterations[-1] == 300


def test_only_so_many_maps_are_made_at_once(engine: Engine, store: Store) -> None:
    maps = Maps(engine, store, MakingSettings(running_limit=1, queue_limit=1))
    settings = replace(VECTORS, tsne=replace(QUICK, iterations=1_000_000))
    making = [maps.start(MapStart(settings, count=20), vector_items(20)) for _ in range(2)]
    with pytest.raises(Overloaded) as error:
        maps.start(MapStart(settings, count=20), vector_items(20))
    assert error.value.retry_after
    for one in making:
        one.cancel()
        one.join()


def test_the_budget_holds(engine: Engine, store: Store) -> None:
    maps = Maps(engine, store, MakingSettings(budget=Budget(memory_bytes=10_000)))
    with pytest.raises(InvalidInput, match="GiB of memory"):
        maps.start(MapStart(VECTORS, count=20), iter(()))


def test_a_grown_set_starts_from_the_old_map(make: Make) -> None:
    items = vector_items(60)
    settings = replace(VECTORS, tsne=replace(QUICK, iterations=300))
    old = make(items[:50], settings, map_id="old")
    renamed = [replace(item, id=f"new name {n}") for n, item in enumerate(items)]
    grown = make(renamed, settings, from_map_id="old")
    assert grown.notes[-1] == "50 of 60 items started at their places on old."
    assert grown.settings.tsne.iterations == 250
    before, after = old.layouts[0].coordinates, grown.layouts[0].coordinates[:50]
    assert np.linalg.norm(after - before, axis=1).mean() < 0.15 * np.linalg.norm(before, axis=1).mean()


def test_a_start_from_another_kind_of_map_is_refused(maps: Maps, make: Make) -> None:
    make(vector_items(6), replace(VECTORS, dimensions=3), map_id="old")
    with pytest.raises(FailedPrecondition, match="3 dimensions"):
        maps.start(MapStart(VECTORS, count=6, from_map_id="old"), iter(()))
    with pytest.raises(InvalidInput, match="only t-SNE"):
        maps.start(MapStart(replace(VECTORS, method=Method.PCA), count=6, from_map_id="old"), iter(()))


def test_new_items_are_placed_and_the_map_stays(make: Make, engine: Engine, store: Store) -> None:
    items = vector_items(44)
    settings = replace(VECTORS, tsne=replace(QUICK, iterations=300))
    style_map = make(items[:40], settings, map_id="m")
    new: list[Item | BadItem] = [*items[40:], Item("nan", vector=np.full(20, np.nan, np.float32)), Item("none")]
    outcomes = dict(placed("m", new, engine, store))
    assert isinstance(outcomes["nan"], InvalidInput)
    assert isinstance(outcomes["none"], InvalidInput)
    for item in items[40:]:
        position = outcomes[item.id]
        assert isinstance(position, Position)
        nearest = np.linalg.norm(style_map.layouts[0].coordinates - position.coordinates[0], axis=1).argmin()
        assert style_map.places[nearest].label == item.label
        assert style_map.places[position.neighbors[0].index].label == item.label
    alone = dict(placed("m", [items[41]], engine, store))[items[41].id]
    in_company = outcomes[items[41].id]
    assert isinstance(alone, Position)
    assert isinstance(in_company, Position)
    np.testing.assert_array_equal(alone.coordinates, in_company.coordinates)
    np.testing.assert_array_equal(stored.get_map(store, "m").layouts[0].coordinates, style_map.layouts[0].coordinates)


def test_a_picture_of_the_map_is_placed_where_it_lies(make: Make, engine: Engine, store: Store) -> None:
    items = picture_items(20)
    style_map = make(items, GRAMS, map_id="m")
    ((_, position),) = placed("m", [items[7]], engine, store)
    assert isinstance(position, Position)
    assert position.neighbors[0].index == 7
    assert position.neighbors[0].distance == pytest.approx(0, abs=1e-3)
    spread = np.linalg.norm(style_map.layouts[0].coordinates, axis=1).mean()
    assert np.linalg.norm(position.coordinates[0] - style_map.layouts[0].coordinates[7]) < spread


def test_maps_of_other_methods_take_new_items_too(make: Make, engine: Engine, store: Store) -> None:
    items = vector_items(24)
    style_map = make(items[:20], replace(VECTORS, method=Method.PCA), map_id="m")
    ((_, position),) = placed("m", items[20:21], engine, store)
    assert isinstance(position, Position)
    nearest = np.linalg.norm(style_map.layouts[0].coordinates - position.coordinates[0], axis=1).argmin()
    assert style_map.places[nearest].label == items[20].label


def test_a_map_of_other_weights_is_refused(make: Make, engine: Engine, store: Store) -> None:
    make(picture_items(4), GRAMS, map_id="m")
    run = stored.open_run(store, "m")
    plan = replace(stored.get_plan(run), weights_digest="other")
    store.put("runs/maps/m/00000001/plan", stored.to_json(plan))
    with pytest.raises(FailedPrecondition, match="other weights"):
        list(placed("m", picture_items(1), engine, store))


def test_deleted_maps_are_gone(make: Make, store: Store) -> None:
    make(vector_items(5), VECTORS, map_id="m")
    stored.delete_map(store, "m")
    assert stored.list_maps(store) == []
    for gone in (stored.get_map, stored.delete_map):
        with pytest.raises(NotFound):
            gone(store, "m")


def test_refused_items_are_events(maps: Maps) -> None:
    events = made(maps, MapStart(VECTORS, count=6), [*vector_items(5), Item("none")])
    (refused,) = [event.refused for event in events if isinstance(event, RefusedItem)]
    assert (refused.index, refused.id, refused.field) == (5, "none", "item.vector")
