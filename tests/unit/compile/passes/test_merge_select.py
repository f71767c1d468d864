"""Selections of selections become one; those that change nothing go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billhook.compile import ir, reference
from billhook.compile.passes.drop_unused import drop_unused
from billhook.compile.passes.merge_select import merge_select

SIZES = (2, 3)


def network(*steps: tuple[Sequence[int], Sequence[int]]) -> ir.Network:
    """Return selections in a row; a step names earlier values by number and planes of them all."""
    values = [ir.Value(f"x{i}", channels, 1, 2) for i, channels in enumerate(SIZES)]
    ports = [ir.Port(v.name, v, (v.channels, 1, 2)) for v in values]
    ops = []
    for numbers, planes in steps:
        made = ir.Value(f"y{len(values)}", len(planes), 1, 2)
        ops.append(ir.Select(tuple(values[n] for n in numbers), made, np.array(planes, np.int32)))
        values.append(made)
    return ir.Network(tuple(ops), tuple(ports), (ir.Port("output", made, (made.channels, 1, 2)),))


def merged(before: ir.Network) -> ir.Network:
    """Return the network after the pass, which must compute the same."""
    after = drop_unused(merge_select(before))
    inputs = [np.arange(size * 2).reshape(1, size, 1, 2) + 10.0 * size for size in SIZES]
    (a,), (b,) = reference.run(before, inputs), reference.run(after, inputs)
    assert np.array_equal(a, b)
    return after


def test_a_selection_of_selections_reads_what_they_read() -> None:
    after = merged(network(([0, 1], [4, 0, 2]), ([1, 2], [3, 4, 0])))
    (op,) = after
    assert isinstance(op, ir.Select)
    assert [v.name for v in op.inputs] == ["x1", "x0"]
    assert op.planes.tolist() == [2, 3, 0]


def test_inputs_are_read_once_and_only_if_they_are_used() -> None:
    (op,) = merged(network(([0, 1, 0], [5, 0, 6])))
    assert isinstance(op, ir.Select)
    assert [v.name for v in op.inputs] == ["x0"]
    assert op.planes.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    "steps",
    [
        [([0], [0, 1])],
        [([0, 1], [0, 1])],
        [([0], [1, 0]), ([2], [1, 0])],
        [([0, 1], range(5)), ([2], [2, 3, 4])],
    ],
)
def test_a_selection_of_all_planes_of_one_value_in_order_goes(
    steps: list[tuple[Sequence[int], Sequence[int]]],
) -> None:
    after = merged(network(*steps))
    assert after.ops == ()
    assert after.outputs[0].value in [p.value for p in after.inputs]


def test_a_selection_with_an_activation_stays() -> None:
    before = network(([0], [0, 1]))
    (op,) = before
    after = merged(before.with_ops([replace(op, activation=ir.RELU)]))
    assert [op.activation for op in after] == [ir.RELU]


@given(st.data())
def test_selections_in_any_row(data: st.DataObject) -> None:
    sizes = list(SIZES)
    steps = []
    for _ in range(data.draw(st.integers(1, 4))):
        numbers = data.draw(st.lists(st.integers(0, len(sizes) - 1), min_size=1, max_size=3))
        total = sum(sizes[n] for n in numbers)
        planes = data.draw(st.lists(st.integers(0, total - 1), min_size=1, max_size=6))
        steps.append((numbers, planes))
        sizes.append(len(planes))
    assert len(merged(network(*steps)).ops) <= 1
