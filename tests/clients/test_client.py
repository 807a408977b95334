"""Both clients against the real services."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gramlet
import numpy as np
import pytest
from gramlet import Adjusted, Extraction, Form, GramletError, Iteration, Objective, Preview, Result, Started, Style
from gramlet.health import FEATURE, STYLIZE, TRAIN
from gramlet.tensor import parts
from gramlet_server.feature.engine import Engine
from gramlet_server.remote_features import RemoteFeatures
from PIL import Image

OBJECTIVE: dict[str, Any] = {"content_stage": "layer1", "content_weight": 1.0, "style_stages": {"conv1": 1.0}}


@pytest.fixture
def client(address: str) -> Any:
    with gramlet.Client(address) as client:
        yield client


@pytest.fixture
async def async_client(address: str) -> AsyncIterator[gramlet.AsyncClient]:
    async with gramlet.AsyncClient(address) as client:
        yield client


def floats(pixels: Any) -> Any:
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32) / 255


async def test_both_clients_see_the_model_of_the_engine(
    client: gramlet.Client, async_client: gramlet.AsyncClient, engine: Engine
) -> None:
    digest = engine.model().weights_digest
    assert client.model().weights_digest == digest
    assert (await async_client.model()).weights_digest == digest


async def test_features_of_one_picture_are_those_of_the_engine(
    client: gramlet.Client, async_client: gramlet.AsyncClient, engine: Engine, picture: Path, pixels: Any
) -> None:
    extraction = Extraction(("conv1", "layer1"), (Form.ACTIVATIONS, Form.GRAM, Form.POOLED))
    expected = next(iter(engine.extract([pixels], extraction)))
    assert not isinstance(expected, GramletError)
    options: Any = {"stages": ["conv1", "layer1"], "activations": True, "gram": True, "pooled": True}
    for features in (client.features(picture, **options), await async_client.features(picture, **options)):
        assert (features.height, features.width) == (64, 48)
        for form in ("activations", "grams", "pooled"):
            assert getattr(features, form).keys() == {"conv1", "layer1"}
            for stage, values in getattr(features, form).items():
                np.testing.assert_allclose(values, getattr(expected, form)[stage], rtol=1e-4, atol=1e-5)


async def test_of_many_pictures_the_bad_ones_are_values_in_their_places(
    client: gramlet.Client, async_client: gramlet.AsyncClient, pixels: Any, png: bytes
) -> None:
    many = [pixels, "/nowhere.jpg", b"no picture", *[png] * 30]

    async def one_by_one() -> AsyncIterator[Any]:
        for picture in many:
            yield picture

    options: Any = {"stages": "avgpool", "pooled": True, "resize": 64}
    kinds = [gramlet.Features, gramlet.NotFound, gramlet.InvalidInput, *[gramlet.Features] * 30]
    for outcomes in (
        list(client.features(iter(many), **options)),
        [outcome async for outcome in async_client.features(many, **options)],
        [outcome async for outcome in async_client.features(one_by_one(), **options)],
    ):
        assert [type(outcome) for outcome in outcomes] == kinds
        assert [outcome.field for outcome in outcomes[1:3]] == ["pictures[1]", "pictures[2]"]
        assert outcomes[3].pooled["avgpool"].shape == (2048,)


async def test_of_one_picture_the_error_is_raised(client: gramlet.Client, async_client: gramlet.AsyncClient) -> None:
    for bad, error in (("/nowhere.jpg", gramlet.NotFound), (b"no picture", gramlet.InvalidInput)):
        with pytest.raises(error):
            client.features(bad, stages="conv1")
        with pytest.raises(error):
            await async_client.features(bad, stages="conv1")


async def test_an_unknown_stage_is_raised_for_many_as_for_one(
    client: gramlet.Client, async_client: gramlet.AsyncClient, png: bytes
) -> None:
    with pytest.raises(gramlet.InvalidInput, match="layer9"):
        client.features(png, stages="layer9")
    with pytest.raises(gramlet.InvalidInput, match="layer9"):
        next(client.features([png], stages="layer9"))
    with pytest.raises(gramlet.InvalidInput, match="layer9"):
        await anext(async_client.features([png], stages="layer9"))


def test_no_pictures_give_no_features(client: gramlet.Client) -> None:
    assert list(client.features([], stages="conv1")) == []


def test_an_error_of_the_callers_own_iterable_reaches_the_caller(client: gramlet.Client, png: bytes) -> None:
    def pictures() -> Any:
        yield png
        raise gramlet.Unavailable("mine")

    with pytest.raises(gramlet.Unavailable, match=r"^mine$"):
        list(client.features(pictures(), stages="conv1"))


def test_pictures_are_taken_only_a_window_ahead(client: gramlet.Client, png: bytes) -> None:
    taken = 0

    def endless() -> Any:
        nonlocal taken
        while True:
            taken += 1
            yield png

    outcomes = client.extract(endless(), Extraction(("conv1",), (Form.POOLED,)), in_flight=4)
    for _ in range(6):
        next(outcomes)
    assert taken <= 6 + 4


@pytest.mark.parametrize("part_bytes", [None, 1000], ids=["whole", "in parts"])
async def test_losses_and_gradients_are_those_of_the_engine(
    client: gramlet.Client,
    async_client: gramlet.AsyncClient,
    engine: Engine,
    pixels: Any,
    png: bytes,
    part_bytes: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if part_bytes:
        monkeypatch.setattr(parts, "WHOLE_BYTES", part_bytes)
        monkeypatch.setattr(parts, "PART_BYTES", part_bytes)
    style = floats(pixels)[:, ::-1].copy()
    mask = np.tri(64, 48, dtype=np.float32)
    styles = (Style(style, 1.0, mask), Style(style[:, :40], 2.0, None, mask[:40]))
    objective = Objective(content=floats(pixels), styles=styles, style_weight=2.0, **OBJECTIVE)
    as_file = Style(style, 1.0, Image.fromarray(mask == 1))
    encoded = Objective(content=png, styles=(as_file, styles[1]), style_weight=2.0, **OBJECTIVE)  # type: ignore[arg-type]
    x = np.random.default_rng(5).random((3, 64, 48), dtype=np.float32)
    with engine.differentiate(objective) as local:
        expected = local.evaluate(x)
    with client.differentiate(encoded) as session:
        evaluations = [session.evaluate(x)]
        assert session.weights_digest == engine.model().weights_digest
        assert session.reconnects == 0
    async with async_client.differentiate(objective) as session_:
        evaluations.append(await session_.evaluate(x))
    for evaluation in evaluations:
        assert evaluation.loss == pytest.approx(expected.loss, rel=1e-5)
        assert evaluation.stage_losses == pytest.approx(dict(expected.stage_losses), rel=1e-5)
        np.testing.assert_allclose(evaluation.gradient, expected.gradient, rtol=1e-3, atol=1e-9)


async def test_an_objective_can_be_replaced_and_a_wrong_one_leaves_the_old(
    client: gramlet.Client, async_client: gramlet.AsyncClient, pixels: Any
) -> None:
    x = floats(pixels)
    objective = Objective(content=x * 0.5, **OBJECTIVE)
    double = Objective(content=x * 0.5, **(OBJECTIVE | {"content_weight": 2.0}))
    wrong = Objective(content=x, **(OBJECTIVE | {"content_stage": "layer9"}))
    with client.differentiate(objective) as session:
        losses = [session.evaluate(x).loss]
        session.replace(double)
        losses.append(session.evaluate(x).loss)
        with pytest.raises(gramlet.InvalidInput, match="layer9"):
            session.replace(wrong)
        losses.append(session.evaluate(x).loss)
    async with async_client.differentiate(objective) as session_:
        await session_.replace(double)
        losses.append((await session_.evaluate(x)).loss)
    assert np.array(losses[1:]) / losses[0] == pytest.approx([2.0, 2.0, 2.0])


def test_a_wrong_objective_is_raised_on_entering(client: gramlet.Client, pixels: Any) -> None:
    objective = Objective(content=floats(pixels), **(OBJECTIVE | {"content_stage": "layer9"}))
    with pytest.raises(gramlet.InvalidInput, match="layer9"), client.differentiate(objective):
        pass


async def test_a_stylization_tells_every_iteration_and_ends_with_the_picture(
    client: gramlet.Client, async_client: gramlet.AsyncClient, picture: Path, pixels: Any, tmp_path: Path
) -> None:
    options: Any = {"size": 64, "iterations": 6, "preview_every": 3}
    events = list(client.stylize(picture, Image.fromarray(pixels // 2), **options))
    other = [event async for event in async_client.stylize(picture, pixels // 2, **options)]
    for told in (events, other):
        assert isinstance(told[0], Started)
        assert [event.iteration for event in told if isinstance(event, Iteration)] == [1, 2, 3, 4, 5, 6]
        assert len({event.run_id for event in told}) == 1
        result = told[-1]
        assert isinstance(result, Result)
        assert result.image.size == (48, 64)
        assert result.loss < told[1].loss
    assert events[-1].png == other[-1].png  # type: ignore[attr-defined]
    previews = [event for event in events if isinstance(event, Preview)]
    assert all(preview.image.size == (48, 64) for preview in previews)
    events[-1].save(tmp_path / "out.png")  # type: ignore[attr-defined]
    events[-1].save(tmp_path / "out.jpg")  # type: ignore[attr-defined]
    assert (tmp_path / "out.png").read_bytes() == events[-1].png  # type: ignore[attr-defined]
    assert (tmp_path / "out.jpg").read_bytes()[:2] == b"\xff\xd8"


async def test_result_runs_to_the_end(client: gramlet.Client, async_client: gramlet.AsyncClient, png: bytes) -> None:
    assert client.stylize(png, png, size=64, iterations=1).result().iteration == 1
    assert (await async_client.stylize(png, png, size=64, iterations=1).result()).iteration == 1


async def test_a_run_that_was_left_can_be_resumed(
    client: gramlet.Client, async_client: gramlet.AsyncClient, png: bytes
) -> None:
    whole = client.stylize(png, png, size=64, iterations=12, initial="noise").result()
    with client.stylize(png, png, size=64, iterations=12, initial="noise", checkpoint_every=2) as events:
        run_id = next(event.run_id for event in events if event.iteration >= 7)
    resumed = [event async for event in async_client.resume(run_id)]
    assert isinstance(resumed[0], Started)
    assert resumed[0].iteration in (6, 7, 8)
    assert isinstance(resumed[-1], Result)
    assert resumed[-1].png == whole.png


async def test_a_running_stylization_is_adjusted(
    client: gramlet.Client, async_client: gramlet.AsyncClient, png: bytes
) -> None:
    with client.stylize(png, png, size=64, iterations=5000) as run:
        next(run)
        assert run.adjust(content_weight=5.0).content_weight == 5.0
        assert client.adjust(run.run_id, style_stages=["conv1"]).content_weight == 5.0
        settings = run_until_adjusted(run, changes=2)
        assert (settings.style_stages or {})["conv1"] == 1.0
        async with async_client.resume(run.run_id) as other:
            await anext(other)
            assert (await other.adjust(style_weight=7.0)).style_weight == 7.0
            assert (await async_client.adjust(other.run_id, total_variation_weight=0.5)).style_weight == 7.0
    with pytest.raises(gramlet.NotFound):
        client.adjust("nobodys", content_weight=1.0)


def run_until_adjusted(run: gramlet.Stylizing, changes: int) -> gramlet.StylizeSettings:
    """The settings after so many changes."""
    return next(event.settings for event in run if isinstance(event, Adjusted) and event.number == changes)


def test_inputs_are_checked_before_the_call_is_made(png: bytes) -> None:
    with gramlet.Client("localhost:1") as client:
        for wrong in ({"content": "/nowhere.jpg"}, {"style": []}, {"size": 0}, {"initial": "/nowhere.jpg"}):
            arguments: Any = {"content": png, "style": png} | wrong
            with pytest.raises((gramlet.InvalidInput, gramlet.NotFound)):
                client.stylize(**arguments)
        with pytest.raises(gramlet.InvalidInput, match="stages"):
            client.features([], stages=[])


async def test_status_tells_what_is_served(client: gramlet.Client, async_client: gramlet.AsyncClient) -> None:
    for status in (client.status(), await async_client.status()):
        assert status.health[FEATURE] is gramlet.Health.SERVING
        assert status.health[STYLIZE] is gramlet.Health.SERVING
        assert status.health[TRAIN] is gramlet.Health.NOT_OFFERED
        assert status.model is not None
        assert status.model.backbone == "resnet50"
        assert status.stylize is not None
        assert "classic" in status.stylize.presets


async def test_status_of_nobody_is_an_error_at_once() -> None:
    with gramlet.Client("127.0.0.1:1") as client, pytest.raises(gramlet.Unavailable, match="no server at"):
        client.status()
    async with gramlet.AsyncClient("127.0.0.1:1") as async_client:
        with pytest.raises(gramlet.Unavailable, match="no server at"):
            await async_client.status()


def test_a_remote_source_is_a_source_like_the_engine(address: str, engine: Engine, pixels: Any) -> None:
    source = RemoteFeatures(gramlet.Client(address))
    assert source.address == address
    assert source.model().weights_digest == engine.model().weights_digest
    extraction = Extraction(("layer1",), (Form.GRAM,))
    outcomes = list(source.extract([pixels, b"no picture"], extraction))
    assert [type(outcome) for outcome in outcomes] == [gramlet.Features, gramlet.InvalidInput]
    objective = Objective(content=floats(pixels) * 0.5, **OBJECTIVE)
    with source.differentiate(objective) as remote, engine.differentiate(objective) as local:
        x = floats(pixels)
        assert remote.evaluate(x).loss == pytest.approx(local.evaluate(x).loss, rel=1e-5)
        assert remote.reconnects == 0
    source.close()
