"""The name and the request id of a call are those of its caller's context, however late it is read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from typing import Any

import gramlet
import pytest
from gramlet.errors import InvalidInput
from gramlet.health import EMBED, FEATURE, STYLIZE, TRAIN
from gramlet.transport.channel import ON_BEHALF_OF, REQUEST_ID

from tests.clients._async.calls import MANY, OBJECTIVE, PICTURE, Call
from tests.clients.servers import RUN, Script, acollect, serving

MADE: list[tuple[str, str]] = []


def refuse(request: Any, context: Any) -> Any:
    metadata = dict(context.invocation_metadata())
    MADE.append((metadata.get(ON_BEHALF_OF, ""), metadata.get(REQUEST_ID, "")))
    raise InvalidInput("refused")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server that notes for whom every call is made, and refuses it."""
    with serving(dict.fromkeys((FEATURE, STYLIZE, TRAIN, EMBED, RUN), Script([refuse]))) as server:
        yield f"127.0.0.1:{server.port}"


@pytest.fixture
async def client(address: str) -> AsyncIterator[gramlet.AsyncClient]:
    MADE.clear()
    async with gramlet.AsyncClient(address) as client:
        yield client


@pytest.fixture(autouse=True)
def context() -> Iterator[None]:
    """The test's own context, and what was there before."""
    name, number = gramlet.on_behalf_of.set("dave"), gramlet.request_id.set("first")
    yield
    gramlet.on_behalf_of.reset(name)
    gramlet.request_id.reset(number)


def another() -> None:
    """What the caller does next."""
    gramlet.on_behalf_of.set("carol")
    gramlet.request_id.set("second")


@pytest.mark.parametrize("call", MANY.values(), ids=MANY)
async def test_an_iterator_calls_for_the_name_at_its_call(client: gramlet.AsyncClient, call: Call) -> None:
    values = call(client)
    another()
    with pytest.raises(InvalidInput):
        await acollect(values)
    assert set(MADE) == {("dave", "first")}
    assert (gramlet.on_behalf_of.get(), gramlet.request_id.get()) == ("carol", "second")


async def test_watching_a_run_and_differentiating_too(client: gramlet.AsyncClient) -> None:
    events, differentiation = client.run("run").watch(), client.differentiate(OBJECTIVE)
    another()
    with pytest.raises(InvalidInput):
        await acollect(events)
    with pytest.raises(InvalidInput):
        await differentiation.evaluate(PICTURE)
    assert set(MADE) == {("dave", "first")}


@pytest.mark.parametrize("name", ["", "a:b", "é", "x" * 65, 3])
@pytest.mark.parametrize("call", [MANY["stylize"], MANY["runs"]])
async def test_what_is_no_name_is_refused_here(client: gramlet.AsyncClient, call: Call, name: Any) -> None:
    gramlet.on_behalf_of.set(name)
    with pytest.raises(InvalidInput, match=r"^on_behalf_of: must be 1 to 64 letters"):
        call(client)
    with pytest.raises(InvalidInput, match=r"^on_behalf_of: "):
        await client.heads()
    assert not MADE


async def test_what_is_no_request_id_is_refused_here(client: gramlet.AsyncClient) -> None:
    gramlet.request_id.set("é")
    with pytest.raises(InvalidInput, match=r"^request_id: "):
        await client.heads()


async def test_without_a_name_it_is_the_tokens_own(client: gramlet.AsyncClient) -> None:
    gramlet.on_behalf_of.set(None)
    with pytest.raises(InvalidInput, match="refused"):
        await client.heads()
    assert MADE == [("", "first")]


@pytest.mark.parametrize(
    ("name", "call"),
    {
        "sise": lambda client: client.stylize(PICTURE, PICTURE, sise=3),
        "iteration": lambda client: client.sweep(PICTURE, PICTURE, iteration=3),
        "patchs": lambda client: client.see("layer3", 1, patchs=3),
        "stage": lambda client: client.features([PICTURE], stage=["conv1"]),
        "perplex": lambda client: client.embed([PICTURE], perplex=3),
        "methodd": lambda client: client.relayout_map("map", methodd="pca"),
        "epoch": lambda client: client.train({"a": [PICTURE]}, name="bees", epoch=3),
        "presset": lambda client: client.stylize_set([PICTURE], PICTURE, presset="fast"),
    }.items(),
)
async def test_a_misspelt_setting_is_an_invalid_call(client: gramlet.AsyncClient, name: str, call: Call) -> None:
    with pytest.raises(gramlet.InvalidCall, match=f"^{name}: there is no such option"):
        await acollect(call(client))


