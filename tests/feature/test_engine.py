"""The engine: features, losses and gradients, alone and in batches."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from gramlet.errors import GramletError, InvalidInput, Overloaded, Unavailable
from gramlet.feature.types import Extraction, Features, Form, GramNormalization, Objective, StageBalance, Style
from gramlet.types import Array, ElementType, Limits, Picture, Resize, ResizeMode
from gramlet_server.backbone import load_network
from gramlet_server.feature.engine import Engine, EngineSettings
from gramlet_server.feature.work import Batching
from gramlet_server.telemetry import Observer

from tests.e2e.cluster import wait_until
from tests.feature.gated_device import GatedDevice

ALL = Extraction(("conv1", "layer2", "avgpool"), (Form.ACTIVATIONS, Form.GRAM, Form.POOLED))


def picture(seed: int = 0, height: int = 48, width: int = 64) -> Array:
    return np.random.default_rng(seed).random((3, height, width), dtype=np.float32)


def features_of(engine: Engine, pictures: list[Picture | GramletError], extraction: Extraction) -> list[Features]:
    found = list(engine.extract(pictures, extraction))
    assert all(isinstance(each, Features) for each in found)
    return found  # type: ignore[return-value]


def test_every_form_follows_from_the_activations(engine: Engine) -> None:
    (found,) = features_of(engine, [picture()], ALL)
    assert {stage: f.shape for stage, f in found.activations.items()} == {
        "conv1": (64, 24, 32),
        "layer2": (512, 6, 8),
        "avgpool": (2048, 1, 1),
    }
    for stage, activations in found.activations.items():
        f = activations.reshape(len(activations), -1).astype(np.float64)
        np.testing.assert_allclose(found.grams[stage], f @ f.T, rtol=1e-4, atol=1e-4 * np.abs(f @ f.T).max())
        np.testing.assert_allclose(found.pooled[stage], f.mean(1), rtol=1e-4, atol=1e-5 * np.abs(f).max())


def test_a_bad_picture_in_a_batch_fails_alone_and_in_its_place(engine: Engine) -> None:
    pictures: list[Picture | GramletError] = [picture(0), b"no picture", InvalidInput("broken on the way"), picture(1)]
    extraction = Extraction(("layer1",), (Form.POOLED,))
    for found in (list(engine.extract(pictures, extraction)), engine.extract_together(pictures, extraction)):
        assert [type(each) for each in found] == [Features, InvalidInput, InvalidInput, Features]


def test_pictures_of_many_sizes_come_back_in_order(engine: Engine) -> None:
    sizes = [(32 + 8 * (i % 3), 40) for i in range(40)]
    pictures: list[Picture | GramletError] = [picture(i, *size) for i, size in enumerate(sizes)]
    found = features_of(engine, pictures, Extraction(("conv1",), (Form.POOLED,)))
    assert [(f.height, f.width) for f in found] == sizes
    for i in (0, 17, 39):
        (alone,) = features_of(engine, [pictures[i]], Extraction(("conv1",), (Form.POOLED,)))
        np.testing.assert_allclose(found[i].pooled["conv1"], alone.pooled["conv1"], rtol=1e-4, atol=1e-6)


def test_an_outcome_does_not_wait_for_the_next_picture(engine: Engine) -> None:
    more = threading.Event()

    def one_by_one() -> Iterator[Picture | GramletError]:
        yield picture(0)
        assert more.wait(30)
        yield picture(1)

    outcomes = engine.extract(one_by_one(), Extraction(("conv1",), (Form.POOLED,)))
    assert isinstance(next(outcomes), Features)
    more.set()
    assert isinstance(next(outcomes), Features)


@pytest.mark.parametrize(
    ("extraction", "field"),
    [
        (Extraction(()), "extraction.stages"),
        (Extraction(("conv1", "layer9")), "extraction.stages[1]"),
    ],
)
def test_a_wrong_extraction_names_its_field(engine: Engine, extraction: Extraction, field: str) -> None:
    with pytest.raises(InvalidInput) as error:
        engine.extract_together([picture()], extraction)
    assert error.value.field == field


def test_features_too_large_for_a_message_are_refused_before_any_work(engine: Engine) -> None:
    before = engine.model().load.device_seconds
    with pytest.raises(InvalidInput, match="ExtractStream"):
        engine.extract_together([picture(0, 512, 512)] * 4, Extraction(("conv1", "layer1"), (Form.ACTIVATIONS,)))
    (alone,) = engine.extract([picture(0, 1600, 1600)], Extraction(("conv1",)))
    assert isinstance(alone, InvalidInput)
    assert engine.model().load.device_seconds == before


def test_a_triangle_in_half_precision_takes_fewer_bytes(engine: Engine) -> None:
    whole = Extraction(("layer4",), (Form.GRAM,))
    small = replace(whole, triangle=True, element_type=ElementType.FLOAT16)
    pictures: list[Picture | GramletError] = [picture()] * 5
    with pytest.raises(InvalidInput):
        engine.extract_together(pictures, whole)
    assert len(engine.extract_together(pictures, small)) == 5


def test_pictures_are_resized_as_the_extraction_says(engine: Engine) -> None:
    extraction = Extraction(("conv1",), (Form.POOLED,), resize=Resize(ResizeMode.CENTER_CROP, 32))
    (found,) = features_of(engine, [picture(0, 50, 90)], extraction)
    assert (found.height, found.width) == (32, 32)


def test_a_vgg_says_when_a_picture_is_too_small() -> None:
    engine = Engine(load_network("vgg16", "random:0", "cpu"))
    (found,) = engine.extract([picture(0, 8, 8)], Extraction(("relu5_1",)))
    assert isinstance(found, InvalidInput)
    assert "too few" in found.message
    engine.close()


OBJECTIVE = Objective(
    content=picture(1),
    content_stage="layer2",
    content_weight=0.5,
    styles=(Style(picture(2, 40, 40), 1.0), Style(picture(3, 56, 32), 3.0)),
    style_stages={"maxpool": 1.0, "layer1": 2.0},
    style_weight=10.0,
    total_variation_weight=0.1,
    gram_normalization=GramNormalization.POSITIONS,
    stage_balance=StageBalance.CONTENT,
)


def test_the_gradient_is_the_slope_of_the_loss(engine: Engine) -> None:
    x = picture(5)
    with engine.differentiate(OBJECTIVE) as differentiation:
        at = differentiation.evaluate(x)
        direction = at.gradient * np.float32(1e-3 / np.abs(at.gradient).max())
        above, below = (differentiation.evaluate(x + sign * direction).loss for sign in (1, -1))
    assert (above - below) / 2 == pytest.approx(float((at.gradient * direction).sum()), rel=0.02)


def test_several_styles_add_up_to_the_weighted_losses_of_each(engine: Engine) -> None:
    plain = replace(OBJECTIVE, stage_balance=StageBalance.NONE, content_weight=0.0, total_variation_weight=0.0)
    x = picture(5)

    def style_loss(*styles: Style) -> float:
        with engine.differentiate(replace(plain, styles=styles)) as differentiation:
            return differentiation.evaluate(x).style_loss

    first, second = plain.styles
    together = style_loss(first, second)
    assert together == pytest.approx(0.25 * style_loss(first) + 0.75 * style_loss(second), rel=1e-4)


def test_an_objective_can_be_replaced_while_it_is_used(engine: Engine) -> None:
    x = picture(5)
    with engine.differentiate(OBJECTIVE) as differentiation:
        before = differentiation.evaluate(x)
        differentiation.replace(replace(OBJECTIVE, style_weight=20.0))
        assert differentiation.evaluate(x).style_loss == pytest.approx(2 * before.style_loss, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"content": None}, "content"),
        ({"content_stage": "layer9"}, "content_stage"),
        ({"styles": ()}, "styles"),
        ({"style_stages": {}}, "style_stages"),
        ({"style_stages": {"conv1": 1.0, "relu1_1": 1.0}}, "style_stages[1].stage"),
        ({"style_stages": {"conv1": float("nan")}}, "style_stages[0].weight"),
        ({"content_weight": 0.0, "content": None}, "content"),
        ({"style_weight": -1.0}, "style_weight"),
        ({"style_weight": 0.0, "content_weight": 0.0, "total_variation_weight": 0.0}, "style_weight"),
    ],
)
def test_a_wrong_objective_names_its_field(engine: Engine, change: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as error, engine.differentiate(replace(OBJECTIVE, **change)):  # type: ignore[arg-type]
        pass
    assert error.value.field == field


def test_a_picture_of_another_shape_than_the_content_is_refused(engine: Engine) -> None:
    with engine.differentiate(OBJECTIVE) as differentiation, pytest.raises(InvalidInput):
        differentiation.evaluate(picture(5, 32, 32))


def test_gradients_of_a_shared_pass_equal_those_of_single_passes() -> None:
    network = load_network("resnet50", "random:0", "cpu")
    together = Engine(network, EngineSettings(batch_gradients=True))
    single = Engine(network)
    pictures = [picture(seed) for seed in range(3)]
    with together.passes.scheduler.caller() as caller:
        targets = together.targets.build(caller, OBJECTIVE)
        shared = together.differentiator.evaluate_batch([(each, targets) for each in pictures])
    with single.differentiate(OBJECTIVE) as d:
        for each, ours in zip(pictures, shared, strict=True):
            expected = d.evaluate(each)
            assert ours.loss == pytest.approx(expected.loss, rel=1e-4)
            scale = np.abs(expected.gradient).max()
            np.testing.assert_allclose(ours.gradient / scale, expected.gradient / scale, atol=2e-3)
    together.close()
    single.close()


def test_targets_are_computed_once_for_all_stylizations(engine: Engine) -> None:
    class Lookups(Observer):
        hits: ClassVar[list[bool]] = []

        def cache(self, name: str, hit: bool) -> None:
            self.hits.append(hit)

    cached = Engine(engine.network, observer=Lookups())
    with cached.differentiate(OBJECTIVE):
        assert not any(Lookups.hits)
        Lookups.hits.clear()
        with cached.differentiate(OBJECTIVE):
            pass
    assert Lookups.hits
    assert all(Lookups.hits)
    cached.close()


def test_a_full_queue_refuses_new_callers_and_says_when_to_retry() -> None:
    settings = EngineSettings(Batching(pictures=1, queue_limit=2))
    device = GatedDevice()
    engine = Engine(load_network("resnet50", "random:0", "cpu"), settings, device=device)
    extraction = Extraction(("conv1",), (Form.POOLED,))
    with ThreadPoolExecutor() as pool, device.shut():
        outcomes = pool.submit(list, engine.extract([picture(seed) for seed in range(4)], extraction))
        wait_until(lambda: engine.model().load.queued > 0, what="the queue to be full")
        with pytest.raises(Overloaded) as error:
            engine.extract_together([picture(8), picture(9)], extraction)
    assert error.value.retry_after is not None
    assert error.value.retry_after > 0
    assert [isinstance(each, Features) for each in outcomes.result()] == [True] * 4
    engine.close()


def test_draining_sends_differentiations_elsewhere_and_finishes_extractions() -> None:
    engine = Engine(load_network("resnet50", "random:0", "cpu"), limits=Limits())
    outcomes = engine.extract([picture()] * 3, Extraction(("conv1",), (Form.POOLED,)))
    next(outcomes)
    with engine.differentiate(OBJECTIVE) as differentiation:
        engine.drain()
        with pytest.raises(Unavailable):
            differentiation.evaluate(picture(1))
    assert len(list(outcomes)) == 2
    engine.close()
