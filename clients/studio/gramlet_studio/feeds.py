"""Feeds: the events of a run, read once from gramlet and kept for every browser that follows it.

A browser follows a feed by Server-Sent Events. Each event has an id, `<feed>-<number>`. A browser that was cut off
sends the last id that it saw, and the feed goes on after it. One that is new, or that followed a feed of an earlier
process of the studio, gets all events from the first. Events that a later one replaces, such as previews, are dropped;
everything else stays, so that a slow browser costs no memory of its own and does not hold up anybody.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

from gramlet import AsyncClient, AsyncEvents
from gramlet.errors import Cancelled, GramletError, Unavailable
from gramlet.json_codec import plain
from gramlet.run.types import RunKind
from gramlet_studio.events import PageEvent, described, page_event
from gramlet_studio.failures import error_fields
from gramlet_studio.library import Library

PING_SECONDS = 15.0
"""A line is sent at least this often, so that both sides notice a connection that is gone."""
_RETRY_SECONDS = 2.0
_MOST_FEEDS = 24  # each may hold a result of some MB

_log = logging.getLogger(__name__)


class Feed:
    """The events of one run.

    Attributes:
        token: Part of the ids, so that ids of another feed are not taken for ours.
        ended: Whether the last event has come.
        blobs: The newest picture of each name: `preview`, `result`, `cell-0-1`.
        settings: The settings in force, as JSON; None before they are known.

    Args:
        lines: Events from before, as lines of JSON.
    """

    def __init__(self, lines: Sequence[str] = ()) -> None:
        self.token = secrets.token_hex(4)
        self.ended = False
        self.blobs: dict[str, bytes] = {}
        self.settings: Any = None
        self._log: list[str | None] = list(lines)
        self._replaceable: dict[str, int] = {}
        self._grown = asyncio.Event()
        self._seen: set[str] = set()
        self._left = False

    def put(self, event: PageEvent) -> None:
        """Adds an event."""
        if event.replaces:
            before = self._replaceable.get(event.replaces)
            if before is not None:
                self._log[before] = None
            self._replaceable[event.replaces] = len(self._log)
        self._log.append(event.line)
        self._seen.add(event.name)
        self.blobs.update(event.blobs)
        self._wake()

    def end(self, event: PageEvent) -> None:
        """Adds the last event."""
        self.ended = True
        self.put(event)

    def lines(self) -> list[str]:
        """The events so far that no later one replaces."""
        return [line for line in self._log if line is not None]

    async def wait_for(self, *names: str) -> None:
        """Waits for an event of one of these names, or for the last event."""
        while not self.ended and self._seen.isdisjoint(names):
            await self._grown.wait()

    def position_after(self, last_id: str) -> int:
        """Where a browser goes on that saw this id last; 0: at the start."""
        token, _, number = last_id.partition("-")
        return int(number) + 1 if token == self.token and number.isdecimal() else 0

    def has_more(self, position: int) -> bool:
        """Whether anything is left to send from this position on, now or later."""
        return not self.ended or position < len(self._log)

    async def follow(self, position: int) -> AsyncIterator[str]:
        """Events from a position on as Server-Sent Events, until the last one.

        `reset` comes before the first event of all, `live` after those that had already happened.
        """
        is_live = False
        if position == 0:  # without an id: the browser goes on asking for all
            yield f'retry: 1000\ndata: {{"event": "reset", "feed": "{self.token}"}}\n\n'
        while self.has_more(position) and not self._left:
            grown = self._grown
            lines = [
                f"id: {self.token}-{number}\ndata: {line}\n\n"
                for number, line in enumerate(self._log[position:], position)
                if line is not None
            ]
            position = len(self._log)
            if lines:
                yield "".join(lines)
            elif not is_live and not self.ended:
                is_live = True
                yield 'data: {"event": "live"}\n\n'
            elif not self.ended:
                try:
                    await asyncio.wait_for(grown.wait(), PING_SECONDS)
                except TimeoutError:
                    yield ": still here\n\n"

    def leave(self) -> None:
        """Ends the streams of all followers. They ask the next process for what follows."""
        self._left = True
        self._wake()

    def _wake(self) -> None:
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()


class Feeds:
    """The feeds of this process, by kind and id of the run.

    Args:
        client: Of the gramlet server.
        library: Where the events of runs that have ended are kept, for the next process of the studio.
    """

    def __init__(self, client: AsyncClient, library: Library) -> None:
        self._client = client
        self._library = library
        self._feeds: dict[tuple[str, str], Feed] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def order(self, kind: RunKind, events: AsyncEvents[Any, Any]) -> Feed:
        """Starts a run, and its feed. Returns when the server has taken the order.

        Raises:
            GramletError: The server has rejected it.
        """
        first = await anext(events)
        return self._start(kind, events.run_id, events, first)

    async def resume(self, kind: RunKind, events: AsyncEvents[Any, Any]) -> Feed:
        """As `order`, for a run that is resumed: its feed begins with the events from before."""
        before = self._feeds.get((kind.value, events.run_id)) or await self._kept(kind, events.run_id)
        first = await anext(events)
        lines = before.lines()[:-1] if before is not None and before.ended else []  # without the end
        return self._start(kind, events.run_id, events, first, lines)

    async def follow(self, kind: RunKind, run_id: str) -> Feed:
        """The feed of a run; without one, that of an earlier process, or a new one that watches the run."""
        feed = self._feeds.get((kind.value, run_id)) or await self._kept(kind, run_id)
        feed = self._feeds.get((kind.value, run_id)) or feed  # another request may have started it meanwhile
        if feed is None:
            feed = self._start(kind, run_id, self._client.run(run_id, kind).watch())
        self._feeds[kind.value, run_id] = feed
        return feed

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Does work that no request waits for, until `close`."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def existing(self, kind: RunKind, run_id: str) -> Feed | None:
        """The feed of a run, if there is one."""
        return self._feeds.get((kind.value, run_id))

    def drop(self, kind: RunKind, run_id: str) -> None:
        """Forgets the feed of a run."""
        self._feeds.pop((kind.value, run_id), None)

    def leave(self) -> None:
        """Ends the streams of all browsers."""
        for feed in self._feeds.values():
            feed.leave()

    async def close(self) -> None:
        """Stops reading. Detached runs go on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _kept(self, kind: RunKind, run_id: str) -> Feed | None:
        """The feed that an earlier process has kept, if the run has ended since."""
        kept = await asyncio.to_thread(self._library.load, f"orders/{kind.value}-events", run_id)
        if kept is None or not (await self._client.run(run_id, kind).info()).state.has_ended:
            return None
        feed = Feed(kept["lines"][:-1])
        feed.settings = kept["settings"]
        for name, picture in kept["pictures"].items():
            feed.blobs[name] = await asyncio.to_thread(self._library.path(picture).read_bytes)
        feed.end(PageEvent("end", kept["lines"][-1]))
        return feed

    async def _keep(self, kind: RunKind, run_id: str, feed: Feed, last: PageEvent) -> None:
        """Keeps the events of a run that has ended."""
        pictures = {name: await asyncio.to_thread(self._library.add_file, data) for name, data in feed.blobs.items()}
        value = {"lines": [*feed.lines(), last.line], "pictures": pictures, "settings": feed.settings}
        await asyncio.to_thread(self._library.save, f"orders/{kind.value}-events", run_id, value)

    def _start(
        self,
        kind: RunKind,
        run_id: str,
        events: AsyncEvents[Any, Any],
        first: Any = None,
        lines: Sequence[str] = (),
    ) -> Feed:
        feed = self._feeds[kind.value, run_id] = Feed(lines)
        for key in [key for key, other in self._feeds.items() if other.ended][: max(0, len(self._feeds) - _MOST_FEEDS)]:
            del self._feeds[key]
        if first is not None:
            _put(feed, first)

        def again() -> AsyncEvents[Any, Any]:
            return self._client.run(run_id, kind).watch()

        async def read() -> None:
            last = await _read(feed, events, again)
            try:
                if first is not None:  # a feed that joined a run late has not all of its events
                    await self._keep(kind, run_id, feed, last)
            except OSError as error:
                _log.warning("the events of run %s are not kept: %s", run_id, error)
            finally:
                feed.end(last)

        self.in_background(read())
        return feed


async def _read(feed: Feed, events: AsyncEvents[Any, Any], again: Callable[[], AsyncEvents[Any, Any]]) -> PageEvent:
    """Reads a run to its end; returns the last event. The SDK waits for a lost server; after that, this asks again."""
    while True:
        try:
            async with events:
                async for event in events:
                    _put(feed, event)
            return page_event("end", state="succeeded")
        except Unavailable as error:
            feed.put(page_event("lost", "lost", **error_fields(error)))
            await asyncio.sleep(_RETRY_SECONDS)
            events = again()
        except Cancelled as error:
            return page_event("end", state="stopped", **error_fields(error))
        except GramletError as error:
            return page_event("end", state="failed", **error_fields(error))
        except Exception:
            _log.exception("the feed of run %s failed", events.run_id)
            return page_event("end", state="failed", error="the studio failed: see its log")


def _put(feed: Feed, event: Any) -> None:
    feed.put(described(event))
    settings = getattr(event, "settings", None)
    if settings is not None:
        feed.settings = plain(settings, keep_none=False)
