"""Networks in 8 bits: every instruction set agrees with the reference to one step of the output's grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from billhook.compile import reference
from billhook.compile.compiler import assemble
from billhook.compile.ir import (
    NONE,
    RELU,
    Activation,
    Convert,
    Convolution,
    Linear,
    Network,
    Op,
    Pad,
    Pool,
    Port,
    Quantised,
    Select,
    Value,
)
from billhook.compile.library import isas
from billhook.compile.session import EngineSession
from billhook.compile.tiles import Tile

Floats = npt.NDArray[np.float32]
THREADS = (1, 2)
IN, OUT = Quantised(0.05, 120), Quantised(0.11, 7)


def _conv(
    x: Value, name: str, outputs: int, kernel: int = 3, seed: int = 0, zeros: float = 0.0, **options: object
) -> Convolution:
    """Return a convolution of whole weights on a grid, with its output."""
    rng = np.random.default_rng(seed)
    groups, stride = int(options.get("groups", 1)), options.get("stride", (1, 1))  # type: ignore[call-overload]
    dilation, padding = options.get("dilation", (1, 1)), options.setdefault("padding", (1, 1, 1, 1))
    whole = rng.integers(-127, 128, (outputs, x.channels // groups, kernel, kernel))
    whole = whole * (rng.random(whole.shape) >= zeros)
    scale = (rng.random(outputs) * 0.02 / np.sqrt(max(whole[0].size, 1)) + 1e-4).astype(np.float32)
    size = [
        (s + padding[2 * i] + padding[2 * i + 1] - dilation[i] * (kernel - 1) - 1) // stride[i] + 1  # type: ignore[index]
        for i, s in enumerate((x.height, x.width))
    ]
    return Convolution(
        (x,),
        Value(name, outputs, *size, OUT),
        (whole * scale[:, None, None, None]).astype(np.float32),
        rng.normal(0, 1, outputs).astype(np.float32),
        weight_scale=scale,
        **options,  # type: ignore[arg-type]
    )


def _network(ops: list[Op], x: Value, out: Value) -> Network:
    """Return operators between float32 and float32."""
    floats = Value("out", out.channels, out.height, out.width)
    first = Convert((Value("x", x.channels, x.height, x.width),), x)
    last = [Convert((out,), floats)] if out.quantised else []
    port = Port("y", floats if last else out, (out.channels, out.height, out.width))
    given = Port("x", first.inputs[0], (x.channels, x.height, x.width))
    return Network((first, *ops, *last), (given,), (port,))


def _check(network: Network, step: float, tiles: dict[str, Tile] | None = None, batch: int = 2) -> None:
    compiled = assemble(network, tiles)
    given = np.random.default_rng(1).normal(0, 2, (batch, *network.inputs[0].shape)).astype(np.float32)
    (expected,) = reference.run(network, [given])
    assert np.abs(expected).max() > 5 * step  # else everything would be right
    for isa in isas():
        one = None
        for threads in THREADS:
            with EngineSession(compiled.file, threads, isa) as session:
                (found,) = session.run([given])
            off = np.abs(found - expected)
            assert off.max() <= 1.001 * step
            assert (off > 0.5 * step).mean() < 0.02
            one = found if one is None else one
            np.testing.assert_array_equal(one, found)


@pytest.mark.parametrize("rows", [32, 8, 4])
@pytest.mark.parametrize("zeros", [0.0, 0.9])
@pytest.mark.parametrize(
    ("channels", "outputs", "kernel", "options"),
    [
        (16, 24, 1, {"padding": (0, 0, 0, 0)}),
        (3, 10, 3, {}),
        (7, 9, 3, {"padding": (0, 1, 2, 1)}),
        (8, 8, 3, {"groups": 8}),
        (6, 6, 5, {"groups": 6, "padding": (2, 2, 2, 2), "stride": (2, 2)}),
        (12, 20, 3, {"groups": 2, "stride": (2, 2)}),
        (5, 8, 3, {"dilation": (2, 3), "padding": (2, 2, 3, 3)}),
        (3, 16, 7, {"stride": (2, 2), "padding": (3, 3, 3, 3)}),
        (4, 130, 1, {"padding": (0, 0, 0, 0), "stride": (2, 2)}),
    ],
)
def test_convolutions(
    channels: int, outputs: int, kernel: int, options: dict[str, object], zeros: float, rows: int
) -> None:
    x = Value("x8", channels, 13, 19, IN)
    conv = _conv(x, "y8", outputs, kernel, zeros=zeros, **options)
    _check(_network([conv], x, conv.output), OUT.scale, {"y8": Tile(rows, 6)})


@pytest.mark.parametrize(
    "activation",
    [
        RELU,
        Activation("clip", 0, 6),
        Activation("silu"),
        Activation("hardswish"),
        Activation("leaky", 0.1),
        NONE,
    ],
)
@pytest.mark.parametrize("grid", [Quantised(0.03, 0), Quantised(0.02, 200), Quantised(0.05, 40)])
def test_activations(activation: Activation, grid: Quantised) -> None:
    x = Value("x8", 9, 8, 8, IN)
    conv = _conv(x, "y8", 12)
    conv = replace(conv, output=Value("y8", 12, 8, 8, grid), activation=activation)
    for rows in (32, 4):
        _check(_network([conv], x, conv.output), grid.scale, {"y8": Tile(rows)})


def test_residuals_have_grids_of_their_own() -> None:
    x = Value("x8", 10, 7, 7, IN)
    first = _conv(x, "a8", 10)
    second = replace(_conv(first.output, "b8", 10, seed=3), inputs=(first.output, x), activation=RELU)
    for rows in (32, 8):  # two roundings, one after the other
        _check(_network([first, second], x, second.output), 3 * OUT.scale, {"b8": Tile(rows)})


@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (1, 1, 1, 1)])
def test_largest_of_windows_keeps_the_grid(padding: tuple[int, int, int, int]) -> None:
    x = Value("x8", 10, 15, 35, IN)
    pad = padding[0]
    pooled = Value("p8", 10, (15 + 2 * pad - 3) // 2 + 1, (35 + 2 * pad - 3) // 2 + 1, IN)
    pool = Pool((x,), pooled, "max", (3, 3), (2, 2), padding)
    conv = _conv(pooled, "y8", 8)
    _check(_network([pool, conv], x, conv.output), OUT.scale)
    _check(_network([pool], x, pooled), IN.scale)


def test_margins_hold_the_zero_wherever_windows_reach() -> None:
    x = Value("x8", 6, 9, 9, IN)
    padded = Value("p8", 6, 12, 13, IN)
    conv = _conv(padded, "y8", 8, 5, padding=(2, 2, 2, 2))
    _check(_network([Pad((x,), padded, (1, 2, 3, 1)), conv], x, conv.output), OUT.scale)


def test_whole_quads_are_taken_where_they_lie() -> None:
    x = Value("x8", 8, 6, 6, IN)
    first = _conv(x, "a8", 6)
    first = replace(first, output=Value("a8", 6, 6, 6, IN))
    joined = Value("c8", 14, 6, 6, IN)
    concat = Select((x, first.output), joined, np.array([4, 5, 6, 7, 0, 1, 2, 3, *range(8, 14)], np.int32))
    last = _conv(joined, "y8", 8, seed=5)
    _check(_network([first, concat, last], x, last.output), 2 * OUT.scale)


@pytest.mark.parametrize(("channels", "height", "width"), [(30, 1, 1), (7, 5, 3)])
def test_linear_layers_make_floats(channels: int, height: int, width: int) -> None:
    rng = np.random.default_rng(0)
    x = Value("x8", channels, height, width, IN)
    whole = rng.integers(-127, 128, (21, channels * height * width)) * (rng.random((21, 1)) > 0.2)
    scale = (rng.random(21) * 1e-3 + 1e-4).astype(np.float32)
    bias = rng.normal(0, 1, 21).astype(np.float32)
    linear = Linear(
        (x,), Value("y", 21), (whole * scale[:, None]).astype(np.float32), bias, weight_scale=scale
    )
    _check(_network([linear], x, linear.output), 1e-3)
