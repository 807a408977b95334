"""See over the wire: folders and bad pictures, a lost server, and a caller who leaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gramlet
import numpy as np
import pytest
from gramlet.errors import InvalidInput, NotFound, Unavailable
from gramlet_server.feature.engine import Engine
from gramlet_server.feature.service import FeatureServicer
from PIL import Image

from tests.clients.servers import FEATURE, acollect, async_client_of
from tests.e2e.cluster import wait_until

WHAT: Any = {"resize": 64, "patches": 3, "steps": 4, "optimized_size": 48, "preview_every": 2}


class Fragile(FeatureServicer):
    """A FeatureService that is lost after so many messages: one number for each connection, then never again."""

    def __init__(self, engine: Engine, *breaks: int) -> None:
        super().__init__(engine)
        self.breaks = [*breaks]

    def See(self, request_iterator: Iterator[Any], context: Any) -> Iterator[Any]:
        last = self.breaks.pop(0) if self.breaks else None
        for number, message in enumerate(super().See(request_iterator, context)):
            if number == last:
                raise Unavailable("gone", retry_after=0.0)
            yield message


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures in two folders, and a file that only begins like one."""
    path = tmp_path_factory.mktemp("pictures")
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 80, 3), np.uint8)
        (path / "ab"[number % 2]).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path / "ab"[number % 2] / f"{number}.png")
    (path / "a" / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    return path


async def test_a_folder_with_a_bad_picture(engine: Engine, folder: Path) -> None:
    async with async_client_of({FEATURE: FeatureServicer(engine)}) as client:
        events = await acollect(client.see("layer1", [5, 7], folder, **WHAT))
    result = events[-1]
    assert isinstance(result, gramlet.SeeResult)
    assert isinstance(events[0], gramlet.SeeStarted)
    assert [each.id for each in result.refused] == ["a/broken.jpg"]
    assert (result.pictures, result.stage, list(result.patches), list(result.optimized)) == (
        6,
        "layer1",
        [5, 7],
        [5, 7],
    )
    assert all(len(patches) == 3 for patches in result.patches.values())
    assert {patch.id for patch in result.patches[5]} <= {"a/0.png", "a/2.png", "a/4.png", "b/1.png", "b/3.png"}
    assert result.patches[5][0].projection_image is not None
    assert result.optimized[7].image.size == (48, 48)
    progress = [event for event in events if isinstance(event, gramlet.SeeProgress)]
    assert (progress[-1].pictures, progress[-1].total) == (6, 6)


async def test_nothing_is_reported_twice_when_the_server_is_lost(engine: Engine, folder: Path) -> None:
    def plain(events: list[Any]) -> list[str]:
        names = [f"{type(event).__name__} {getattr(event, 'channel', '')}" for event in events]
        return [name for name in names if "Progress" not in name]  # batches vary

    async with async_client_of({FEATURE: FeatureServicer(engine)}) as client:
        whole = await acollect(client.see("layer1", [5, 7], folder, **WHAT))
    for breaks in ((1,), (4, 2), (8,)):
        async with async_client_of({FEATURE: Fragile(engine, *breaks)}) as client:
            events = await acollect(client.see("layer1", [5, 7], folder, **WHAT))
        lost = [event for event in events if isinstance(event, gramlet.SeeReconnecting)]
        assert len(lost) == len(breaks)
        assert plain([event for event in events if event not in lost]) == plain(whole)
        assert events[-1].optimized[5].png == whole[-1].optimized[5].png


async def test_a_caller_who_leaves_ends_the_work(engine: Engine, folder: Path) -> None:
    async with async_client_of({FEATURE: FeatureServicer(engine)}) as client:
        async with client.see("layer1", 5, folder, **{**WHAT, "steps": 4096}) as events:
            async for event in events:
                if isinstance(event, gramlet.SeePreview):
                    break
        at_work = engine.passes.scheduler, engine.descents.queue
        wait_until(lambda: not (at_work[0].callers or at_work[1].running), what="the call has ended")


async def test_what_is_wrong_is_named(engine: Engine, folder: Path, tmp_path: Path) -> None:
    async with async_client_of({FEATURE: FeatureServicer(engine)}) as client:
        wrong: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
            (("layer9", 5, folder), {}, "stage"),
            (("layer1", 256, folder), {}, "channels[0]"),
            (("layer1", [5, 5], folder), {}, "channels"),
            (("layer1", range(65), folder), {}, "channels"),
            (("layer1", "5", folder), {}, "channels"),
            (("layer1",), {}, "pictures"),
            (("layer1", 5, []), {}, "pictures"),
            (("layer1", 5, tmp_path), {}, "pictures"),
            (("layer1", 5, "no such file.jpg"), {}, "pictures"),
            (("layer1", 5, [b"\xff\xd8\xff broken"]), {}, "pictures"),
            (("layer1", 5, folder), {"steps": 5000}, "steps"),
            (("layer1", 5, folder), {"patches": 0, "optimize": False}, "patches"),
            (("layer1", 5, folder), {"optimized_size": 5000}, "optimized_size"),
            (("layer1", 5, folder), {"projection": "guide"}, "projection"),
        ]
        for arguments, options, field in wrong:
            with pytest.raises((InvalidInput, NotFound)) as found:
                await acollect(client.see(*arguments, **options))
            assert found.value.field == field, found.value
