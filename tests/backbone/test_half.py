from __future__ import annotations

import pytest
import torch
from gramlet_server.backbone.half import with_scaled_gradient
from torch import Tensor

PICTURES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def stages(pictures: Tensor) -> dict[str, Tensor]:
    """Two stages in float16, the second made of the first, and one in float32."""
    first = (pictures * 2).half().relu()
    return {"first": first, "second": first[:, :1] * 3, "third": pictures.sum((2, 3), keepdim=True)}


def gradient(found: dict[str, Tensor], pictures: Tensor, weights: Tensor) -> Tensor:
    loss = sum((weights * each.float().square().sum((1, 2, 3))).sum() for each in found.values())
    assert isinstance(loss, Tensor)
    return torch.autograd.grad(loss, [pictures])[0]


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [1e-14, 1e-3, 1e12]])
def test_gradients_through_float16_neither_vanish_nor_overflow(weights: list[float]) -> None:
    pictures = PICTURES.clone().requires_grad_()
    found = with_scaled_gradient(pictures, stages)
    assert {each.dtype for each in found.values()} == {torch.float32}
    scaled = gradient(found, pictures, torch.tensor(weights))
    single = {name: each.float() for name, each in stages(pictures).items()}
    whole = pictures * 2  # the same without float16
    exact = {"first": whole, "second": whole[:, :1] * 3, "third": single["third"]}
    torch.testing.assert_close(scaled, gradient(exact, pictures, torch.tensor(weights)), rtol=2e-3, atol=0)


def test_a_gradient_of_zero_stays_zero() -> None:
    pictures = PICTURES.clone().requires_grad_()
    found = with_scaled_gradient(pictures, stages)
    assert not gradient(found, pictures, torch.zeros(3)).any()
