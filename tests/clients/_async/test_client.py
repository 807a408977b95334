"""The client against the real services."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gramlet
import numpy as np
import pytest
from gramlet import (
    Adjusted,
    Checkpoint,
    Extraction,
    Form,
    GramletError,
    Iteration,
    Objective,
    Preview,
    Result,
    Started,
    Style,
)
from gramlet.health import EMBED, FEATURE, STYLIZE, TRAIN
from gramlet.tensor import parts
from gramlet_server.feature.engine import Engine
from PIL import Image

from tests.clients.servers import Script, acollect, serving

OBJECTIVE: dict[str, Any] = {"content_stage": "layer1", "content_weight": 1.0, "style_stages": {"conv1": 1.0}}


def floats(pixels: Any) -> Any:
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32) / 255


async def test_the_model_is_that_of_the_engine(client: gramlet.AsyncClient, engine: Engine) -> None:
    assert (await client.model()).weights_digest == engine.model().weights_digest


async def test_features_of_one_picture_are_those_of_the_engine(
    client: gramlet.AsyncClient, engine: Engine, picture: Path, pixels: Any
) -> None:
    extraction = Extraction(("conv1", "layer1"), (Form.ACTIVATIONS, Form.GRAM, Form.POOLED))
    expected = next(iter(engine.extract([pixels], extraction)))
    assert not isinstance(expected, GramletError)
    features = await client.features(picture, stages=["conv1", "layer1"], activations=True, gram=True, pooled=True)
    assert (features.height, features.width) == (64, 48)
    for form in ("activations", "grams", "pooled"):
        assert getattr(features, form).keys() == {"conv1", "layer1"}
        for stage, values in getattr(features, form).items():
            np.testing.assert_allclose(values, getattr(expected, form)[stage], rtol=1e-4, atol=1e-5)


async def test_of_many_pictures_the_bad_ones_are_values_in_their_places(
    client: gramlet.AsyncClient, pixels: Any, png: bytes
) -> None:
    many = [pixels, "/nowhere.jpg", b"no picture", *[png] * 30]

    async def one_by_one() -> AsyncIterator[Any]:
        for picture in many:
            yield picture

    kinds = [gramlet.Features, gramlet.NotFound, gramlet.InvalidInput, *[gramlet.Features] * 30]
    for pictures in (many, iter(many), one_by_one()):
        outcomes: Any = await acollect(client.features(pictures, stages="avgpool", pooled=True, resize=64))
        assert [type(outcome) for outcome in outcomes] == kinds
        assert [outcome.field for outcome in outcomes[1:3]] == ["pictures[1]", "pictures[2]"]
        assert outcomes[3].pooled["avgpool"].shape == (2048,)


async def test_of_one_picture_the_error_is_raised(client: gramlet.AsyncClient) -> None:
    with pytest.raises(gramlet.NotFound):
        await client.features("/nowhere.jpg", stages="conv1")
    with pytest.raises(gramlet.InvalidInput):
        await client.features(b"no picture", stages="conv1")


async def test_an_unknown_stage_is_raised_for_many_as_for_one(client: gramlet.AsyncClient, png: bytes) -> None:
    with pytest.raises(gramlet.InvalidInput, match="layer9"):
        await client.features(png, stages="layer9")
    with pytest.raises(gramlet.InvalidInput, match="layer9"):
        await anext(client.features([png], stages="layer9"))


async def test_no_pictures_give_no_features(client: gramlet.AsyncClient) -> None:
    assert await acollect(client.features([], stages="conv1")) == []


async def test_an_error_of_the_callers_own_iterable_reaches_the_caller(client: gramlet.AsyncClient, png: bytes) -> None:
    def pictures() -> Any:
        yield png
        raise gramlet.Unavailable("mine")

    with pytest.raises(gramlet.Unavailable, match=r"^mine$"):
        await acollect(client.features(pictures(), stages="conv1"))


async def test_pictures_are_taken_only_a_window_ahead(client: gramlet.AsyncClient, png: bytes) -> None:
    taken = 0

    def endless() -> Any:
        nonlocal taken
        while True:
            taken += 1
            yield png

    outcomes = client.extract(endless(), Extraction(("conv1",), (Form.POOLED,)), in_flight=4)
    for _ in range(6):
        await anext(outcomes)
    assert taken <= 6 + 4


@pytest.mark.parametrize("part_bytes", [None, 1000], ids=["whole", "in parts"])
async def test_losses_and_gradients_are_those_of_the_engine(
    client: gramlet.AsyncClient,
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
    for given in (encoded, objective):
        async with client.differentiate(given) as differentiation:
            evaluation = await differentiation.evaluate(x)
            assert differentiation.weights_digest == engine.model().weights_digest
            assert differentiation.reconnects == 0
        assert evaluation.loss == pytest.approx(expected.loss, rel=1e-5)
        assert evaluation.stage_losses == pytest.approx(dict(expected.stage_losses), rel=1e-5)
        np.testing.assert_allclose(evaluation.gradient, expected.gradient, rtol=1e-3, atol=1e-9)


async def test_an_objective_can_be_replaced_and_a_wrong_one_leaves_the_old(
    client: gramlet.AsyncClient, pixels: Any
) -> None:
    x = floats(pixels)
    objective = Objective(content=x * 0.5, **OBJECTIVE)
    double = Objective(content=x * 0.5, **(OBJECTIVE | {"content_weight": 2.0}))
    wrong = Objective(content=x, **(OBJECTIVE | {"content_stage": "layer9"}))
    async with client.differentiate(objective) as differentiation:
        first = (await differentiation.evaluate(x)).loss
        await differentiation.replace(double)
        second = (await differentiation.evaluate(x)).loss
        with pytest.raises(gramlet.InvalidInput, match="layer9"):
            await differentiation.replace(wrong)
        third = (await differentiation.evaluate(x)).loss
    assert np.array([second, third]) / first == pytest.approx([2.0, 2.0])


async def test_a_wrong_objective_is_raised_on_entering(client: gramlet.AsyncClient, pixels: Any) -> None:
    objective = Objective(content=floats(pixels), **(OBJECTIVE | {"content_stage": "layer9"}))
    with pytest.raises(gramlet.InvalidInput, match="layer9"):
        async with client.differentiate(objective):
            pass


async def test_a_stylization_reports_every_iteration_and_ends_with_the_picture(
    client: gramlet.AsyncClient, picture: Path, pixels: Any, tmp_path: Path
) -> None:
    style = Image.fromarray(pixels // 2)
    run = client.stylize(picture, style, size=64, iterations=6, preview_every=3, preview_side=32)
    events: list[Any] = await acollect(run)
    assert isinstance(events[0], Started)
    iterations = [event for event in events if isinstance(event, Iteration)]
    assert [event.iteration for event in iterations] == [1, 2, 3, 4, 5, 6]
    assert {event.run_id for event in events} == {run.run_id}
    previews = [event for event in events if isinstance(event, Preview)]
    assert [preview.image.size for preview in previews] == [(24, 32)] * len(previews)
    result = events[-1]
    assert isinstance(result, Result)
    assert result.image.size == (48, 64)
    assert result.loss < iterations[0].loss
    result.save(tmp_path / "out.png")
    result.save(tmp_path / "out.jpg")
    assert (tmp_path / "out.png").read_bytes() == result.png
    assert (tmp_path / "out.jpg").read_bytes()[:2] == b"\xff\xd8"
    again = await client.stylize(picture, pixels // 2, size=64, iterations=6).result()
    assert again.png == result.png


async def test_result_runs_to_the_end(client: gramlet.AsyncClient, png: bytes) -> None:
    assert (await client.stylize(png, png, size=64, iterations=1).result()).iteration == 1


async def test_a_run_that_was_left_can_be_resumed(client: gramlet.AsyncClient, png: bytes) -> None:
    # Many iterations: the first checkpoint waits until it is cheap for the time so far, and leaving takes a moment.
    whole = await client.stylize(png, png, size=64, iterations=60, initial="noise").result()
    run = client.stylize(png, png, size=64, iterations=60, initial="noise", state_seconds=1e-9)
    async with run as events:
        async for event in events:
            if isinstance(event, Checkpoint) and event.iteration:
                break
    resumed = await acollect(client.resume(run.run_id))
    assert isinstance(resumed[0], Started)
    assert resumed[0].iteration >= event.iteration
    assert isinstance(resumed[-1], Result)
    assert resumed[-1].png == whole.png


async def settings_after(run: gramlet.AsyncStylizing, changes: int) -> gramlet.StylizeSettings:
    """The settings after so many changes."""
    async for event in run:
        if isinstance(event, Adjusted) and event.number == changes:
            return event.settings
    raise AssertionError("the run has ended")


async def test_a_running_stylization_is_adjusted(client: gramlet.AsyncClient, png: bytes) -> None:
    async with client.stylize(png, png, size=64, iterations=5000) as run:
        await anext(run)
        assert (await run.adjust(content_weight=5.0)).content_weight == 5.0
        assert (await client.adjust(run.run_id, style_stages=["conv1"])).content_weight == 5.0
        settings = await settings_after(run, changes=2)
        assert (settings.style_stages or {})["conv1"] == 1.0
        async with client.resume(run.run_id) as other:
            await anext(other)
            assert (await other.adjust(style_weight=7.0)).style_weight == 7.0
            assert (await client.adjust(other.run_id, total_variation_weight=0.5)).style_weight == 7.0
    with pytest.raises(gramlet.NotFound):
        await client.adjust("nobodys", content_weight=1.0)


async def test_wrong_inputs_are_refused_without_a_server(png: bytes) -> None:
    async with gramlet.AsyncClient("localhost:1") as client:
        for wrong in ({"content": "/nowhere.jpg"}, {"style": []}, {"size": 0}, {"initial": "/nowhere.jpg"}):
            arguments: Any = {"content": png, "style": png} | wrong
            with pytest.raises((gramlet.InvalidInput, gramlet.NotFound)):
                await anext(client.stylize(**arguments))
        with pytest.raises(gramlet.InvalidInput, match="stages"):
            client.features([], stages=[])


async def test_status_says_what_is_served(client: gramlet.AsyncClient) -> None:
    status = await client.status()
    assert status.health[FEATURE] is gramlet.Health.SERVING
    assert status.health[STYLIZE] is gramlet.Health.SERVING
    assert status.health[TRAIN] is gramlet.Health.NOT_OFFERED
    assert status.model is not None
    assert status.model.backbone == "resnet50"
    assert status.stylize is not None
    assert "classic" in status.stylize.presets


async def test_status_says_why_a_service_does_not_serve() -> None:
    services = (STYLIZE, TRAIN, EMBED)

    def lack(report: Any) -> None:
        report(gramlet.Unavailable("the store fails"))

    with serving(dict.fromkeys(services, Script()), on_readiness=lack) as server:
        async with gramlet.AsyncClient(f"127.0.0.1:{server.port}") as client:
            status = await client.status()
    assert not status.is_serving
    assert [status.health[service] for service in services] == [gramlet.Health.NOT_SERVING] * 3
    assert status.reasons == dict.fromkeys(services, "the store fails")


async def test_status_without_a_server_is_an_error_at_once() -> None:
    async with gramlet.AsyncClient("127.0.0.1:1") as client:
        with pytest.raises(gramlet.Unavailable, match="no server at"):
            await client.status()
