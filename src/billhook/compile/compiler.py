"""From a trained network to the file that the engine runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from billhook.compile.chains import chained
from billhook.compile.int8.calibration import Calibration, calibrate
from billhook.compile.int8.quantise import Quantisation, quantise
from billhook.compile.ir import Network
from billhook.compile.layout import lay_out
from billhook.compile.lower import lower
from billhook.compile.pack import pack
from billhook.compile.passes import INTO_ENGINE, run_passes
from billhook.compile.reuse import DeepReuse, with_reuse
from billhook.compile.tiles import Tile


@dataclass(frozen=True)
class Compiled:
    """A network ready to run.

    Attributes:
        network: What it computes, in the engine's operators.
        file: The model file.
        notes: In 8 bits: what stayed in float32, and why.
    """

    network: Network
    file: bytes
    notes: tuple[str, ...] = ()


def compile_model(
    model: nn.Module,
    example_inputs: Any,
    *,
    tiles: Mapping[str, Tile] | None = None,
    check: bool = True,
    calibration: Calibration | None = None,
    reuse: DeepReuse | None = None,
) -> Compiled:
    """Return the model file of a network, and what it computes.

    Args:
        model: Any network that can be captured; left as it is.
        example_inputs: One batch, as in `billhook.capture`; the batch size stays open.
        tiles: How convolutions are cut, by the name of what they make; usual ones if not given.
        check: Compare the network before and after every pass.
        calibration: Data for computing in 8 bits; float32 if not given.
        reuse: Let convolutions compute similar pixels once, which changes what the network computes.
    Raises:
        UnsupportedError: if the engine has no form for some of the operators; names all of them.
        TooLargeError: if the numbers of one sample do not fit into 8 GB.
        CompileError: if a pass breaks the network.
        InputError: if the calibration does not fit the network.
    """
    found = prepared(model, example_inputs, check=check, calibration=calibration)
    made = replace(assemble(found.network, tiles, check=check), notes=found.notes)
    if reuse is None:
        return made
    network = with_reuse(made.network, reuse)
    return replace(made, network=network, file=assembled(network, tiles))


def prepared(
    model: nn.Module, example_inputs: Any, *, check: bool = True, calibration: Calibration | None = None
) -> Quantisation:
    """Return a network after the passes, with values in 8 bits if it is calibrated; see `compile_model`."""
    network = run_passes(lower(model, example_inputs), check=check)
    if calibration is None:
        return Quantisation(network, ())
    ranges = calibrate(network, calibration)
    return quantise(network, ranges, keep=calibration.keep, correct_bias=calibration.correct_bias)


def assemble(network: Network, tiles: Mapping[str, Tile] | None = None, *, check: bool = False) -> Compiled:
    """Return the model file of a network that has been through the passes, and its operators in that file."""
    network = run_passes(network, check=check, passes=INTO_ENGINE)
    return Compiled(network, assembled(network, tiles))


def assembled(network: Network, tiles: Mapping[str, Tile] | None = None) -> bytes:
    """Return the model file of a network in the engine's operators."""
    return pack(network, lay_out(network, chained(network, tiles or {})), tiles)
