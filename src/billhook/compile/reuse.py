"""Deep reuse: convolutions compute pixels that look alike once. An option, since it changes results.

Ning and Shen, "Deep Reuse: Streamline CNN Inference On the Fly via Coarse-Grained Computation Reuse",
ICS 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from billhook.compile import reference
from billhook.compile.format import VECTOR
from billhook.compile.ir import Floats, Network, Op, Port, Value
from billhook.compile.layout import lay_out
from billhook.compile.products import Product, Reuse, Room
from billhook.errors import InputError

MOST_HASHES = 16
_SEED = 0


@dataclass(frozen=True)
class DeepReuse:
    """How convolutions look for similar pixels.

    A slab takes hashes / outputs of the time of the exact product to cluster, clusters / pixels to compute
    and about 2 / length to add up.

    Attributes:
        length: Columns (an input channel at a place in the window) of a slab, which is clustered by itself.
            Longer slabs are cheaper to add up, and fewer of their pixels are alike.
        hashes: Hyper-planes, 1 to 16; there are at most 2^hashes clusters. More are slower and more exact.
        outputs: Convolutions with fewer output channels stay exact.
        samples: Inputs from which the places of the hyper-planes are learnt, one array [samples, ...] each:
            half of the pixels lie on either side. None: all go through zero, and pixels that differ in
            brightness only are alike.
    Raises:
        InputError: for numbers out of their range.
    Differs from the source:
        The first pixel of a cluster stands for it; a mean takes as long as an exact product of 100 outputs.
    """

    length: int = 32
    hashes: int = 10
    outputs: int = 32
    samples: Sequence[npt.NDArray[np.float32]] | None = None

    def __post_init__(self) -> None:
        whole = all(type(n) is int for n in (self.length, self.hashes, self.outputs))
        if not whole or self.length < 1 or not 1 <= self.hashes <= MOST_HASHES or self.outputs < 1:
            raise InputError(
                f"length={self.length}, hashes={self.hashes}, outputs={self.outputs}: deep reuse needs "
                f"positive whole numbers, and at most {MOST_HASHES} hashes"
            )


def with_reuse(network: Network, reuse: DeepReuse) -> Network:
    """Return a network in the engine's operators whose convolutions reuse; those in groups stay exact.

    Hyper-planes are random, and the same in every call.

    Raises:
        InputError: if there are no samples, or they do not fit or are not finite.
    """
    chosen = [op for op in network if isinstance(op, Product) and _fits(op, reuse)]
    seen = _inputs(network, chosen, reuse) if reuse.samples is not None else {}
    geometry = lay_out(network).geometry  # which room to work in does not change
    rng = np.random.default_rng(_SEED)
    ops: list[Op] = []
    for op in network:
        if op in chosen:
            assert isinstance(op, Product)
            pixels = geometry[op.output].vectors * VECTOR
            ops += _reusing(op, pixels, reuse, rng, seen.get(op.inputs[0]))
        else:
            ops.append(op)
    return replace(network, ops=tuple(ops))


def _fits(op: Product, reuse: DeepReuse) -> bool:
    floats = not any(v.quantised for v in (*op.inputs, op.output))
    return floats and len(op.weight) == 1 and op.weight.shape[1] >= reuse.outputs


def _reusing(
    op: Product,
    pixels: int,
    reuse: DeepReuse,
    rng: np.random.Generator,
    seen: npt.NDArray[np.float32] | None,
) -> list[Op]:
    k = op.weight.shape[2]
    slabs = -(-k // reuse.length)
    planes = rng.standard_normal((k, reuse.hashes), dtype=np.float32)
    offsets: Floats = np.zeros((slabs, reuse.hashes), np.float32)
    if seen is not None:
        columns = reference.columns(op.taps[0], seen, op.output)
        for slab in range(slabs):
            part = slice(slab * reuse.length, (slab + 1) * reuse.length)
            offsets[slab] = np.median(np.einsum("nkp,kh->hnp", columns[:, part], planes[part]), axis=(1, 2))
    # What the engine works in: sums and results of all pixels, three lists of pixels, a table of keys.
    width = -(-op.weight.shape[1] // VECTOR) * VECTOR
    floats = 2 * pixels * width + 3 * pixels + 2**reuse.hashes
    room = Value(f"{op.output.name}.room", floats)
    made = Reuse(
        (op.inputs[0], room, *op.inputs[1:]),
        op.output,
        op.weight[0],
        op.taps[0],
        op.bias,
        reuse.length,
        planes,
        offsets,
        activation=op.activation,
    )
    return [Room((), room), made]


def _inputs(
    network: Network, chosen: Sequence[Product], reuse: DeepReuse
) -> dict[Value, npt.NDArray[np.float32]]:
    """Return what the chosen convolutions read for the samples."""
    values = list(dict.fromkeys(op.inputs[0] for op in chosen))
    ports = tuple(Port(v.name, v, (v.channels, v.height, v.width)) for v in values)
    assert reuse.samples is not None
    if not all(len(array) for array in reuse.samples):
        raise InputError("deep reuse has no samples to learn from; leave them out, or give some")
    found = reference.run(replace(network, outputs=ports), reuse.samples)
    if not all(np.isfinite(a).all() for a in found):
        raise InputError(
            "deep reuse cannot learn from samples with numbers that are not finite; leave them out"
        )
    return {v: a.astype(np.float32) for v, a in zip(values, found, strict=True)}
