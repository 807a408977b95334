"""Feeds: what a browser gets that is slow, was cut off, or comes late."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from gramlet_studio.events import page_event
from gramlet_studio.feeds import Feed


def events(text: str) -> list[dict[str, object]]:
    """The events of a piece of a stream."""
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]


async def all_of(stream: AsyncIterator[str]) -> list[dict[str, object]]:
    return [event async for piece in stream for event in events(piece)]


async def test_a_slow_browser_misses_previews_and_nothing_else() -> None:
    feed = Feed()
    slow = feed.follow(0)
    assert events(await anext(slow))[0]["event"] == "reset"
    for iteration in range(1, 6):  # all of this happens while the browser reads one event
        feed.put(page_event("iteration", iteration=iteration))
        feed.put(page_event("preview", "preview", {"preview": bytes([iteration])}, iteration=iteration))
    feed.end(page_event("end", state="succeeded"))
    rest = await all_of(slow)
    assert [event["iteration"] for event in rest if event["event"] == "iteration"] == [1, 2, 3, 4, 5]
    assert [event["iteration"] for event in rest if event["event"] == "preview"] == [5]
    assert rest[-1]["event"] == "end"
    assert feed.blobs == {"preview": b"\x05"}


async def test_a_browser_hears_when_it_has_caught_up_and_then_each_event_at_once() -> None:
    feed = Feed()
    feed.put(page_event("iteration", iteration=1))
    stream = feed.follow(0)
    caught_up = [events(await anext(stream))[0]["event"] for _ in range(3)]
    assert caught_up == ["reset", "iteration", "live"]
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    assert not waiting.done()
    feed.put(page_event("iteration", iteration=2))
    assert events(await waiting)[0]["iteration"] == 2
    feed.end(page_event("end", state="stopped"))
    assert [event["event"] for event in await all_of(stream)] == ["end"]


async def test_an_id_leads_to_the_event_after_it_unless_it_is_of_another_feed() -> None:
    feed, other = Feed(), Feed()
    for iteration in range(3):
        feed.put(page_event("iteration", iteration=iteration))
    assert feed.position_after(f"{feed.token}-1") == 2
    for foreign in (f"{other.token}-1", "", "-", "x-1", f"{feed.token}-", f"{feed.token}--1", f"{feed.token}-1-1"):
        assert feed.position_after(foreign) == 0
    feed.end(page_event("end", state="succeeded"))
    assert feed.has_more(3)
    assert not feed.has_more(4)
