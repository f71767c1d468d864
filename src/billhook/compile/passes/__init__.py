"""Named rewrites of a network; each computes the same before and after, and is checked to.

    merge_select        selections of planes become one
    fold_padding        zeros around planes become padding of windows
    before_rearranging  activations and scales are done before pixels are moved
    share_equal         what is computed several times is computed once
    name_activations    activations that are written out get their names
    through_select      what is done to joined planes is done before they are joined
    fold_affine         scales and shifts move into weights
    merge_parallel      sums of linear functions of one value become one of them
    move_scales         scales and shifts move to where they cost nothing
    fuse_activation     activations move into what makes their input
    fuse_residual       additions move into convolutions
    drop_unused         what nobody reads goes

and then, into the engine's operators:

    as_products         convolutions become products, depthwise windows or linear layers
    join_products       a product takes over the one that is added to it
    absorb_flatten      linear layers read planes where they lie
    whole_planes        what moves whole planes only becomes a selection

That is their order: what one makes, the next may use. What sums leave behind them is folded again.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from billhook.compile import reference
from billhook.compile.ir import Network
from billhook.compile.passes.absorb_flatten import absorb_flatten
from billhook.compile.passes.as_products import as_products
from billhook.compile.passes.before_rearranging import before_rearranging
from billhook.compile.passes.drop_unused import drop_unused
from billhook.compile.passes.fold_affine import fold_affine
from billhook.compile.passes.fold_padding import fold_padding
from billhook.compile.passes.fuse_activation import fuse_activation
from billhook.compile.passes.fuse_residual import fuse_residual
from billhook.compile.passes.join_products import join_products
from billhook.compile.passes.merge_parallel import merge_parallel
from billhook.compile.passes.merge_select import merge_select
from billhook.compile.passes.move_scales import move_scales
from billhook.compile.passes.name_activations import name_activations
from billhook.compile.passes.share_equal import share_equal
from billhook.compile.passes.through_select import through_select
from billhook.compile.passes.whole_planes import whole_planes
from billhook.errors import CompileError

Pass = Callable[[Network], Network]

PASSES: tuple[Pass, ...] = (
    merge_select,
    fold_padding,
    before_rearranging,
    share_equal,
    name_activations,
    through_select,
    fold_affine,
    merge_parallel,
    fold_affine,
    move_scales,
    fuse_activation,
    fuse_residual,
    drop_unused,
)
"""In the order in which they run; the name of a pass is that of its function."""

INTO_ENGINE: tuple[Pass, ...] = (as_products, join_products, absorb_flatten, whole_planes)
"""What comes last; no operator of theirs is known to the passes before."""

TOLERANCE = 1e-5  # of the largest output; folded weights are rounded to float32
_SEED = 0


def run_passes(network: Network, check: bool = True, passes: tuple[Pass, ...] = PASSES) -> Network:
    """Return the network after all passes.

    Args:
        network: Lowered network.
        check: Run the network on random inputs in float64 before and after every pass that changes it.
        passes: Rewrites, in order.
    Raises:
        CompileError: if a pass changes what the network computes; names the pass.
    """
    inputs = _random_inputs(network) if check else []
    known = reference.run(network, inputs) if check else []
    for rewrite in passes:
        rewritten = rewrite(network)
        if check and not _equal(network, rewritten):
            made = reference.run(rewritten, inputs)
            _compare(rewrite, network, known, made)
            known = made
        network = rewritten
    return network


def _equal(a: Network, b: Network) -> bool:
    """Return True if a pass has changed nothing: the same weights, the same values."""
    if len(a.ops) != len(b.ops) or a.outputs != b.outputs:
        return False
    for x, y in zip(a, b, strict=True):
        own, other = vars(x), vars(y)
        if type(x) is not type(y) or x.inputs != y.inputs:
            return False
        if any(own[name] is not other[name] for name in own if name != "inputs"):
            return False
    return True


def _random_inputs(network: Network) -> list[npt.NDArray[np.float64]]:
    generator = np.random.default_rng(_SEED)
    return [generator.standard_normal((1, *port.shape)) for port in network.inputs]


def _compare(
    rewrite: Pass,
    network: Network,
    before: list[npt.NDArray[np.float64]],
    after: list[npt.NDArray[np.float64]],
) -> None:
    for port, a, b in zip(network.outputs, before, after, strict=True):
        largest = float(np.abs(a[np.isfinite(a)]).max(initial=0.0))
        if not np.allclose(a, b, rtol=0.0, atol=TOLERANCE * largest, equal_nan=True):
            difference = float(np.nanmax(np.abs(a - b))) / (largest or 1.0)
            raise CompileError(
                f"pass {rewrite.__name__!r} changes output {port.name!r} by {difference:.1e} of its largest "
                "number; leave the pass out and report the network"
            )
