"""The records of the compiler's network say who makes and who reads what."""

from __future__ import annotations

import numpy as np

from billhook.compile.ir import NONE, RELU, Activate, Activation, Binary, Mean, Network, Port, Select, Value


def network() -> tuple[Network, list[Value]]:
    """Return relu(x) + x, and its mean as a second output."""
    x, y, z, m = Value("x", 3, 4, 5), Value("y", 3, 4, 5), Value("z", 3, 4, 5), Value("m", 3)
    ops = (Activate((x,), y, activation=RELU), Binary((y, x), z, "add"), Mean((z,), m))
    outputs = (Port("image", z, (3, 4, 5)), Port("mean", m, (3,)))
    return Network(ops, (Port("input", x, (3, 4, 5)),), outputs), [x, y, z, m]


def test_values_are_the_inputs_and_what_the_operators_make() -> None:
    made, values = network()
    assert made.values == values


def test_a_value_is_used_by_readers_and_as_an_output() -> None:
    made, (x, y, z, m) = network()
    assert made.uses == {x: 2, y: 1, z: 2, m: 1}


def test_readers_and_outputs_follow_a_value_that_moved() -> None:
    made, (x, y, z, m) = network()
    activate, add, mean = made
    after = made.with_ops([activate, mean], {z: y})
    assert [op.inputs for op in after] == [(x,), (y,)]
    assert [port.value for port in after.outputs] == [y, m]
    assert add in made.ops


def test_an_operator_reads_other_values_in_the_place_of_some() -> None:
    a, b, c = Value("a", 2), Value("b", 2), Value("c", 2)
    op = Select((a, b), Value("out", 2), np.array([0, 3], np.int32), activation=RELU)
    after = op.reading({b: c})
    assert after.inputs == (a, c)
    assert after.output is op.output
    assert after.planes is op.planes
    assert after.activation is RELU


def test_values_of_the_same_name_differ() -> None:
    assert Value("x", 1) != Value("x", 1)


def test_an_activation_is_true_if_it_does_something() -> None:
    assert not NONE
    assert RELU
    assert Activation("clip", 0.0, 6.0) != RELU


def test_a_vector_has_one_pixel() -> None:
    assert Value("v", 7).is_vector
    assert not Value("row", 7, 1, 2).is_vector
    assert Value("image", 7, 3, 4).pixels == 12


def test_the_kind_of_an_operator_is_its_name() -> None:
    made, _ = network()
    assert [op.kind for op in made] == ["activate", "binary", "mean"]
