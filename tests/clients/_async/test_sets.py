"""Sets of pictures in one style, and sequences."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import gramlet
import numpy as np
import pytest
from gramlet import GramletError, InvalidInput, NotFound, Result, SetEvent, Started
from gramlet.types import Array
from gramlet_server.feature.engine import Engine
from gramlet_server.runs.store import Store
from gramlet_server.stylize.runs import Runs
from gramlet_server.stylize.service import StylizeServicer
from gramlet_server.telemetry import Observer
from PIL import Image

from tests.clients.servers import STYLIZE, acollect, async_client_of

HOW: Any = {"size": 64, "scales": 1, "antialiased": False, "iterations": 2}


def panorama(seed: int, width: int) -> Array:
    """(3, 48, width), smooth."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, width // 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, 48), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(image, np.float32).transpose(2, 0, 1) / 255)


def results(events: list[SetEvent]) -> dict[int, Result]:
    return {event.index: event.event for event in events if isinstance(event.event, Result)}


def settings_of(events: list[SetEvent]) -> list[gramlet.StylizeSettings]:
    return [event.event.settings for event in events if isinstance(event.event, Started)]


class Misses(Observer):
    """Counts what the cache of targets lacked."""

    def __init__(self) -> None:
        self.count = 0

    def cache(self, name: str, hit: bool) -> None:
        self.count += name == "targets" and not hit


async def test_the_style_is_prepared_once_for_all_pictures(engine: Engine, tmp_path: Path) -> None:
    misses = Misses()
    fresh = Engine(engine.network, observer=misses)
    seen, stages = [], 0
    async with async_client_of({STYLIZE: StylizeServicer(Runs(fresh, Store.open(str(tmp_path))))}) as client:
        async for event in client.stylize_set([panorama(seed, 64) for seed in (1, 2, 3)], panorama(9, 64), **HOW):
            if isinstance(event.event, Result):
                seen.append(misses.count)
            elif isinstance(event.event, Started):
                stages = len(event.event.settings.style_stages or {})
    fresh.close()
    # Of a further picture only its own targets are missing.
    assert np.diff(seen).tolist() == [seen[0] - stages] * 2


async def test_a_bad_picture_fails_alone(client: gramlet.AsyncClient, png: bytes) -> None:
    events = await acollect(client.stylize_set([b"no picture", png, "/nowhere.jpg", png], png, **HOW))
    outcomes = {event.index: event.event for event in events}
    assert [type(outcomes[index]) for index in range(4)] == [InvalidInput, Result, NotFound, Result]
    assert Counter(isinstance(event.event, GramletError) for event in events)[True] == 2


@pytest.mark.parametrize("wrong", [{"style": b"no picture"}, {"preset": "cubist"}])
async def test_what_is_wrong_for_every_picture_is_raised(
    client: gramlet.AsyncClient, png: bytes, wrong: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput):
        await acollect(client.stylize_set([png, png], **{"style": png, **HOW, **wrong}))


async def test_pictures_are_taken_as_the_events_are_read(client: gramlet.AsyncClient, png: bytes) -> None:
    taken = []

    def pictures() -> Iterator[bytes]:
        for number in range(100):
            taken.append(number)
            yield png

    events = client.stylize_set(pictures(), png, **HOW)
    async for event in events:
        if isinstance(event.event, Result) and event.index == 1:
            break
    await events.aclose()
    assert taken == [0, 1]


async def test_a_frame_starts_from_the_last_result(client: gramlet.AsyncClient, png: bytes) -> None:
    events = await acollect(
        client.stylize_set([png, png, png], panorama(9, 64), sequence=True, **{**HOW, "iterations": 8})
    )
    first, second, third = settings_of(events)
    assert (first.initial, first.iterations) == (gramlet.Initial.CONTENT, 8)
    for frame in (second, third):
        assert (frame.initial, frame.iterations, frame.scales) == (gramlet.Initial.GIVEN, 2, 1)
    # The same picture again goes on with what there is, but for its rounding to 8 bits.
    losses = [result.loss for result in results(events).values()]
    assert max(losses) < 1.05 * losses[0]


async def test_a_panning_sequence_flickers_less_than_its_frames_alone(client: gramlet.AsyncClient) -> None:
    wide, style = panorama(1, 76), panorama(9, 64)
    frames = [np.ascontiguousarray(wide[:, :, left : left + 64]) for left in (0, 3, 6)]

    async def flicker(sequence: bool) -> float:
        """Mean difference between painted frames where they show the same."""
        events = await acollect(client.stylize_set(frames, style, sequence=sequence, **{**HOW, "iterations": 16}))
        painted = [np.asarray(result.image, np.float32) / 255 for result in results(events).values()]
        return float(np.mean([np.abs(after[:, :-3] - before[:, 3:]).mean() for before, after in pairwise(painted)]))

    assert await flicker(sequence=True) < 0.8 * await flicker(sequence=False)  # with a quarter of the iterations


async def test_pictures_may_come_one_by_one(client: gramlet.AsyncClient, png: bytes) -> None:
    async def pictures() -> AsyncIterator[bytes]:
        yield png
        yield b"no picture"
        yield png

    events = await acollect(client.stylize_set(pictures(), png, sequence=True, **HOW))
    outcomes = {event.index: event.event for event in events}
    assert [type(outcomes[index]) for index in range(3)] == [Result, InvalidInput, Result]
    assert settings_of(events)[-1].initial is gramlet.Initial.GIVEN
