"""Does the engine compute in 8 bits what the compiler means?"""

from __future__ import annotations

import numpy as np

from billhook.compile import reference
from billhook.compile.int8.calibration import in_order
from billhook.compile.int8.ranges import STEPS
from billhook.compile.ir import Network
from billhook.compile.session import EngineSession
from billhook.errors import ExportError
from billhook.graph.inputs import ExampleInputs

SAMPLES = 4
SHARE = 0.01
"""Of the outputs that may be off by more than a step: where a number lies half-way between two of a grid,
the engine's float32 and the reference's float64 may round it differently, and what follows moves a little.
"""


def check_agreement(network: Network, file: bytes, batch: ExampleInputs) -> None:
    """Compare a model file with its network in the reference, on the first samples of a batch.

    Args:
        network: In 8 bits; need not be in the engine's operators.
        file: Made from it.
        batch: Data like the calibration's.
    Raises:
        ExportError: if more than 1 % of an output differ by more than a step: 1/255 of its largest number.
    """
    inputs = [array[:SAMPLES] for array in in_order(network, batch)]
    expected = reference.run(network, inputs)
    with EngineSession(file) as session:
        found = session.run(inputs)
    for port, e, a in zip(network.outputs, expected, found, strict=True):
        step = float(np.abs(e).max(initial=0.0)) / STEPS
        off = float((~(np.abs(e - a) <= step)).mean())
        if off > SHARE:
            raise ExportError(
                f"output {port.name!r} of the engine differs from the compiler's own arithmetic in 8 bits in "
                f"{off:.0%} of its numbers; export in float32, and report the network"
            )
