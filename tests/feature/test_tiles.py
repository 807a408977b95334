"""Tiles change neither targets nor losses nor gradients, and leave no seam."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random
from unittest.mock import patch

import numpy as np
import pytest
import torch
from gramlet.errors import Cancelled, InvalidInput
from gramlet.feature.types import GramNormalization, Objective, StageBalance, Style
from gramlet.types import Array
from gramlet_server.backbone import load_network
from gramlet_server.backbone.architecture import ARCHITECTURES
from gramlet_server.feature import tiles
from gramlet_server.feature.engine import Engine, EngineSettings
from gramlet_server.feature.tiles import cut
from gramlet_server.telemetry import Observer

HEIGHT, WIDTH = 21, 470


def picture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> Array:
    return np.random.default_rng(seed).random((3, height, width), dtype=np.float32)


def strip(start: int, stop: int) -> Array:
    mask = np.zeros((HEIGHT, WIDTH), np.float32)
    mask[:, start:stop] = 1
    return mask


PLAIN = (Style(picture(2, 20, 420), 2.0), Style(picture(3, 32, 32)))
MASKED = (
    Style(PLAIN[0].picture, 1.0, strip(0, 200), strip(0, 100)[:20, :420]),
    Style(PLAIN[1].picture, 1.0, strip(150, 401)),
)


def objective(stages: list[str], styles: tuple[Style[Array], ...] = PLAIN, antialiased: bool = False) -> Objective:
    return Objective(
        content=picture(1),
        content_stage=stages[-1],
        content_weight=0.5,
        styles=styles,
        style_stages=dict.fromkeys(stages, 1.0),
        style_weight=10.0,
        total_variation_weight=0.1,
        gram_normalization=GramNormalization.POSITIONS,
        stage_balance=StageBalance.CONTENT,
        antialiased=antialiased,
    )


@pytest.fixture(scope="module", params=["resnet50", "vgg16"])
def backbone(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def engines(backbone: str, engine: Engine) -> Iterator[tuple[Engine, Engine]]:
    """One engine that computes pictures as a whole, and one that computes them in tiles."""
    network = engine.network if backbone == "resnet50" else load_network(backbone, "random:0", "cpu")
    whole, tiled = Engine(network), Engine(network, EngineSettings(tile_pixels=HEIGHT * 250))
    yield whole, tiled
    whole.close()
    tiled.close()


OBJECTIVES = {
    "resnet50": {
        "plain": objective(["conv1", "maxpool", "layer1", "layer2"]),
        "antialiased": objective(["conv1", "maxpool", "layer1", "layer2"], antialiased=True),
        "masked": objective(["maxpool", "layer2"], MASKED, antialiased=True),
        "content alone": replace(objective(["layer2"]), style_weight=0.0),
        "raw": replace(objective(["layer1"]), gram_normalization=GramNormalization.NONE, content_weight=0.0),
    },
    "vgg16": {
        "plain": objective(["relu1_1", "relu2_1", "relu3_1", "pool3", "relu4_2"]),
        "masked": objective(["relu1_1", "relu3_1", "relu4_2"], MASKED),
    },
}


def test_the_loss_and_the_gradient_in_tiles_equal_those_of_the_whole_picture(
    backbone: str, engines: tuple[Engine, Engine]
) -> None:
    x = picture(5)
    whole, tiled = engines
    for name, each in OBJECTIVES[backbone].items():
        stages = list(each.style_stages)
        assert len(tiled.passes.tiles(x, stages, each.antialiased)) > 2, name
        with whole.differentiate(each) as d:
            expected = d.evaluate(x)
        with tiled.differentiate(each) as d:
            found = d.evaluate(x)
        assert found.stage_losses == pytest.approx(dict(expected.stage_losses), rel=1e-4), name
        assert found.loss == pytest.approx(expected.loss, rel=1e-4), name
        assert found.content_loss == pytest.approx(expected.content_loss, rel=1e-4), name
        assert found.total_variation_loss == pytest.approx(expected.total_variation_loss, rel=1e-5), name
        scale = np.sqrt(np.mean(expected.gradient**2))
        difference = found.gradient - expected.gradient
        assert np.sqrt(np.mean(difference**2)) < 1e-3 * scale, name
        # Rounding may decide whether a unit near zero is active, which single pixels show. A wrong border shows more.
        assert np.abs(difference).max() < 0.05 * scale, name


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("antialiased", [False, True])
def test_every_position_is_in_one_core_and_its_receptive_field_within_the_halo(name: str, antialiased: bool) -> None:
    architecture = ARCHITECTURES[name]
    stages = ["conv1", "layer3"] if name == "resnet50" else ["relu1_1", "pool3", "relu5_1"]
    height, width = 1001, 1437
    tiles = cut(architecture, height, width, stages, antialiased, 500_000)
    assert max(tile.pixels for tile in tiles) <= 500_000
    for stage in stages:
        _, rows, columns = architecture.activation_shape(stage, height, width, antialiased)
        times = np.zeros((rows, columns), int)
        stride, reach = architecture.stride(stage, antialiased), architecture.reach(stage, antialiased)
        for tile in tiles:
            times[tile.positions(stage)] += 1
            for span, sees in zip((tile.rows, tile.columns), tile.positions(stage), strict=True):
                length = height if span is tile.rows else width
                assert span.whole.start <= max(0, sees.start * stride - reach)
                assert span.whole.stop >= min(length, sees.stop * stride + reach)
        assert (times == 1).all()


def test_grids_that_are_alike_are_compared_once() -> None:
    # 512 numbers of cores for each side; with every pair of them this took half a minute under the interpreter's lock.
    architecture = ARCHITECTURES["resnet50"]
    with patch.object(tiles, "_grid", wraps=tiles._grid) as made:
        found = cut(architecture, 2048, 2048, ["conv1"], False, 2_097_152)
    assert max(tile.pixels for tile in found) <= 2_097_152
    assert made.call_count <= 2 * 64


def test_a_grid_knows_the_lengths_of_its_spans() -> None:
    random = Random(0)
    for _ in range(300):
        length, step, halo = random.randint(1, 500), random.choice([1, 2, 8]), random.choice([0, 4, 48])
        for grid in tiles._grids(length, halo, step):
            lengths = [span.whole.stop - span.whole.start for span in tiles._spans(length, grid.core, halo)]
            assert (grid.longest, grid.total) == (max(lengths), sum(lengths)), (length, grid.core, halo)


@pytest.mark.parametrize(("height", "width"), [(1, 4_000_000), (8, 500_000), (500_000, 8)])
def test_a_sliver_of_millions_of_pixels_is_cut_without_making_all_its_grids(height: int, width: int) -> None:
    # The spans of all grids were made, 15 million for the first of these: minutes under the interpreter's lock.
    architecture = ARCHITECTURES["resnet50"]
    with (
        patch.object(tiles, "_grid", wraps=tiles._grid) as made,
        patch.object(tiles, "Span", wraps=tiles.Span) as spans,
    ):
        found = cut(architecture, height, width, ["conv1", "layer1"], False, 2_097_152)
    assert len(found) <= 4
    assert made.call_count < 5000
    assert spans.call_count <= 2 * len(found)


@pytest.mark.parametrize("antialiased", [False, True])
def test_the_reach_is_the_radius_of_the_receptive_field(engine: Engine, antialiased: bool) -> None:
    architecture, network = ARCHITECTURES["resnet50"], engine.network
    for stage in ("conv1", "maxpool", "layer1", "layer2"):
        x = torch.rand(1, 3, 32, 256, generator=torch.Generator().manual_seed(0)).requires_grad_()
        found = network.activations(x, [stage], antialiased=antialiased)[stage]
        stride, reach = architecture.stride(stage, antialiased), architecture.reach(stage, antialiased)
        at = 128 // stride
        (gradient,) = torch.autograd.grad(found[0, :, :, at].square().sum(), x)
        seen = gradient.abs().amax((0, 1, 2)).nonzero().squeeze(1)
        assert 128 - reach <= int(seen.min())
        assert int(seen.max()) <= 128 + stride - 1 + reach
        assert max(128 - int(seen.min()), int(seen.max()) - 127 - stride) == reach


def test_a_stage_that_sees_the_whole_picture_is_refused_in_tiles(engine: Engine) -> None:
    tiled = Engine(engine.network, EngineSettings(tile_pixels=HEIGHT * 250))
    with pytest.raises(InvalidInput, match="tiles"), tiled.differentiate(objective(["avgpool"])):
        pass
    tiled.close()


def test_closing_ends_an_evaluation_between_two_tiles(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gramlet_server.feature.steps.TURN_SECONDS", 0.0)  # a turn of one tile, however fast

    class CloseAfterTwoGradients(Observer):
        passes = 0

        def batch(self, kind: str, pictures: int, device_seconds: float) -> None:
            self.passes += kind == "gradient"
            if self.passes == 2:
                differentiation.close()

    observer = CloseAfterTwoGradients()
    tiled = Engine(engine.network, EngineSettings(tile_pixels=HEIGHT * 250), observer=observer)
    tiles = len(tiled.passes.tiles(picture(5), ["layer2"], False))
    with tiled.differentiation() as differentiation:
        differentiation.replace(objective(["layer2"]))
        with pytest.raises(Cancelled):
            differentiation.evaluate(picture(5))
    assert 2 <= observer.passes < 2 * tiles
    tiled.close()
