"""The blur of antialiased strides is the binomial convolution that it stands for."""

from __future__ import annotations

import pytest
import torch
from gramlet_server.backbone.layers import blur
from torch import Tensor
from torch.nn import functional


def convolved(x: Tensor) -> Tensor:
    """[1 2 1] x [1 2 1] / 16 with a stride of 2, by the book."""
    row = torch.tensor([1, 2, 1], dtype=x.dtype)
    kernel = (row[:, None] * row / 16).expand(x.shape[1], 1, 3, 3)
    return functional.conv2d(functional.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, stride=2, groups=x.shape[1])


@pytest.mark.parametrize("height", [1, 2, 3, 8, 9])
@pytest.mark.parametrize("width", [1, 2, 7, 10])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_blur_is_a_binomial_convolution(height: int, width: int, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, height, width, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    wanted, found = convolved(x), blur(x)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-14)
    upstream = torch.randn_like(wanted)
    (gradient,), (wanted_gradient,) = (torch.autograd.grad(each, x, upstream) for each in (found, wanted))
    torch.testing.assert_close(gradient, wanted_gradient, rtol=0, atol=1e-14)
    if min(height, width) > 2:  # a result of 1 x 1 has both layouts
        assert gradient.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_blur_keeps_half_precision(dtype: torch.dtype) -> None:
    x = torch.rand(1, 4, 10, 12).to(dtype)
    found = blur(x)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), convolved(x.float()), rtol=2e-2, atol=0)
