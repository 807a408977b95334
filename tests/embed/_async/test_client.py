"""Maps, through the client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gramlet
import numpy as np
import pytest
from gramlet.embed.settings import Descriptor
from gramlet.embed.types import LayoutIteration, Position, RefusedItem, StyleMap
from gramlet.errors import GramletError, InvalidInput, NotFound

from tests.clients.servers import acollect, ahappened
from tests.embed.conftest import SIDE, Idle, clusters

QUICK: Any = {"perplexity": 5, "iterations": 40, "early_iterations": 20}


@pytest.fixture
async def client(server: str) -> AsyncIterator[gramlet.AsyncClient]:
    async with gramlet.AsyncClient(server, timeout=120) as client:
        yield client


async def test_a_folder_becomes_a_map_with_its_folders_as_labels(client: gramlet.AsyncClient, folder: Path) -> None:
    events = await acollect(client.embed(folder, stages="conv1", resize=SIDE, map_id="m", **QUICK))
    last = events[-1]
    assert isinstance(last, StyleMap)
    assert {(place.id, place.label) for place in last.places} == {
        (path.relative_to(folder).as_posix(), path.parent.name) for path in folder.glob("*/*")
    }
    assert last.layouts[0].quality.descriptor_label_accuracy == 1.0
    iterations = [event for event in events if isinstance(event, LayoutIteration)]
    assert iterations[-1].coordinates is not None
    assert iterations[-1].coordinates.shape == (8, 2)
    found = await client.map("m")
    np.testing.assert_array_equal(found.layouts[0].coordinates, last.layouts[0].coordinates)
    assert replace(found, layouts=()) == replace(last, layouts=())
    assert [summary.map_id for summary in await client.maps()] == ["m"]
    assert (await client.draw_map("m", width=300))[:4] == b"\x89PNG"
    assert (await client.draw_map("m", form="grid", width=300))[:4] == b"\x89PNG"
    assert (await client.draw_map("m", form="page")).startswith(b"<!doctype html>")
    await client.delete_map("m")
    with pytest.raises(NotFound):
        await client.map("m")


async def test_vectors_become_a_map_and_take_new_ones(client: gramlet.AsyncClient) -> None:
    vectors, labels = clusters(40)
    style_map = await client.embed(vectors[:36], labels=labels[:36], map_id="m", **QUICK).result()
    assert style_map.settings.descriptor is Descriptor.VECTOR
    outcomes = await acollect(client.transform("m", vectors[36:]))
    assert len(outcomes) == 4
    for outcome, label in zip(outcomes, labels[36:], strict=True):
        assert isinstance(outcome, Position)
        assert labels[outcome.neighbors[0].index] == label


async def test_pictures_that_cannot_be_read_are_refused_alone_with_the_reason(
    client: gramlet.AsyncClient, folder: Path
) -> None:
    pictures = [*sorted(folder.glob("*/*")), folder / "nowhere.png", b"rubbish"]
    events = await acollect(client.embed(pictures, stages="conv1", resize=SIDE, map_id="m", **QUICK))
    refused = [event.refused for event in events if isinstance(event, RefusedItem)]
    assert [one.index for one in refused] == [8, 9]
    assert "there is no file" in refused[0].message
    some = [pictures[8], pictures[0], b"rubbish", pictures[1]]
    outcomes: list[Any] = await acollect(client.transform("m", some, in_flight=2))
    assert [type(outcome) for outcome in outcomes] == [NotFound, Position, InvalidInput, Position]
    assert [outcomes[0].field, outcomes[2].field] == ["pictures[0]", "pictures[2]"]


@pytest.mark.parametrize("items", ["/nowhere", b"one picture", 3])
async def test_items_that_are_no_set_of_pictures_are_refused(client: gramlet.AsyncClient, items: Any) -> None:
    with pytest.raises(GramletError) as error:
        await anext(client.embed(items))
    assert error.value.field == "items"


async def test_wrong_settings_name_their_field(client: gramlet.AsyncClient) -> None:
    vectors, _ = clusters(10)
    with pytest.raises(InvalidInput) as error:
        await client.embed(vectors, metric="taxi").result()
    assert error.value.field == "metric"
    with pytest.raises(InvalidInput) as error:
        await client.embed(vectors, dimensions=7).result()
    assert error.value.field == "dimensions"


async def test_leaving_the_block_frees_the_server(client: gramlet.AsyncClient, idle: Idle) -> None:
    vectors, _ = clusters(30)
    async with client.embed(vectors, iterations=1_000_000, report_every=1) as events:
        async for event in events:
            if isinstance(event, LayoutIteration):
                break
    assert await ahappened(idle.event)
