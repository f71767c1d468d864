"""Kernels that copy, place and average do so."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from billhook.fuse._kernels import averaging, block_diagonal, centred, dirac, placing, pooled


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_a_dirac_kernel_reads_every_nth_pixel(stride: int, dilation: int) -> None:
    x = random(2, 3, 7, 8)
    for kernel in ((1, 1), (3, 3), (3, 5)):
        padding = tuple(dilation * (k - 1) // 2 for k in kernel)
        expected = x[:, :, ::stride, ::stride]
        full, each = dirac(3, kernel), dirac(3, kernel, depthwise=True)
        assert torch.equal(F.conv2d(x, full, None, stride, padding, dilation), expected)
        assert torch.equal(F.conv2d(x, each, None, stride, padding, dilation, groups=3), expected)


def test_a_matrix_in_the_centre_is_a_pointwise_convolution() -> None:
    x, matrix = random(2, 4, 6, 6), random(5, 4)
    expected = F.conv2d(x, matrix[:, :, None, None], stride=2)
    assert torch.allclose(F.conv2d(x, centred(matrix, (3, 3)), stride=2, padding=1), expected)


def test_channels_are_put_between_zeros() -> None:
    x = random(2, 3, 4, 4)
    placed = F.conv2d(x, centred(placing(3, 1, 2), (1, 1)))
    assert torch.equal(placed, F.pad(x, (0, 0, 0, 0, 1, 2)))


def test_two_convolutions_side_by_side() -> None:
    a, b, u, v = random(2, 3, 5, 5), random(2, 2, 5, 5), random(4, 3, 3, 3), random(1, 2, 3, 3)
    got = F.conv2d(torch.cat((a, b), 1), block_diagonal(u, v))
    assert torch.allclose(got, torch.cat((F.conv2d(a, u), F.conv2d(b, v)), 1))


@pytest.mark.parametrize(("kernel", "stride", "window"), [(3, 1, 2), (3, 2, 2), (1, 1, 3), (5, 1, 4)])
def test_a_convolution_and_the_mean_of_its_results(kernel: int, stride: int, window: int) -> None:
    x, weight = random(2, 3, 17, 16), random(4, 3, kernel, kernel)
    expected = F.avg_pool2d(F.conv2d(x, weight, stride=stride, padding=1), window)
    whole = pooled(weight, (window, window), (stride, stride))
    assert whole.shape[2:] == (kernel + stride * (window - 1),) * 2
    assert torch.allclose(F.conv2d(x, whole, stride=stride * window, padding=1), expected)


def test_a_mean_in_front_of_a_pointwise_convolution() -> None:
    x, weight = random(2, 3, 8, 8), random(4, 3, 1, 1)
    expected = F.conv2d(F.avg_pool2d(x, (2, 4)), weight)
    assert torch.allclose(F.conv2d(x, averaging(weight, (2, 4), 8), stride=(2, 4)), expected)


def basic_block(x: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return F.relu(F.conv2d(F.relu(F.conv2d(x, first, padding=1)), second, padding=1) + x)


@pytest.mark.parametrize("sign", ["any", "positive"])
def test_copies_of_negative_values_need_an_activation_of_their_own(sign: str) -> None:
    x, first, second = random(2, 4, 6, 6), random(5, 4, 3, 3), random(4, 5, 3, 3)
    x = x.relu() if sign == "positive" else x
    longer = torch.cat((first, dirac(4, (3, 3))))
    wider = torch.cat((second, centred(torch.eye(4), (3, 3))), 1)
    inner = F.conv2d(x, longer, padding=1)
    slopes = torch.cat((torch.zeros(5), torch.ones(4))).double()
    expected = basic_block(x, first, second)
    assert torch.allclose(F.relu(F.conv2d(F.prelu(inner, slopes), wider, padding=1)), expected)
    alike = torch.allclose(F.relu(F.conv2d(F.relu(inner), wider, padding=1)), expected)
    assert alike == (sign == "positive")
