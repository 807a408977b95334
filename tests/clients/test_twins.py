"""Where the two clients differ: the event loop of the one, and when the other reads files."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import gramlet
import numpy as np
import pytest
from gramlet.errors import FailedPrecondition, GramletError, InvalidInput, NotFound
from gramlet.feature.types import Objective, Style
from gramlet.stylize.types import Started, StylizeSettings
from gramlet.stylize.wire import encode_event

from tests.clients._async.calls import MANY, ONE, Call
from tests.clients.scripts import OBJECTIVE, PICTURE
from tests.clients.servers import EMBED, FEATURE, STYLIZE, TRAIN, Script, free_port, serving

PIXELS = np.zeros((4, 4, 3), np.uint8)
ELSEWHERE = "belongs to another event loop"


async def use(made: Any) -> Any:
    """Awaits a result, or the first event of an iterator."""
    return await (anext(made) if hasattr(made, "__anext__") else made)


# --- event loops ---


@pytest.fixture
def address() -> Iterator[str]:
    """A server that refuses every call."""
    script = Script([InvalidInput("no")])
    with serving(dict.fromkeys((FEATURE, STYLIZE, TRAIN, EMBED), script)) as server:
        yield f"127.0.0.1:{server.port}"


@pytest.mark.parametrize("call", [*ONE.values(), *MANY.values()], ids=[*ONE.keys(), *(f"{name}s" for name in MANY)])
def test_an_asynchronous_client_refuses_another_event_loop(address: str, call: Call) -> None:
    client = gramlet.AsyncClient(address)

    async def refused_by_the_server() -> None:
        with pytest.raises(GramletError, match="no"):
            await client.model()

    async def refused_by_the_client() -> None:
        with pytest.raises(FailedPrecondition, match=ELSEWHERE):
            await use(call(client))

    asyncio.run(refused_by_the_server())
    asyncio.run(refused_by_the_client())


def test_a_differentiation_and_closing_refuse_another_event_loop(address: str) -> None:
    client = gramlet.AsyncClient(address)

    async def begin() -> None:
        with pytest.raises(GramletError, match="no"):
            await client.model()

    async def go_on() -> None:
        with pytest.raises(FailedPrecondition, match=ELSEWHERE):
            await client.differentiate(OBJECTIVE).evaluate(PICTURE)
        with pytest.raises(FailedPrecondition, match=ELSEWHERE):
            await client.close()

    asyncio.run(begin())
    asyncio.run(go_on())


def test_events_that_were_begun_in_an_event_loop_are_refused_in_another(address: str) -> None:
    made: list[Any] = []

    def stream(request: Any, context: Any) -> Iterator[Any]:
        yield encode_event(Started(height=4, width=4, settings=StylizeSettings(iterations=4)), request.run_id)
        left = Event()
        context.add_callback(left.set)
        left.wait(30)

    with serving({STYLIZE: Script(Stylize=[stream])}) as server:
        client = gramlet.AsyncClient(f"127.0.0.1:{server.port}")

        async def begin() -> None:
            made.append(client.stylize(PIXELS, PIXELS))
            await anext(made[0])

        async def go_on() -> None:
            for use in (made[0].result, made[0].close):
                with pytest.raises(FailedPrecondition, match="these events belong to another event loop"):
                    await use()

        asyncio.run(begin())
        asyncio.run(go_on())


def test_an_asynchronous_client_may_be_made_outside_of_its_event_loop(address: str) -> None:
    client = gramlet.AsyncClient(address)

    async def begin() -> None:
        with pytest.raises(GramletError, match="no"):
            await client.model()
        await client.close()

    asyncio.run(begin())


# --- files ---

_opened: list[str] = []


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("open", "os.scandir", "os.listdir") and asyncio._get_running_loop() is not None:
        _opened.append(str(arguments[0]))


@pytest.fixture(scope="module")
def _listening() -> None:
    sys.addaudithook(_listen)  # for good: Python has no way to remove a hook


@pytest.fixture
def opened_on_the_loop(_listening: None, tmp_path: Path) -> Callable[[], list[str]]:
    """The test's files and folders that were opened in a thread with a running event loop, so far."""
    _opened.clear()
    return lambda: [path for path in _opened if path.startswith(str(tmp_path))]


READING: dict[str, Callable[[gramlet.AsyncClient, Path], Any]] = {
    "features of one": lambda client, folder: client.features(folder / "a/1.png", stages="conv1"),
    "features of many": lambda client, folder: client.features([folder / "a/1.png"], stages="conv1"),
    "features of a generator": lambda client, folder: client.features(
        (path.read_bytes() for path in folder.rglob("*.png")), stages="conv1"
    ),
    "stylize": lambda client, folder: client.stylize(
        folder / "a/1.png", [folder / "b/1.png"], initial=folder / "a/2.png", previous=folder / "a/1.png"
    ),
    "stylize_set": lambda client, folder: client.stylize_set([folder / "a/1.png"], Style(folder / "b/1.png")),
    "compare_optimizers": lambda client, folder: client.compare_optimizers(folder / "a/1.png", folder / "b/1.png"),
    "sweep": lambda client, folder: client.sweep(folder / "a/1.png", folder / "b/1.png"),
    "train": lambda client, folder: client.train(folder, name="bees"),
    "resume_training": lambda client, folder: client.resume_training("run", folder),
    "predict one": lambda client, folder: client.predict("bees", folder / "a/1.png"),
    "predict many": lambda client, folder: client.predict("bees", [folder / "a/1.png", folder / "a/2.png"]),
    "embed": lambda client, folder: client.embed(folder),
    "transform": lambda client, folder: client.transform("map", folder),
    "differentiate": lambda client, folder: client.differentiate(
        Objective(content=folder / "a/1.png", content_stage="conv1")  # type: ignore[arg-type]
    ).evaluate(PICTURE),
}


@pytest.mark.parametrize("call", READING.values(), ids=READING.keys())
async def test_no_call_reads_files_on_the_event_loop(
    call: Callable[[gramlet.AsyncClient, Path], Any],
    address: str,
    png: bytes,
    tmp_path: Path,
    opened_on_the_loop: Callable[[], list[str]],
) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        await asyncio.to_thread((tmp_path / name).write_bytes, png)
    async with gramlet.AsyncClient(address) as client:
        with pytest.raises(InvalidInput, match="no"):
            await use(call(client, tmp_path))
    assert opened_on_the_loop() == []


def test_the_synchronous_client_reads_files_at_the_call(png: bytes) -> None:
    with gramlet.Client(f"127.0.0.1:{free_port()}") as client:
        for call in (
            lambda: client.stylize("/nowhere.jpg", png),
            lambda: client.stylize_set([png], "/nowhere.jpg"),
            lambda: client.compare_optimizers("/nowhere.jpg", png),
            lambda: client.sweep("/nowhere.jpg", png),
            lambda: client.train("/nowhere", name="bees"),
            lambda: client.embed("/nowhere"),
        ):
            with pytest.raises(NotFound, match="nowhere"):
                call()
