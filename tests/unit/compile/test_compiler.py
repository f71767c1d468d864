"""Compiled networks compute in the engine what they compute in PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from billhook.compile import reference
from billhook.compile.compiler import assemble, compile_model
from billhook.compile.ir import RELU, Convolution, Network, Port, Value
from billhook.compile.library import isas
from billhook.compile.session import EngineSession
from billhook.compile.tiles import Tile
from billhook.errors import UnsupportedError
from billhook.models import build
from tests import networks
from tests.unit.compile.exactness import Function, image
from tests.unit.compile.lower.test_whole_networks import ZOO, settled

TOLERANCE = 1e-5  # of the largest output
pytestmark = pytest.mark.usefixtures("engine")


def assert_runs(model: nn.Module, x: Tensor, isa: str = "best", threads: int = 1, **options: Any) -> None:
    """Assert that the engine gives what PyTorch gives, for the batch and for its first sample."""
    model.eval()
    with torch.no_grad():
        expected = model(x).numpy()
    file = compile_model(model, x, **options).file
    with EngineSession(file, threads=threads, isa=isa) as session:
        for batch in (len(x), 1):
            (found,) = session.run([x[:batch].numpy()])
            assert found.shape == expected[:batch].shape
            error = np.abs(found - expected[:batch]).max() / np.abs(expected).max()
            assert error <= TOLERANCE, f"{isa}, {threads} threads: {error:.1e}"


@pytest.mark.parametrize("name", ZOO)
def test_networks_of_the_zoo(name: str) -> None:
    torch.manual_seed(0)
    size = (1, 28) if name == "lenet-5" else (3, 32)
    assert_runs(settled(build(name, **ZOO[name])), image(size[0], size[1], size[1]))


@pytest.mark.parametrize("name", sorted(set(networks.NETWORKS) - {"attention", "transposed"}))
def test_networks_with_a_hard_construct(name: str) -> None:
    model, inputs = networks.build(name)
    assert_runs(model, inputs)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_every_instruction_set_and_number_of_threads(threads: int) -> None:
    torch.manual_seed(0)
    model = settled(build("mobilenet-v2"))
    for isa in isas():
        assert_runs(model, image(3, 32, 32, batch=8), isa, threads, check=False)


@given(
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 5)),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 3),
    padding=st.integers(0, 3),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2, 3]),
    rows=st.sampled_from([None, 32, 8, 4, 1]),
    density=st.sampled_from([1.0, 0.3, 0.0]),
)
def test_convolutions_of_every_form(
    size: tuple[int, int],
    channels: tuple[int, int],
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    groups: int,
    rows: int | None,
    density: float,
) -> None:
    made = [(n + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 for n in size]
    assume(min(made) >= 1)
    rng = np.random.default_rng(0)
    ins, outs = (c * groups for c in channels)
    x, y = Value("x", ins, *size), Value("y", outs, *made)
    weight = rng.standard_normal((outs, channels[0], kernel, kernel)).astype(np.float32)
    weight *= rng.random(weight.shape) <= density
    op = Convolution(
        (x,),
        y,
        weight,
        rng.standard_normal(outs).astype(np.float32),
        (stride, stride),
        (padding,) * 4,
        (dilation, dilation),
        groups,
        activation=RELU,
    )
    network = Network((op,), (Port("x", x, (ins, *size)),), (Port("y", y, (outs, *made)),))
    images = rng.standard_normal((2, ins, *size)).astype(np.float32)
    (expected,) = reference.run(network, [images])
    with EngineSession(assemble(network, {} if rows is None else {"y": Tile(rows, 1)}).file) as session:
        (found,) = session.run([images])
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * (1 + np.abs(expected).max()))


@pytest.mark.parametrize("isa", ["portable", "best"])
@pytest.mark.parametrize(
    "activation",
    [nn.ReLU6, nn.LeakyReLU, nn.Sigmoid, nn.SiLU, nn.Hardsigmoid, nn.Hardswish, nn.Tanh, nn.GELU],
)
def test_activations_inside_and_outside_of_layers(activation: type[nn.Module], isa: str) -> None:
    torch.manual_seed(0)
    inside = nn.Sequential(nn.Conv2d(4, 12, 3, padding=1), activation(), nn.Flatten(), nn.Linear(360, 20))
    assert_runs(nn.Sequential(inside, activation()), 3 * image(), isa)
    assert_runs(nn.Sequential(activation(), nn.AvgPool2d(2)), 3 * image(), isa)


def test_zeros_are_not_stored() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(32, 32, 3, padding=1)
    dense = compile_model(layer.eval(), image(32, 8, 8)).file
    with torch.no_grad():
        for block in range(4):
            gone = torch.randperm(32)[:24]
            layer.weight[8 * block : 8 * block + 8, gone] = 0
    sparse = compile_model(layer, image(32, 8, 8)).file
    assert len(sparse) < 0.4 * len(dense)
    assert_runs(layer, image(32, 8, 8))


@pytest.mark.parametrize("kernel", [(9, 7), (3, 5)])
def test_depthwise_windows_that_make_one_pixel_are_stored_once(kernel: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer, x = nn.Conv2d(40, 40, kernel, stride=9, groups=40), image(40, 9, 7)
    # a weight and the place where it is read, for each row a bias, its place, and where it begins
    assert len(compile_model(layer.eval(), x).file) < 8 * layer.weight.numel() + 12 * 40 + 2048
    assert_runs(nn.Sequential(layer, nn.SiLU()), x)


@pytest.mark.parametrize(
    "function", [lambda x: torch.cat([x] * 3, 1), lambda x: x.repeat(1, 9, 1, 1), lambda x: x[:, [0, 0, 2]]]
)
def test_planes_may_be_given_several_times(function: Any) -> None:
    assert_runs(Function(function), image(3, 9, 7))


def test_one_channel_may_be_flattened() -> None:
    assert_runs(
        nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10)), image(1, 28, 28)
    )


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(20, 20, (9, 11), groups=20),  # makes one pixel
        nn.Conv2d(20, 20, 3, padding=1, groups=20),
        nn.Conv2d(20, 20, 3, padding=1, groups=5),
    ],
)
def test_what_is_no_number_stays_in_its_group(layer: nn.Conv2d, bad: float) -> None:
    x = image(20, 9, 11, batch=3)
    x[1, 2, 4, 5] = bad
    with EngineSession(compile_model(layer.eval(), x).file) as session, torch.no_grad():
        (found,) = session.run([x.numpy()])
        assert np.array_equal(np.isfinite(found), np.isfinite(layer(x).numpy()))


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize(
    "function",
    [
        lambda x: functional.max_pool2d(x, 3, 2, 1),
        lambda x: functional.max_pool2d(x, 2, 2),
        lambda x: functional.max_pool2d(x, (9, 40), 1, (0, 3)),
        lambda x: torch.maximum(x[:, :2], x[:, 2:]),
        lambda x: torch.minimum(x[:, :2], x[:, 2:]),
        lambda x: torch.relu(x),
        lambda x: x.clamp(-1, 1),
    ],
)
def test_nan_is_not_lost(function: Any, place: int) -> None:
    x = image(4, 9, 40)
    x[1, place, 4, 5 + place] = float("nan")
    file = compile_model(Function(function).eval(), x).file
    expected = np.isnan(function(x).numpy())
    assert expected.any()
    for isa in isas():
        with EngineSession(file, isa=isa) as session:
            assert np.array_equal(np.isnan(session.run([x.numpy()])[0]), expected), isa


def test_results_that_are_no_float32_or_have_too_many_dimensions_are_refused() -> None:
    x = image(3, 9, 7)
    with pytest.raises(UnsupportedError, match="output has numbers of type float64"):
        compile_model(Function(lambda x: x.double()), x)
    with pytest.raises(UnsupportedError, match="output has 8 dimensions"):
        compile_model(Function(lambda x: x.reshape(x.shape[0], 3, 3, 3, 7, 1, 1, 1)), x)


def test_what_the_engine_lacks_is_named_at_once() -> None:
    model = Function(lambda x: torch.cumsum(torch.erfinv(x), 1))
    with pytest.raises(UnsupportedError, match=r"(?s)erfinv.*cumsum") as caught:
        compile_model(model.eval(), image())
    assert set(caught.value.operators) == {"erfinv", "cumsum"}
