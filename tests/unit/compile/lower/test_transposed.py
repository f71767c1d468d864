"""Transposed convolutions of any geometry."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from billhook.compile.ir import Convolution
from billhook.compile.lower import lower
from billhook.compile.passes import run_passes
from billhook.compile.planes import Rearrange
from billhook.errors import UnsupportedError
from tests.unit.compile.exactness import Function, image, kinds, lowered

pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=60)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=pairs,
    dilation=pairs,
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    more=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    groups=st.sampled_from([1, 2, 4]),
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
)
def test_any_geometry(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padding: tuple[int, int],
    more: tuple[int, int],
    groups: int,
    size: tuple[int, int],
) -> None:
    for i in (0, 1):
        made = (size[i] - 1) * stride[i] - 2 * padding[i] + dilation[i] * (kernel[i] - 1) + more[i] + 1
        assume(made > 0 and more[i] < max(stride[i], dilation[i]))
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(4, 8, kernel, stride, padding, more, groups, dilation=dilation)
    lowered(layer, image(4, *size))


def test_of_sequences() -> None:
    torch.manual_seed(0)
    lowered(nn.ConvTranspose1d(4, 3, 5, 3, 1, output_padding=2), image()[:, :, 0])


def test_of_stride_1_is_a_convolution() -> None:
    assert kinds(lowered(nn.ConvTranspose2d(4, 3, 3, padding=1), image())) == ["convolution"]


def test_of_single_pixels() -> None:
    model = nn.Sequential(
        nn.Unflatten(1, (4, 1, 1)), nn.ConvTranspose2d(4, 3, 4), nn.ConvTranspose2d(3, 2, 4, 2, 1)
    )
    lowered(model, torch.randn(2, 4, generator=torch.Generator().manual_seed(0)))


def test_every_weight_is_kept_once() -> None:
    layer = nn.ConvTranspose2d(4, 3, 3, 2, 1, 1)
    network = lowered(layer, image())
    convolution, interleaved = network.ops
    assert isinstance(convolution, Convolution)
    assert isinstance(interleaved, Rearrange)
    kept, wanted = convolution.weight[convolution.weight != 0], layer.weight.detach().numpy().ravel()
    assert sorted(kept.tolist()) == sorted(wanted.tolist())


def test_batch_norm_and_activation_behind_one_go_into_it() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(6).eval()
    assert norm.running_mean is not None
    nn.init.uniform_(norm.running_mean, -1, 1)
    nn.init.uniform_(norm.weight, 0.5, 2)
    for groups in (1, 2):
        model = nn.Sequential(nn.ConvTranspose2d(4, 6, 4, 2, 1, groups=groups), norm, nn.ReLU6()).eval()
        network = run_passes(lowered(model, image()))
        assert kinds(network) == ["convolution", "rearrange"]


def test_one_with_computed_weights_is_refused() -> None:
    def forward(x: Tensor, y: Tensor) -> Tensor:
        return torch.conv_transpose2d(x, y)

    with pytest.raises(UnsupportedError, match="weight is computed"):
        lower(Function(forward), (image(2, 6, 6), image(2, 3, 3)))
