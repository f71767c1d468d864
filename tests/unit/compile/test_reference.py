"""The reference runs every operator as its record says, by hand-made examples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from billhook.compile import ir
from billhook.compile.passes.as_products import as_products
from billhook.compile.reference import run
from billhook.errors import CompileError, InputError
from tests.unit.compile.exactness import image, lowered

Array = npt.NDArray[np.float64]


def floats(*numbers: float) -> ir.Floats:
    return np.array(numbers, np.float32)


def alone(op: ir.Op) -> ir.Network:
    """Return a network of one operator; inputs and outputs are planes."""
    ports = [ir.Port(v.name, v, (v.channels, v.height, v.width)) for v in (*op.inputs, op.output)]
    return ir.Network((op,), tuple(ports[:-1]), (ports[-1],))


def made(op: ir.Op, *samples: object) -> Array:
    """Return what an operator makes of one sample."""
    (result,) = run(alone(op), [np.array([x], float) for x in samples])
    sample: Array = result[0]
    return sample


X = ir.Value("x", 2, 2, 3)
PIXELS = [[[1, 2, 3], [4, 5, 6]], [[10, 20, 30], [40, 50, 60]]]


def test_a_convolution_sums_shifted_pixels_and_what_is_added() -> None:
    weight = np.zeros((1, 2, 1, 2), np.float32)
    weight[0, 0, 0] = 1, 2
    weight[0, 1, 0, 1] = 0.5
    op = ir.Convolution(
        (X, ir.Value("added", 1, 2, 3)),
        ir.Value("y", 1, 2, 3),
        weight,
        floats(-100),
        padding=(0, 0, 1, 0),
        activation=ir.RELU,
    )
    added = [[[100, 100, 100], [0, 0, 0]]]
    assert made(op, PIXELS, added).tolist() == [[[7, 15, 23], [0, 0, 0]]]


def test_a_linear_layer_reads_channels_rows_pixels() -> None:
    weight = np.zeros((2, 12), np.float32)
    weight[0, 1], weight[1, 9] = 1, 2
    op = ir.Linear((X,), ir.Value("y", 2), weight, floats(0, 1))
    assert made(op, PIXELS).ravel().tolist() == [2, 81]


@pytest.mark.parametrize(
    ("mode", "corner"),
    [("max", 1), ("average", 1 / 4), ("average_inside", 1)],
)
def test_pools_treat_padding_as_their_mode_says(mode: str, corner: float) -> None:
    op = ir.Pool((X,), ir.Value("y", 2, 3, 4), mode, (2, 2), (1, 1), (1, 1, 1, 1))  # type: ignore[arg-type]
    result = made(op, PIXELS)
    assert result[0, 0, 0] == corner
    assert result[0, 1, 1] == {"max": 5, "average": 3, "average_inside": 3}[mode]


def test_a_largest_number_below_zero_is_not_lost_to_padding() -> None:
    op = ir.Pool((X,), ir.Value("y", 2, 2, 3), "max", (3, 3), (1, 1), (1, 1, 1, 1))
    assert made(op, (-np.array(PIXELS)).tolist()).max() == -1


SIMPLE: dict[str, tuple[ir.Op, object]] = {
    "mean": (ir.Mean((X,), ir.Value("y", 2)), [[[3.5]], [[35]]]),
    "affine": (
        ir.Affine((X,), ir.Value("y", 2, 2, 3), floats(2, 0), floats(-1, 7)),
        [[[1, 3, 5], [7, 9, 11]], [[7, 7, 7], [7, 7, 7]]],
    ),
    "select": (
        ir.Select((X,), ir.Value("y", 1, 2, 3), np.array([1], np.int32)),
        [[[10, 20, 30], [40, 50, 60]]],
    ),
    "pad": (
        ir.Pad((X,), ir.Value("y", 2, 2, 3), (1, -1, -1, 1)),
        [[[0, 0, 0], [2, 3, 0]], [[0, 0, 0], [20, 30, 0]]],
    ),
    "resize": (
        ir.Resize((X,), ir.Value("y", 2, 1, 2), "nearest", False, (2.0, 1.5)),
        [[[1, 2]], [[10, 20]]],
    ),
    "flatten": (ir.Flatten((X,), ir.Value("y", 12)), np.reshape(PIXELS, (12, 1, 1)).tolist()),
    "clip": (
        ir.Activate((X,), ir.Value("y", 2, 2, 3), activation=ir.Activation("clip", 2, 20)),
        [[[2, 2, 3], [4, 5, 6]], [[10, 20, 20], [20, 20, 20]]],
    ),
}


@pytest.mark.parametrize("name", SIMPLE)
def test_other_operators(name: str) -> None:
    op, wanted = SIMPLE[name]
    assert made(op, PIXELS).tolist() == wanted


def test_bilinear_resizing_mixes_neighbours() -> None:
    line = ir.Value("x", 1, 1, 2)
    between = ir.Resize((line,), ir.Value("y", 1, 1, 4), "bilinear", False, (1.0, 0.5))
    corners = ir.Resize((line,), ir.Value("y", 1, 1, 3), "bilinear", True, (0.0, 0.5))
    assert made(between, [[[0, 4]]]).ravel().tolist() == [0, 1, 3, 4]
    assert made(corners, [[[0, 4]]]).ravel().tolist() == [0, 2, 4]


def test_softmax_runs_over_channels() -> None:
    result = made(ir.Softmax((X,), ir.Value("y", 2, 2, 3)), np.log(PIXELS).tolist())
    assert np.allclose(result[0], 1 / 11)


@pytest.mark.parametrize(
    ("function", "wanted"),
    [("add", 7), ("subtract", -3), ("multiply", 10), ("divide", 0.4), ("maximum", 5), ("minimum", 2)],
)
def test_binary_operators_take_a_number_per_plane_or_one(function: str, wanted: float) -> None:
    a, y = ir.Value("a", 2, 1, 2), ir.Value("y", 2, 1, 2)
    for channels in (1, 2):
        op = ir.Binary((a, ir.Value("b", channels)), y, function)  # type: ignore[arg-type]
        result = made(op, [[[2, 2]], [[2, 2]]], [[[5]]] * channels)
        assert np.allclose(result, wanted)


def test_convolutions_and_their_form_in_the_engine_compute_the_same() -> None:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),
        torch.nn.Conv2d(6, 3, (2, 3), dilation=(2, 1)),
    )
    x = image(4, 11, 9)
    network = lowered(model, x)
    products = as_products(network)
    assert {op.kind for op in products} == {"phases", "product"}
    (a,), (b,) = run(network, [x.numpy()]), run(products, [x.numpy()])
    assert np.allclose(a, b, rtol=0, atol=1e-12)


def test_numbers_have_the_type_that_was_asked_for() -> None:
    network = alone(ir.Mean((X,), ir.Value("y", 2)))
    batch = np.array([PIXELS] * 3)
    assert run(network, [batch], torch.float32)[0].dtype == np.float32
    assert run(network, [batch])[0].dtype == np.float64
    assert run(network, [batch])[0].shape == (3, 2, 1, 1)


def test_wrong_inputs_are_refused() -> None:
    network = alone(ir.Mean((X,), ir.Value("y", 2)))
    with pytest.raises(InputError, match="shape"):
        run(network, [np.zeros((1, 2, 3, 2))])
    with pytest.raises(InputError, match="1 inputs"):
        run(network, [])


def test_an_operator_that_makes_another_shape_than_it_says_is_found() -> None:
    op = ir.Pad((X,), ir.Value("wide", 2, 2, 3), (0, 0, 1, 1))
    with pytest.raises(CompileError, match="wide"):
        made(op, PIXELS)
    assert made(replace(op, output=ir.Value("wide", 2, 2, 5)), PIXELS).shape == (2, 2, 5)