def raising(*first: Any) -> Any:
    """An iterator of the caller's that fails after some values."""
    yield from first
    raise KeyError("mine")


class RaisingMapping(dict[str, Any]):
    """A mapping of the caller's that fails."""

    def items(self) -> Any:
        return raising(("a", [PICTURE]))


@pytest.mark.parametrize(
    ("field", "call"),
    [
        ("pictures", lambda client: client.see("layer3", 1, raising(PICTURE))),
        ("channels", lambda client: client.see("layer3", raising(PICTURE))),
        ("items", lambda client: client.embed(raising(PICTURE))),
        ("labels", lambda client: client.embed([PICTURE], labels=raising(PICTURE))),
        ("items", lambda client: client.transform("map", raising(PICTURE))),
        ("pictures", lambda client: client.train(raising(PICTURE), name="bees")),
        ("pictures", lambda client: client.train(RaisingMapping(), name="bees")),
        ("pictures[a]", lambda client: client.train({"a": raising(PICTURE)}, name="bees")),
        ("pictures", lambda client: client.resume_training("run", raising(PICTURE))),
        ("style", lambda client: client.stylize(PICTURE, raising(PICTURE))),
        ("style_stages", lambda client: client.stylize(PICTURE, PICTURE, style_stages=raising(PICTURE))),
        ("pictures", lambda client: client.stylize_set(raising(), PICTURE)),
        ("optimizers", lambda client: client.compare_optimizers(PICTURE, PICTURE, optimizers=raising(PICTURE))),
        ("ratios", lambda client: client.sweep(PICTURE, PICTURE, ratios=raising(PICTURE))),
        ("pictures", lambda client: client.features(raising(PICTURE), stages=["conv1"])),
        ("stages", lambda client: client.features([PICTURE], stages=raising(PICTURE))),
        ("pictures", lambda client: client.predict("bees", raising(PICTURE))),
    ],
)
async def test_what_an_iterator_raises_is_an_invalid_input(client: gramlet.AsyncClient, field: str, call: Call) -> None:
    with pytest.raises(InvalidInput, match="cannot be read: 'mine'") as failure:
        await acollect(call(client))
    assert failure.value.field == field
    assert isinstance(failure.value.__cause__, KeyError)


async def test_a_closed_file_is_an_invalid_input(client: gramlet.AsyncClient) -> None:
    file = BytesIO(b"1")
    file.close()
    with pytest.raises(InvalidInput, match=r"^pictures: cannot be read: I/O operation on closed file"):
        await acollect(client.resume_training("run", file))


async def test_errors_of_gramlet_come_out_of_iterators_as_they_are(client: gramlet.AsyncClient) -> None:
    def failing() -> Any:
        yield PICTURE
        raise gramlet.NotFound("no such folder")

    with pytest.raises(gramlet.NotFound, match="no such folder"):
        await acollect(client.train(failing(), name="bees"))


async def test_the_environment_names_server_and_token(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []

    def answer(request: Any, context: Any) -> Any:
        sent.append(dict(context.invocation_metadata()).get("authorization", ""))
        raise InvalidInput("refused")

    with serving({TRAIN: Script([answer])}) as server:
        monkeypatch.setenv("GRAMLET_SERVER", f"127.0.0.1:{server.port}")
        monkeypatch.setenv("GRAMLET_TOKEN", " secret\n")
        for options in ({}, {"token": "other"}, {"token": ""}):
            async with gramlet.AsyncClient(**options) as client:
                with pytest.raises(InvalidInput, match="refused"):
                    await client.heads()
    assert sent == ["Bearer secret", "Bearer other", ""]
    monkeypatch.setenv("GRAMLET_TOKEN", "two words")
    with pytest.raises(InvalidInput, match=r"^GRAMLET_TOKEN: "):
        gramlet.AsyncClient()
