"""Convolutions of any geometry, linear layers and batch norm are lowered exactly."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from billhook.compile.ir import Convolution, Linear
from billhook.compile.lower import lower
from billhook.errors import UnsupportedError
from tests.unit.compile.exactness import Function, features, image, kinds, lowered


@settings(max_examples=25)
@given(
    groups=st.integers(1, 3),
    per_group=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    bias=st.booleans(),
)
def test_convolutions_of_any_geometry(
    groups: int,
    per_group: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    bias: bool,
) -> None:
    inputs, outputs = groups * per_group[0], groups * per_group[1]
    torch.manual_seed(0)
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias)
    network = lowered(conv, image(inputs, 7, 8))
    (op,) = network
    assert isinstance(op, Convolution)
    assert op.weight.flags.c_contiguous
    assert op.weight.dtype == op.bias.dtype == "float32"


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, (2, 5)])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_padding_by_name(kernel: int | tuple[int, int], padding: str) -> None:
    lowered(nn.Conv2d(4, 3, kernel, padding=padding, dilation=(1, 2)), image(4, 9, 12))


def test_convolutions_of_sequences() -> None:
    x = torch.randn(2, 3, 11, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(
        nn.Conv1d(3, 4, 3, stride=2, padding=1),
        nn.BatchNorm1d(4),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.AvgPool1d(2),
    )
    lowered(model.eval(), x)


def test_convolutions_over_the_channels_of_a_vector() -> None:
    def forward(conv: nn.Conv1d, x: Tensor) -> Tensor:
        weights = conv(x.mean((2, 3)).unsqueeze(1)).sigmoid()
        return x * weights.transpose(1, 2).unsqueeze(-1)

    lowered(Function(forward, nn.Conv1d(1, 1, 3, padding=1)), image(6))


@pytest.mark.parametrize("padding", [0, 1, "same"])
def test_convolutions_over_a_vector_that_became_an_image(padding: int | str) -> None:
    conv = nn.Conv2d(2, 4, 2, padding=padding, groups=2)
    lowered(Function(lambda conv, x: conv(x.view(-1, 2, 3, 4)).relu(), conv), features(24))


def test_a_vector_that_became_a_large_image_is_put_into_planes() -> None:
    model = Function(lambda conv, x: conv(x.view(-1, 1, 50, 50)), nn.Conv2d(1, 1, 3))
    assert kinds(lowered(model, features(2500))) == ["rearrange", "convolution"]


def test_computed_weights_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="weight is computed"):
        lower(Function(lambda x, y: functional.conv2d(x, y)), (image(2, 6, 6), image(2, 3, 3)))


LINEAR = {
    "linear": Function(lambda linear, x: linear(x), nn.Linear(6, 3)),
    "no bias": Function(lambda linear, x: linear(x), nn.Linear(6, 3, bias=False)),
    "matmul": Function(lambda weight, x: x @ weight, weight=torch.randn(6, 3)),
    "mm": Function(lambda weight, x: torch.mm(x, weight), weight=torch.randn(6, 3)),
    "addmm": Function(
        lambda weight, bias, x: torch.addmm(bias, x, weight), weight=torch.randn(6, 3), bias=torch.randn(3)
    ),
}


@pytest.mark.parametrize("name", LINEAR)
def test_linear_layers(name: str) -> None:
    network = lowered(LINEAR[name], features(6))
    assert kinds(network) == ["linear"]


def test_a_linear_layer_reads_an_image_as_it_is() -> None:
    network = lowered(nn.Sequential(nn.Conv2d(4, 3, 2), nn.Flatten(), nn.Linear(60, 7)), image())
    assert kinds(network) == ["convolution", "linear"]
    assert isinstance(network.ops[1], Linear)
    assert network.ops[1].inputs[0].pixels == 20


def test_a_linear_layer_reads_chosen_channels_of_an_image() -> None:
    lowered(Function(lambda linear, x: linear(x[:, 1:3].flatten(1)), nn.Linear(60, 7)), image())


LAST: dict[str, tuple[Callable[..., Tensor], int]] = {
    "of rows": (lambda linear, x: linear(x), 5),
    "of tokens": (lambda linear, x: linear(x.flatten(2)), 30),
    "of channels": (lambda linear, x: linear(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), 4),
    "of channels of tokens": (lambda linear, x: linear(x.flatten(2).transpose(1, 2)), 4),
    "of single numbers": (lambda linear, x: linear(x.mean((2, 3), keepdim=True)), 1),
    "of many single numbers": (lambda linear, x: linear(x.flatten(1).view(2, 40, 3)), 3),
    "of parts of channels": (lambda linear, x: linear(x.permute(0, 2, 3, 1).unflatten(3, (2, 2))), 2),
}


@pytest.mark.parametrize("name", LAST)
def test_a_linear_layer_over_the_last_of_several_dimensions(name: str) -> None:
    forward, inputs = LAST[name]
    lowered(Function(forward, nn.Linear(inputs, 3)), image())


def test_a_linear_layer_over_channels_that_come_last_moves_nothing() -> None:
    forward, inputs = LAST["of channels"]
    assert kinds(lowered(Function(forward, nn.Linear(inputs, 3)), image())) == ["convolution"]


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_is_a_scale_and_a_shift(affine: bool) -> None:
    norm = nn.BatchNorm2d(4, affine=affine, eps=0.01).eval()
    assert norm.running_mean is not None
    assert norm.running_var is not None
    nn.init.uniform_(norm.running_mean, -1, 1)
    nn.init.uniform_(norm.running_var, 0.1, 2)
    assert kinds(lowered(norm, image())) == ["affine"]


def test_batch_norm_of_vectors() -> None:
    norm = nn.BatchNorm1d(6).eval()
    assert norm.running_var is not None
    nn.init.uniform_(norm.running_var, 0.1, 2)
    lowered(norm, features(6))


def test_dropout_and_what_changes_nothing_make_no_operator() -> None:
    def forward(drop: nn.Dropout, x: Tensor) -> Tensor:
        return drop(x).contiguous().clone().detach().to(x.dtype).relu()

    assert kinds(lowered(Function(forward, nn.Dropout()), image())) == ["activate"]
