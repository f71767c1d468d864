"""How near a layer in 8 bits is: its error is that of its roundings."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from billhook.compile import reference
from billhook.compile.ir import Convolution
from tests.unit.compile.int8.test_quantise import quantised


def test_what_is_computed_on_grids_is_exact() -> None:
    """Whole numbers in small ranges lose nothing."""
    layer = nn.Conv2d(4, 4, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.randint(-127, 128, layer.weight.shape))
        layer.weight[:, 0] = 127
        layer.bias.zero_()
    x = torch.randint(0, 256, (2, 4, 3, 3)).float()
    x[0, 0, 0, :2] = torch.tensor([0.0, 255.0])
    network, made = quantised(nn.Sequential(layer, nn.AdaptiveAvgPool2d(1)), x)
    convolution = next(op for op in made.network if isinstance(op, Convolution))
    np.testing.assert_array_equal(convolution.weight, layer.weight.detach().numpy())
    exact = reference.run(network, [x.numpy()])[0]
    step = convolution.output.quantised.scale
    assert np.abs(reference.run(made.network, [x.numpy()])[0] - exact).max() <= step / 2


@settings(max_examples=25)
@given(
    groups=st.sampled_from([1, 2, 4]),
    outputs=st.integers(1, 3),
    kernel=st.sampled_from([1, 2, 3]),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    seed=st.integers(0, 1000),
)
def test_a_convolution_is_off_by_its_roundings_at_most(
    groups: int, outputs: int, kernel: int, stride: int, padding: int, dilation: int, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = nn.Conv2d(4, 4 * outputs, kernel, stride, padding, dilation, groups)
    x = torch.randn(3, 4, 6, 5)
    network, made = quantised(layer, x)
    convolution = next(op for op in made.network if isinstance(op, Convolution))
    exact, found = (reference.run(n, [x.numpy()])[0] for n in (network, made.network))
    # Half a step of the output; of every input, times its weight; of every weight, times the largest input.
    terms = convolution.weight[0].size
    step = convolution.inputs[0].quantised.scale
    out = convolution.output.quantised.scale if convolution.output.quantised else 0.0
    scale = float(convolution.weight_scale.max())
    largest = np.abs(convolution.weight).reshape(len(convolution.weight), -1).sum(axis=1).max()
    bound = out + step / 2 * largest + scale / 2 * terms * float(x.abs().max())
    assert np.abs(exact - found).max() <= 1.01 * bound
