"""Grams and the style loss against float64."""

from __future__ import annotations

import pytest
import torch
from gramlet.feature.types import GramNormalization
from gramlet_server.feature.gram import energy, gram_matrix, gram_of_rows, style_loss

DIVISORS = {
    GramNormalization.NONE: 1,
    GramNormalization.POSITIONS: 30 * 40,
    GramNormalization.ELEMENTS: 16 * 30 * 40,
}


@pytest.fixture(params=[torch.contiguous_format, torch.channels_last], ids=["NCHW", "NHWC"])
def activations(request: pytest.FixtureRequest) -> torch.Tensor:
    values = torch.randn(2, 16, 30, 40, generator=torch.Generator().manual_seed(0)).relu()
    return values.to(memory_format=request.param)[1]


@pytest.mark.parametrize("normalization", GramNormalization)
def test_a_gram_is_exact_in_float32(activations: torch.Tensor, normalization: GramNormalization) -> None:
    f = activations.double().flatten(1)
    exact = f @ f.T / DIVISORS[normalization]
    gram = gram_matrix(activations, normalization)
    assert gram.dtype == torch.float32
    torch.testing.assert_close(gram.double(), exact, rtol=1e-5, atol=0)


@pytest.mark.parametrize("positions", [0, 1, 20, 64, 300], ids="{} positions".format)
def test_products_of_64_channels_are_exact_and_symmetric(positions: int) -> None:
    rows = torch.rand(positions, 64, generator=torch.Generator().manual_seed(3))
    gram = gram_of_rows(rows)
    torch.testing.assert_close(gram.double(), rows.double().T @ rows.double(), rtol=1e-5, atol=0)
    torch.testing.assert_close(gram, gram.T, rtol=1e-6, atol=0)


@pytest.mark.parametrize("normalization", GramNormalization)
def test_the_style_loss_and_its_gradient_are_those_of_autograd_in_float64(
    activations: torch.Tensor, normalization: GramNormalization
) -> None:
    target = torch.randn(16, 16, generator=torch.Generator().manual_seed(1))
    target = target + target.T
    exact_input = activations.double().contiguous().requires_grad_()
    f = exact_input.flatten(1)
    exact = (f @ f.T / DIVISORS[normalization] - target.double()).square().mean()
    exact.backward()

    ours_input = activations.clone().requires_grad_()
    ours = style_loss(ours_input, target, normalization)
    (3 * ours).backward()
    assert exact_input.grad is not None
    assert ours_input.grad is not None
    torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=0)
    scale = exact_input.grad.abs().max()
    torch.testing.assert_close(ours_input.grad.double() / 3 / scale, exact_input.grad / scale, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("normalization", GramNormalization)
def test_fewer_positions_than_channels_change_nothing_but_the_way(normalization: GramNormalization) -> None:
    generator = torch.Generator().manual_seed(2)
    style = torch.randn(64, 4, 5, generator=generator).relu()
    # Close to the style, where the sums of the short way cancel.
    picture = (style + 0.05 * torch.randn(64, 4, 5, generator=generator)).requires_grad_()
    target = gram_matrix(style, normalization)
    whole = style_loss(picture, target, normalization)
    (expected,) = torch.autograd.grad(whole, picture)
    short = style_loss(picture, target, normalization, energy(target))
    (found,) = torch.autograd.grad(short, picture)
    torch.testing.assert_close(short, whole, rtol=1e-4, atol=0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=float(1e-4 * expected.abs().max()))
