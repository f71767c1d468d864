"""Operators go whose results no output depends on."""

from __future__ import annotations

from billhook.compile.ir import RELU, Activate, Mean, Network, Port, Value
from billhook.compile.passes.drop_unused import drop_unused


def test_what_no_output_depends_on_goes() -> None:
    x, a, b, c = (Value(name, 2, 3, 3) for name in "xabc")
    m = Value("m", 2)
    needed = Activate((x,), a, activation=RELU)
    dead = Activate((a,), b, activation=RELU)
    deader = Activate((b,), c, activation=RELU)
    mean = Mean((a,), m)
    inputs = (Port("x", x, (2, 3, 3)),)
    network = Network((needed, dead, deader, mean), inputs, (Port("m", m, (2,)),))
    after = drop_unused(network)
    assert [op.output for op in after] == [a, m]
    assert after.inputs == inputs


def test_an_input_stays_though_nobody_reads_it() -> None:
    x, y = Value("x", 2), Value("y", 2)
    ports = (Port("x", x, (2,)), Port("y", y, (2,)))
    after = drop_unused(Network((), ports, (Port("out", x, (2,)),)))
    assert after.inputs == ports
