"""Regions: each style applies to its own region, with guided Gram matrices, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from gramlet.errors import InvalidInput
from gramlet.feature.descent_types import DescentFinished, DescentStart
from gramlet.feature.types import GramNormalization, Objective, StageBalance, Style
from gramlet.stylize.types import Stylization, StylizeSettings
from gramlet.types import Array, Limits
from gramlet_server.feature.engine import Engine
from gramlet_server.feature.gram import energy, gram_matrix, region_at, style_loss
from gramlet_server.stylize.orders import pictures_from_bytes, pictures_to_bytes
from gramlet_server.stylize.prepare import prepare_pictures, prepare_stylization

HEIGHT, WIDTH = 64, 128
DIVISORS = {GramNormalization.NONE: 1, GramNormalization.POSITIONS: 8 * 10, GramNormalization.ELEMENTS: 24 * 8 * 10}


def waves(seed: int, period: int, height: int = HEIGHT, width: int = WIDTH) -> Array:
    """A colored texture of stripes."""
    random = np.random.default_rng(seed)
    phases = 2 * np.pi * (np.arange(width) / period + random.random((3, 1, 1)))
    return (0.5 + 0.4 * np.sin(phases) + 0.1 * random.random((3, height, width))).astype(np.float32)


def half(left: bool) -> Array:
    mask = np.zeros((HEIGHT, WIDTH), np.float32)
    mask[:, : WIDTH // 2] = 1
    return mask if left else 1 - mask


STYLES = (waves(1, 6, 48, 48), waves(2, 24, 40, 56))
HALVES = Objective(
    content=waves(3, 64),
    styles=(Style(STYLES[0], content_region=half(True)), Style(STYLES[1], content_region=half(False))),
    style_stages={"maxpool": 1.0, "layer1": 1.0},
    style_weight=1.0,
    gram_normalization=GramNormalization.POSITIONS,
    stage_balance=StageBalance.CONTENT,
)


@pytest.mark.parametrize("few_positions", [False, True], ids=["whole Gram", "few positions"])
@pytest.mark.parametrize("normalization", GramNormalization)
def test_the_guided_loss_and_its_gradient_are_those_of_autograd_in_float64(
    normalization: GramNormalization, few_positions: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    activations = torch.randn(24, 8, 10, generator=generator)
    mask = torch.zeros(32, 40)
    mask[4:12, 8:31] = torch.rand(8, 23, generator=generator)
    region, seen = region_at(mask, 8, 10)
    assert seen
    target = torch.randn(24, 24, generator=generator)
    target = target + target.T

    # Area averaging, and the sum over the region scaled to a whole picture's.
    covered = mask.double().view(8, 4, 10, 4).mean((1, 3))
    assert 0 < int((covered > 0).sum()) < 80
    exact_input = activations.double().requires_grad_()
    guided = (covered * exact_input).flatten(1)
    gram = guided @ guided.T * 80 / covered.square().sum() / DIVISORS[normalization]
    exact = (gram - target.double()).square().mean()
    exact.backward()

    ours_input = activations.clone().requires_grad_()
    ours = style_loss(ours_input, target, normalization, energy(target) if few_positions else None, region)
    ours.backward()
    assert exact_input.grad is not None
    assert ours_input.grad is not None
    torch.testing.assert_close(gram_matrix(activations, normalization, region).double(), gram, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=0)
    scale = exact_input.grad.abs().max()
    torch.testing.assert_close(ours_input.grad.double() / scale, exact_input.grad / scale, rtol=1e-5, atol=1e-6)
    assert not ours_input.grad[:, covered == 0].any()


@pytest.mark.parametrize("normalization", GramNormalization)
def test_a_regions_gram_does_not_depend_on_its_area(engine: Engine, normalization: GramNormalization) -> None:
    generator = torch.Generator().manual_seed(0)
    tile = torch.randn(8, 4, 4, generator=generator)
    everywhere = tile.repeat(1, 3, 5)
    mask = torch.zeros(24, 40)
    mask[:8, 8:24] = 0.7  # two tiles of the fifteen; a gray mask is a mask
    region, _ = region_at(mask, 12, 20)
    whole = gram_matrix(everywhere, normalization)
    torch.testing.assert_close(gram_matrix(everywhere, normalization, region), whole, rtol=1e-4, atol=1e-4)


def test_a_white_mask_changes_nothing(engine: Engine) -> None:
    white = np.ones((HEIGHT, WIDTH), np.float32)
    x = waves(5, 10)
    losses = []
    for style in (Style(STYLES[0]), Style(STYLES[0], 1.0, white, white[:48, :48])):
        with engine.differentiate(replace(HALVES, styles=(style,))) as differentiation:
            losses.append(differentiation.evaluate(x).loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_gradient_of_a_style_is_zero_far_outside_of_its_region(engine: Engine) -> None:
    x = waves(5, 10)
    only_left = replace(HALVES, styles=HALVES.styles[:1])
    with engine.differentiate(only_left) as differentiation:
        gradient = np.abs(differentiation.evaluate(x).gradient).max((0, 1))  # by column
    border = WIDTH // 2
    assert gradient[: border - 4].min() > 0
    assert not gradient[border + 24 :].any()  # layer1 sees 17 pixels around a position


def test_each_half_gets_the_statistics_of_its_own_style(engine: Engine) -> None:
    settings = StylizeSettings(size=WIDTH, iterations=25, antialiased=False, scales=1, content_weight=0.0)
    styles = tuple(Style(s.picture, content_region=s.content_region) for s in HALVES.styles)
    assert HALVES.content is not None
    prepared = prepare_stylization(Stylization(HALVES.content, styles, settings), engine, Limits())
    start = DescentStart(objective=prepared.objective(), settings=prepared.descent_settings, iterations=25)
    with engine.descend(start) as descent:
        *_, finished = descent
    assert isinstance(finished, DescentFinished)

    def gram(picture: Array, mask: Array | None, stage: str) -> torch.Tensor:
        activations = engine.network.activations(torch.from_numpy(picture)[None], [stage])[stage][0]
        region = None if mask is None else region_at(torch.from_numpy(mask), *activations.shape[1:])[0]
        return gram_matrix(activations, GramNormalization.POSITIONS, region)

    for stage in ("maxpool", "layer1", "layer2"):
        wanted = [gram(style.picture, None, stage) for style in prepared.pictures.styles]
        for own, style in enumerate(prepared.pictures.styles):
            found = gram(finished.picture, style.content_region, stage)
            distances = [float((found - each).norm()) for each in wanted]
            assert distances[own] < 0.8 * distances[1 - own]


def test_the_part_of_a_style_that_counts_is_all_that_counts(engine: Engine) -> None:
    patched = STYLES[0].copy()
    patched[:, :, 24:] = 0.9
    mask = np.zeros((48, 48), np.float32)
    mask[:, :16] = 1
    x = waves(5, 10)

    def loss(style: Style[Array]) -> float:
        # Without depth: what lies beside the region is seen a little by its positions.
        objective = replace(HALVES, styles=(style,), style_stages={"conv1": 1.0})
        with engine.differentiate(objective) as differentiation:
            return differentiation.evaluate(x).loss

    assert loss(Style(patched, style_region=mask)) == loss(Style(STYLES[0], style_region=mask))
    assert loss(Style(patched)) != pytest.approx(loss(Style(STYLES[0])), rel=0.01)


def test_every_stage_starts_at_its_weight_times_the_share_of_its_regions(engine: Engine) -> None:
    content = HALVES.content
    assert content is not None
    left, right = HALVES.styles
    quarter = half(True) * np.linspace(1, 0, HEIGHT, dtype=np.float32).round()[:, None]
    for styles, share in (((left, right), 1.0), ((left,), 0.5), ((replace(left, content_region=quarter), right), 0.75)):
        with engine.differentiate(replace(HALVES, styles=styles)) as differentiation:
            losses = differentiation.evaluate(content).stage_losses
        assert losses == pytest.approx({"maxpool": share, "layer1": share}, rel=1e-3)


def test_styles_that_overlap_divide_their_region_by_weight(engine: Engine) -> None:
    styles = (Style(STYLES[0], 3.0), HALVES.styles[1])
    with engine.passes.scheduler.caller() as caller:
        targets = engine.targets.build(caller, replace(HALVES, stage_balance=StageBalance.NONE, styles=styles))
    everywhere, right = targets.style["maxpool"]
    assert (everywhere.region, right.region is None) == (None, False)
    assert everywhere.weight == pytest.approx(0.5 + 0.5 * 3 / 4)
    assert right.weight == pytest.approx(0.5 * 1 / 4)


def test_a_region_too_small_for_a_stage_is_left_out_there(engine: Engine) -> None:
    line = np.zeros((HEIGHT, WIDTH), np.float32)
    line[10:13, 20:60] = 1
    point = np.zeros((HEIGHT, WIDTH), np.float32)
    point[10, 20] = 1
    stages = {"layer2": 1.0, "maxpool": 1.0, "conv1": 1.0}
    for mask, seen in ((line, {"maxpool", "conv1"}), (point, {"conv1"})):
        objective = replace(HALVES, styles=(Style(STYLES[0], content_region=mask),), style_stages=stages)
        with engine.differentiate(objective) as differentiation:
            assert set(differentiation.evaluate(waves(5, 10)).stage_losses) == seen


@pytest.mark.parametrize(
    ("style", "field"),
    [
        (Style(STYLES[0], content_region=np.zeros((HEIGHT, WIDTH), np.float32)), "styles[0].content_region"),
        (Style(STYLES[0], content_region=np.ones((WIDTH, HEIGHT), np.float32)), "styles[0].content_region"),
        (Style(STYLES[0], style_region=np.ones((48, 50), np.float32)), "styles[0].style_region"),
        (Style(STYLES[0], style_region=np.full((48, 48), np.nan, np.float32)), "styles[0].style_region"),
        (Style(STYLES[0], style_region=np.ones((3, 48, 48), np.float32)), "styles[0].style_region"),
    ],
    ids=["black", "of another shape", "of another aspect", "no numbers", "no mask"],
)
def test_a_wrong_region_names_its_field(engine: Engine, style: Style[Array], field: str) -> None:
    with pytest.raises(InvalidInput) as error, engine.differentiate(replace(HALVES, styles=(style,))):
        pass
    assert error.value.field == field


def test_without_content_the_regions_give_the_pictures_size(engine: Engine) -> None:
    objective = replace(HALVES, content=None, stage_balance=StageBalance.NONE)
    with engine.differentiate(objective) as differentiation:
        assert differentiation.evaluate(waves(5, 10)).loss > 0
        with pytest.raises(InvalidInput):
            differentiation.evaluate(STYLES[0])


def test_regions_go_with_their_pictures_into_the_store_and_to_every_scale(engine: Engine) -> None:
    mask = np.zeros((HEIGHT * 2, WIDTH * 2), np.uint8)
    mask[:, :100] = 255
    own = np.zeros((48, 48), np.uint8)
    own[:20] = 255
    assert HALVES.content is not None
    order = Stylization(HALVES.content, (Style(STYLES[0], 2.0, mask, own), Style(STYLES[1])), StylizeSettings(size=128))
    prepared = prepare_stylization(order, engine, Limits())
    pictures, settings = prepared.pictures, prepared.settings
    stored = pictures_from_bytes(pictures_to_bytes(order), settings)
    again = prepare_pictures(stored, settings, Limits()).pictures
    for one, other in zip(pictures.styles, again.styles, strict=True):
        np.testing.assert_array_equal(one.content_region, other.content_region)
        np.testing.assert_array_equal(one.style_region, other.style_region)
    first = again.at(0.5).styles[0]
    assert first.content_region is not None
    assert first.style_region is not None
    assert first.content_region.shape == (HEIGHT // 2, WIDTH // 2)
    assert first.style_region.shape == first.picture.shape[1:]
    assert first.content_region.mean() == pytest.approx(100 / 256)
    assert again.at(0.5).styles[1].content_region is None
