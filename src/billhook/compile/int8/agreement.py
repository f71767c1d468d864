"""Does the engine compute in 8 bits what the compiler means?

Not only the outputs are compared: where a number lies half-way between two of a grid, float32 and float64
may round it differently, and after twenty layers such differences are everywhere. So every operator is
compared on what the engine itself gave it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from billhook.compile import reference
from billhook.compile.compiler import assemble
from billhook.compile.int8.calibration import in_order
from billhook.compile.int8.ranges import STEPS
from billhook.compile.ir import Convert, Flatten, Floats, Network, Op, Port, Value
from billhook.compile.session import EngineSession
from billhook.compile.tiles import Tile
from billhook.errors import ExportError
from billhook.graph.inputs import ExampleInputs

SAMPLES = 2
SHARE = 1e-3  # of the numbers of a value that may be rounded to the next step
HALF = 0.5 + 1e-3  # steps; as far from both, as means of numbers on a grid often are, either is right
TOLERANCE = 1e-4  # of numbers in float32, relative to the largest
CANCELLED = 1e-2  # what is that much smaller than what it was made of is not asked for as many digits


def check_agreement(network: Network, file: bytes, tiles: Mapping[str, Tile], batch: ExampleInputs) -> None:
    """Compare every operator with the reference, on the first samples of a batch.

    The operators are made to show what they compute in a second model file, whose outputs must be those of
    the first.

    Args:
        network: In 8 bits; not in the engine's operators.
        file: Made from it.
        tiles: With which it was made.
        batch: Data like the calibration's.
    Raises:
        ExportError: if they differ by more than rounding; names the operator.
    """
    inputs = [array[:SAMPLES] for array in in_order(network, batch)]
    shown = _showing(network)
    with EngineSession(assemble(shown, tiles).file) as session:
        found = session.run(inputs)
    made = {p.value: _tensor(p.value, a) for p, a in zip(network.inputs, inputs, strict=True)}
    values = [op.output for op in network if not _is_hidden(op)]
    made |= {v: _tensor(v, a) for v, a in zip(values, found, strict=False)}
    with torch.no_grad():
        for op in network:
            inputs_of = [made[v] for v in op.inputs]
            if _is_hidden(op):
                made[op.output] = reference.apply(op, inputs_of)
            elif not _agree(op, inputs_of, made[op.output]):
                raise ExportError(
                    f"{op.kind} {op.output.name!r} of the engine differs in 8 bits from the compiler's own "
                    "arithmetic; export in float32, and report the network"
                )
    with EngineSession(file) as session:
        _compare(network.outputs, session.run(inputs), found[len(values) :])


def _is_hidden(op: Op) -> bool:
    """Return True for planes that only linear layers read, flattened: the engine makes no such value."""
    return isinstance(op, Flatten) and op.output.quantised is not None


def _showing(network: Network) -> Network:
    """Return the network with every value as an output, in float32, ahead of its own outputs."""
    ops: list[Op] = []
    ports: list[Port] = []
    for op in network:
        ops.append(op)
        value = op.output
        if _is_hidden(op):
            continue
        if value.quantised is not None:
            value = replace(value, name=f"{value.name}.shown", quantised=None)
            ops.append(Convert((op.output,), value))
        ports.append(Port(f"{value.name}.{len(ports)}", value, (value.channels, value.height, value.width)))
    return replace(network, ops=tuple(ops), outputs=(*ports, *network.outputs))


def _tensor(value: Value, array: Floats) -> Tensor:
    shaped = array.reshape(-1, value.channels, value.height, value.width)
    return torch.tensor(shaped, dtype=torch.float64)


def _agree(op: Op, inputs: Sequence[Tensor], found: Tensor) -> bool:
    expected = reference.apply(op, inputs)
    off = (expected - found).abs()
    grid = op.output.quantised
    if grid is None:
        largest = max(float(x.abs().max()) * CANCELLED for x in inputs)
        return bool((off <= TOLERANCE * max(largest, float(expected.abs().max()))).all())
    exact = reference.apply(replace(op, output=replace(op.output, quantised=None)), inputs)
    next_one = (off > 0.5 * grid.scale) & ((exact - found).abs() > HALF * grid.scale)
    return bool((off < 1.5 * grid.scale).all()) and float(next_one.double().mean()) <= SHARE + 1 / off.numel()


def _compare(ports: Iterable[Port], found: list[Floats], shown: list[Floats]) -> None:
    for port, a, b in zip(ports, found, shown, strict=True):
        if not (np.abs(a - b) <= np.abs(b).max(initial=0.0) / STEPS).all():
            raise ExportError(
                f"output {port.name!r} of the engine depends on where its values lie; export in float32, and "
                "report the network"
            )
