"""Which operators compute in integers, and how near the result is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from billhook.compile import reference
from billhook.compile.int8.calibration import Calibration, calibrate
from billhook.compile.int8.quantise import Quantisation, quantise
from billhook.compile.ir import Convolution, Flatten, Linear, Network, Op, Port, Select, Value
from billhook.compile.lower import lower
from billhook.compile.passes import INTO_ENGINE, run_passes
from billhook.errors import NameNotFoundError
from tests.unit.compile.exactness import Function, image, kinds


def quantised(
    model: nn.Module, *inputs: Tensor, keep: tuple[str, ...] = (), correct_bias: bool = False
) -> tuple[Network, Quantisation]:
    """Return a network after the passes, and in 8 bits with the ranges of these inputs; both must run."""
    network = run_passes(lower(model.eval(), inputs))
    ranges = calibrate(network, Calibration([inputs], "minmax"))
    made = quantise(network, ranges, keep=keep, correct_bias=correct_bias)
    assert_well_formed(made.network)
    arrays = [x.numpy() for x in inputs]
    run_passes(made.network, passes=INTO_ENGINE)  # which compares before and after
    reference.run(made.network, arrays)
    return network, made


def assert_well_formed(network: Network) -> None:
    """Assert what the engine relies on."""
    known = {p.value for p in network.inputs}
    assert not any(p.value.quantised for p in (*network.inputs, *network.outputs))
    names = [v.name for v in network.values]
    assert len(set(names)) == len(names)
    for op in network:
        assert known.issuperset(op.inputs)
        known.add(op.output)
        bits = {v.quantised for v in op.inputs}
        integer = None not in bits
        assert integer or bits == {None}, f"{op.kind} mixes"
        match op.kind:
            case "convolution":
                assert bool(op.output.quantised) == (integer and not op.output.is_vector)
            case "linear":
                assert not op.output.quantised
            case "convert":
                assert bool(op.output.quantised) != integer
            case "pool" | "pad" | "select" | "flatten":
                assert {op.output.quantised} == bits
            case _:
                assert not integer
                assert not op.output.quantised
        if isinstance(op, Convolution | Linear):
            assert (op.weight_scale is not None) == integer


def bits(network: Network) -> dict[str, bool]:
    """Return, by kind, whether operators read 8 bits; all of a kind do or none does."""
    found: dict[str, bool] = {}
    for op in network:
        if op.kind != "convert":
            reads = op.inputs[0].quantised is not None
            assert found.setdefault(op.kind, reads) == reads, op.kind
    return found


def distance(before: Network, after: Network, *inputs: Tensor) -> float:
    """Return the error relative to the largest output, in float64."""
    arrays = [x.numpy() for x in inputs]
    pairs = zip(reference.run(before, arrays), reference.run(after, arrays), strict=True)
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs)


CHAINS: dict[str, tuple[Callable[[], nn.Module], dict[str, bool]]] = {
    "convolutions": (
        lambda: nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 1)),
        {"convolution": True},
    ),
    "grouped, strided, dilated, padded": (
        lambda: nn.Sequential(
            nn.Conv2d(4, 8, 3, groups=2, stride=2, padding=2), nn.Conv2d(8, 8, 3, dilation=2, padding=2)
        ),
        {"convolution": True},
    ),
    "depthwise": (
        lambda: nn.Sequential(nn.Conv2d(4, 4, 3, groups=4, padding=1), nn.Hardswish()),
        {"convolution": True},
    ),
    "classifier": (
        lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 3)),
        {"convolution": True, "pool": True, "linear": True},
    ),
    "two linear layers": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(120, 7), nn.ReLU(), nn.Linear(7, 3)),
        {"linear": True},
    ),
    "mean": (
        lambda: nn.Sequential(nn.Conv2d(4, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)),
        {"convolution": True, "mean": False, "linear": True},
    ),
    "average": (
        lambda: nn.Sequential(nn.Conv2d(4, 6, 1), nn.AvgPool2d(2), nn.Conv2d(6, 6, 1)),
        {"convolution": True, "pool": False},
    ),
    "padded": (
        lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.ZeroPad2d(1), nn.MaxPool2d(2)),
        {"convolution": True, "pad": True, "pool": True},
    ),
    "one pixel": (
        lambda: nn.Sequential(nn.Conv2d(4, 6, (6, 5)), nn.ReLU(), nn.Conv2d(6, 2, 1)),
        {"convolution": True},
    ),
    "pooled float32": (
        lambda: nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 2, 1)),
        {"pool": False, "convolution": True},
    ),
    "softmax": (
        lambda: nn.Sequential(nn.Conv2d(4, 6, 1), nn.Softmax(1)),
        {"convolution": True, "softmax": False},
    ),
}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("correct_bias", [False, True])
def test_operators_compute_in_integers_where_they_can(name: str, correct_bias: bool) -> None:
    torch.manual_seed(0)
    make, expected = CHAINS[name]
    before, made = quantised(make(), image(batch=8), correct_bias=correct_bias)
    assert bits(made.network) == expected
    assert distance(before, made.network, image(batch=8)) < 0.04


GRAPHS: dict[str, tuple[Callable[..., Any], dict[str, bool]]] = {
    "residual": (lambda a, b, x: a(x) + b(x).relu(), {}),
    "residual of float32": (lambda a, b, x: a(x) + x.tanh(), {"activate": False}),
    "product": (lambda a, b, x: a(x) * b(x), {"binary": False}),
    "concatenation": (lambda a, b, x: b(torch.cat([a(x), x], 1)[:, 4:]), {}),
    "halves": (lambda a, b, x: b(torch.cat([a(x), a(x)], 1)[:, 2:6]), {"select": False}),
    "concatenation that is an output": (lambda a, b, x: torch.cat([a(x), b(x)], 1), {"select": False}),
    "concatenation for a window": (
        lambda a, b, x: functional.max_pool2d(torch.cat([a(x), b(x)], 1), 2),
        {"select": True, "pool": True},
    ),
    "shuffled": (lambda a, b, x: b(a(x)[:, [1, 0, 3, 2]]), {"select": False}),
    "flattened for others": (
        lambda a, b, x: a(x).flatten(1).softmax(1),
        {"flatten": False, "softmax": False},
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs(name: str) -> None:
    torch.manual_seed(0)
    function, expected = GRAPHS[name]
    model = Function(function, nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
    before, made = quantised(model, image(batch=8))
    assert bits(made.network) == {"convolution": True, **expected}
    assert distance(before, made.network, image(batch=8)) < 0.04


def test_a_value_is_converted_once_for_all_its_readers() -> None:
    model = Function(
        lambda a, b, x: (a(x), b(x), (y := a(x.tanh())).sigmoid() * y), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
    )
    _, made = quantised(model, image())
    sources = [op.inputs[0] for op in made.network if op.kind == "convert"]
    assert len(set(sources)) == len(sources)


def test_concatenated_values_share_a_grid() -> None:
    wide = nn.Conv2d(4, 4, 1)
    with torch.no_grad():
        wide.weight *= 20
    model = Function(
        lambda a, b, c, x: c(torch.cat([a(x), b(x)], 1)), nn.Conv2d(4, 4, 1), wide, nn.Conv2d(8, 2, 1)
    )
    _, made = quantised(model, image())
    (select,) = (op for op in made.network if isinstance(op, Select))
    grids = {v.quantised for v in (*select.inputs, select.output)}
    assert len(grids) == 1


@pytest.mark.parametrize(
    ("first", "second", "picks", "integer"),
    [
        (8, 4, list(range(12)), True),
        (4, 6, list(range(10)), True),  # the quad that is not full is the last
        (6, 4, list(range(10)), False),
        (4, 6, [4, 5, 6, 7, 0, 1, 2, 3], True),
        (4, 6, [8, 9], True),
        (4, 6, [0, 1], False),
        (4, 4, [1, 2, 3, 4], False),
        (4, 4, [0, 1, 2, 3, 0, 1, 2, 3], True),
    ],
)
def test_selections_take_whole_quads(first: int, second: int, picks: list[int], integer: bool) -> None:
    model = Function(
        lambda a, b, c, x: c(torch.cat([a(x), b(x)], 1)[:, picks]),
        nn.Conv2d(4, first, 1),
        nn.Conv2d(4, second, 1),
        nn.Conv2d(len(picks), 3, 1),
    )
    before, made = quantised(model, image())
    found = [op.output.quantised is not None for op in made.network if isinstance(op, Select)]
    assert found == ([integer] if found else [])
    assert integer or found
    assert distance(before, made.network, image()) < 0.05


@pytest.mark.parametrize("others", [False, True])
def test_vectors_of_planes_for_linear_layers_are_flattened_in_integers(others: bool) -> None:
    x, flat, made = Value("x", 2, 3, 3), Value("flat", 18), Value("made", 4)
    weight = np.random.default_rng(0).standard_normal((4, 18)).astype(np.float32)
    ops: list[Op] = [Flatten((x,), flat), Linear((flat,), made, weight, np.zeros(4, np.float32))]
    outputs = [Port("made", made, (4,))] + [Port("flat", flat, (18,))] * others
    network = Network(tuple(ops), (Port("x", x, (2, 3, 3)),), tuple(outputs))
    batch = torch.randn(4, 2, 3, 3)
    found = quantise(network, calibrate(network, Calibration([batch], "minmax")), correct_bias=True).network
    assert_well_formed(found)
    assert bits(found) == {"flatten": not others, "linear": True}
    assert distance(network, found, batch) < 0.03
    final = run_passes(found, passes=INTO_ENGINE)
    assert ("flatten" in kinds(final)) is others


def test_one_pixel_that_takes_a_sum_stays_in_float32() -> None:
    model = Function(lambda a, b, x: a(x) + b(x.tanh()), nn.Conv2d(4, 3, (6, 5)), nn.Conv2d(4, 3, (6, 5)))
    _, made = quantised(model, image())
    assert [note for note in made.notes if "makes one pixel and adds" in note]


def test_sums_that_could_overflow_stay_in_float32() -> None:
    layer = nn.Linear(40_000, 2)
    nn.init.constant_(layer.weight, 0.01)
    _, made = quantised(nn.Sequential(nn.Flatten(), layer), torch.randn(2, 4, 100, 100))
    assert kinds(made.network) == ["linear"]
    assert "could exceed 32 bits" in made.notes[0]


def test_names_to_keep() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(120, 2))
    network, _ = quantised(model, image())
    (name,) = (op.output.name for op in network if isinstance(op, Linear))
    _, kept = quantised(model, image(), keep=(name,))
    assert bits(kept.network) == {"convolution": True, "linear": False}
    assert f"linear {name!r} stays in float32: it is kept" in kept.notes
    _, none = quantised(model, image(), keep=("*",))
    assert "convert" not in kinds(none.network)
    with pytest.raises(NameNotFoundError, match=r"value to keep in float32 'linaer'; did you mean 'linear'"):
        quantised(model, image(), keep=("linaer",))


def test_a_network_without_anything_to_quantise_is_left_alone() -> None:
    network, made = quantised(Function(lambda x: functional.max_pool2d(x.tanh(), 2)), image())
    assert made.network is network


def test_outputs_are_float32_also_where_others_read_them() -> None:
    model = Function(lambda a, b, x: (y := a(x).relu(), b(y)), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
    before, made = quantised(model, image())
    assert distance(before, made.network, image()) < 0.02
