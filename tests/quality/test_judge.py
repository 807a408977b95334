"""The judge's measures: their values where these are known, and the order of pictures that nobody disputes."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.quality.baselines import color_matched, style_itself
from tests.quality.efficientnet import efficientnet_lite0
from tests.quality.judge import Judge, content_distance, grid_energy, laplacian_pyramid, luminance, patch_quantiles
from tests.quality.pictures import picture


def photograph(name: str, width: int, height: int) -> Tensor:
    image = Image.open(io.BytesIO(picture(name))).convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(image, np.float32) / 255).permute(2, 0, 1).contiguous()


@pytest.fixture(scope="module")
def content() -> Tensor:
    return photograph("chelsea", 96, 72)


@pytest.fixture(scope="module")
def style() -> Tensor:
    return photograph("tissue", 80, 80)


@pytest.fixture(scope="module")
def judge(content: Tensor, style: Tensor) -> Judge:
    return Judge(content, style, efficientnet_lite0().activations)


def test_the_third_network_knows_a_cat_and_a_cup_of_coffee() -> None:
    network = efficientnet_lite0()
    cat = network(photograph("chelsea", 336, 224)[:, :, 56:280]).logits
    coffee = network(photograph("coffee", 336, 224)[:, :, 56:280]).logits
    assert int(cat.argmax()) in {281, 282, 285}  # tabby, tiger cat, Egyptian cat
    assert int(coffee.argmax()) in {504, 967, 968}  # coffee mug, espresso, cup


def test_activations_are_of_five_depths() -> None:
    shapes = [tuple(each.shape) for each in efficientnet_lite0().activations(torch.zeros(3, 64, 96))]
    assert shapes == [(32, 32, 48), (96, 32, 48), (144, 16, 24), (240, 8, 12), (672, 4, 6)]


def test_equal_pictures_are_at_no_distance(content: Tensor) -> None:
    verdict = Judge(content, content, efficientnet_lite0().activations)(content)
    assert verdict.patch_levels == (0,) * 4
    assert verdict.gram_stages == (0,) * 5
    assert verdict.style == verdict.shapes == 0
    assert verdict.content == pytest.approx(0, abs=1e-5)


def test_the_style_is_nearer_to_the_style_and_the_content_to_the_content(
    judge: Judge, content: Tensor, style: Tensor
) -> None:
    of_content, of_style = judge(content), judge(style_itself(content, style))
    assert of_style.style < 0.5 * of_content.style
    assert of_style.shapes < 0.5 * of_content.shapes
    assert of_content.content < 0.01 < 0.5 < of_style.content


def test_matched_colors_come_nearer_and_keep_the_content(judge: Judge, content: Tensor, style: Tensor) -> None:
    matched = judge(color_matched(content, style))
    assert matched.style < judge(content).style
    assert matched.content < 0.2


def test_matched_colors_have_the_mean_and_covariance_of_the_style() -> None:
    generator = torch.Generator().manual_seed(0)
    content = 0.5 + 0.05 * torch.randn(3, 64, 64, generator=generator)
    mixing = torch.tensor([[0.03, 0.02, 0.0], [0.0, 0.04, 0.01], [0.01, 0.0, 0.05]])
    style = 0.4 + (mixing @ torch.randn(3, 4096, generator=generator)).view(3, 64, 64)
    matched = color_matched(content, style).flatten(1)
    torch.testing.assert_close(matched.mean(1), style.flatten(1).mean(1), atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.cov(matched), torch.cov(style.flatten(1)), atol=1e-4, rtol=0)


def test_pictures_of_two_sizes_are_seen_along_the_same_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.quality.judge.PATCHES", 2048)  # fewer than either picture has
    # The same gray noise, and more of it: only what is drawn at random may differ.
    noise = torch.rand(1, 72, 80, generator=torch.Generator().manual_seed(0)).expand(3, 72, 80)
    few, many = (patch_quantiles(each, 1)[1] for each in (noise[:, :, :72], noise))
    assert float((few - many).abs().mean() / many.std()) < 0.05


def test_the_pyramid_s_first_band_is_what_its_coarser_picture_lacks(content: Tensor) -> None:
    bands = laplacian_pyramid(content, 1)
    coarse = torch.nn.functional.interpolate(bands[1][None], (72, 96), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(bands[0] + coarse, content)


@pytest.mark.parametrize("period", [2, 4])
def test_a_grid_on_a_photograph_is_measured_in_grey_levels(period: int) -> None:
    clean = photograph("chelsea", 288, 224)
    wave = torch.cos(torch.arange(288) * 2 * math.pi / period + 0.4)
    wave = wave / wave.square().mean().sqrt()
    rms = 4.0
    gridded = clean + rms / 255 * wave
    assert grid_energy(clean) < 1.5
    assert math.sqrt(grid_energy(gridded) ** 2 - grid_energy(clean) ** 2) == pytest.approx(rms, rel=0.15)


def test_noise_is_no_grid() -> None:
    noise = torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(0))
    deviation = float(luminance(noise).std()) * 255
    assert grid_energy(noise) < 0.1 * deviation


def test_content_distance_knows_no_brightness_and_sees_another_picture(content: Tensor) -> None:
    assert content_distance(0.8 * content + 0.1, content) < 0.02
    assert content_distance(photograph("coffee", 96, 72), content) > 0.7


def test_a_picture_too_small_to_judge_is_refused(content: Tensor) -> None:
    with pytest.raises(ValueError, match="63 pixels"):
        Judge(content, torch.zeros(3, 63, 80), efficientnet_lite0().activations)
