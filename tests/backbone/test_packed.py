"""Convolutions with packed weights: of many sizes, in little memory."""

from __future__ import annotations

import pytest
import torch
from gramlet_server.backbone import onednn
from gramlet_server.backbone.onednn import KEPT_FORMATS, PackedConvolution
from torch.nn import functional

SIDES = range(8, 32)


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (1, 2), (3, 2)])
def test_a_convolution_keeps_its_weights_in_few_formats_for_inputs_of_many_sizes(kernel: int, stride: int) -> None:
    if not onednn.available(torch.device("cpu"), torch.float32):
        pytest.skip("oneDNN's operators are for x86")
    generator = torch.Generator().manual_seed(kernel)
    weight = torch.randn(32, 16, kernel, kernel, generator=generator)
    convolution = PackedConvolution(weight, None, stride, kernel // 2)
    packed = convolution._packed
    for side in [*SIDES, *SIDES]:
        x = torch.randn(1, 16, side, side, generator=generator).contiguous(memory_format=torch.channels_last)
        expected = functional.conv2d(x, weight, None, stride, kernel // 2)
        torch.testing.assert_close(convolution(x, rectified=False), expected, rtol=1e-4, atol=1e-4)
    assert len(packed._format_for) == len(SIDES)
    assert len(packed._by_format) <= KEPT_FORMATS
