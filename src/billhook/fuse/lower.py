"""`lower`: from copies as lists of numbers to plain operators that every runtime has."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import nn

from billhook.errors import InputError
from billhook.fuse._forms import (
    FORMS,
    Form,
    block_of_copy,
    compose,
    is_copy,
    is_identity,
    lower_copy,
    picked_by,
    replace,
)
from billhook.fuse._match import name_of, source_of
from billhook.fuse.copies import ChannelCopy
from billhook.fuse.fuse import check_same, run_passes
from billhook.fuse.options import FOLDING, Fusion
from billhook.fuse.proof import nonnegative, ranges
from billhook.graph import ExampleInputs
from billhook.graph import inputs as example
from billhook.graph.capture import eval_mode
from billhook.graph.fusions import as_layers, tidy
from billhook.graph.layers import LayeredNetwork, observe
from billhook.graph.rules._base import shape_of


def lower(
    network: nn.Module,
    example_inputs: ExampleInputs,
    *,
    forms: Form | Mapping[str, Form] = "pointwise",
    fold: tuple[str, ...] = FOLDING,
) -> LayeredNetwork:
    """Return `network` in eval mode as plain operators: shortcuts lowered, parameters folded.

    A shortcut of which every channel is still there becomes the sum it was; one of which nothing is left
    goes, and the sum with it. A network that has lost nothing gets its own operators back. Any other shortcut
    becomes, as `forms` say, "pointwise": a 1×1 convolution whose weights are zeros and ones, and which takes
    a stride along; "gather": a look-up of channels; "concat": further inputs of the convolution before the
    sum, which then does the adding; "sum": the strides and paddings that the original had, if it only lacks
    those.

    Args:
        network: A fused network, pruned or not, or any other, of which only parameters are folded.
        example_inputs: One batch; the result takes other batch sizes if `network` does.
        forms: One form for all shortcuts, or form by name of the block (see `shortcuts`).
        fold: Operators to fold: "batch_norm", "parallel", "concat", "activation".
    Raises:
        InputError: for an unknown form or block. FusionError: if the result differs.
    """
    call = example.as_call(example_inputs)
    lowered = copy.deepcopy(network) if isinstance(network, LayeredNetwork) else as_layers(network, call)
    lowered.eval()
    with eval_mode(lowered):
        before = copy.deepcopy(lowered), observe(lowered, call)
        chosen = _chosen(lowered, forms)
        if lowered.whole:  # its own operators are what it gets back
            chosen = {block: form if form == "concat" else "sum" for block, form in chosen.items()}
        if "concat" in chosen.values():  # the convolution must do what it does alone
            run_passes(lowered, call, Fusion(operators=("batch_norm",)), "fold")
        compose(lowered)
        for node in [n for n in lowered.graph.nodes if is_copy(lowered, n)]:
            lower_copy(lowered, node, chosen.get(block_of_copy(node), "pointwise"))
        tidy(lowered)
        for name in [n for n, m in lowered.named_modules() if isinstance(m, ChannelCopy)]:
            lowered.delete_submodule(name)  # a block may be named after a layer, which holds them then
        if not lowered.whole:
            _drop_idle_activations(lowered)
        check_same("lowering of shortcuts", (), before, lowered, call)
    run_passes(lowered, call, Fusion(operators=fold), "fold")
    return lowered


def shortcuts(network: LayeredNetwork, example_inputs: ExampleInputs) -> dict[str, tuple[int, ...]]:
    """Return the blocks whose shortcuts have more than one form, with the shape of what they copy.

    A network that has lost nothing has none.
    """
    if network.whole:
        return {}
    probe = copy.deepcopy(network)
    with eval_mode(probe):
        observe(probe, example.as_call(example_inputs))
    compose(probe)
    found = {}
    for node in probe.graph.nodes:
        if is_copy(probe, node) and not is_identity(*picked_by(probe, node)):
            found[block_of_copy(node)] = shape_of(source_of(node))
    return found


def has_copies(network: nn.Module) -> bool:
    """Return True if `network` holds copies as lists of numbers."""
    return any(isinstance(m, ChannelCopy) for m in network.modules())


def _chosen(network: LayeredNetwork, forms: Form | Mapping[str, Form]) -> dict[str, Form]:
    blocks = {block_of_copy(n) for n in network.graph.nodes if is_copy(network, n)}
    chosen = dict.fromkeys(blocks, forms) if isinstance(forms, str) else dict(forms)
    for block, form in chosen.items():
        if form not in FORMS:
            raise InputError(f"form {form!r} of {block!r}: expected one of {', '.join(FORMS)}")
        if block not in blocks:
            raise InputError(
                f"no block {block!r} with copies; there are {', '.join(sorted(blocks)) or 'none'}"
            )
    return chosen


def _drop_idle_activations(network: LayeredNetwork) -> None:
    """Drop every ReLU of what is proved to be no less than zero: what a block that is gone has left."""
    known = ranges(network)
    for node in list(network.graph.nodes):
        if name_of(node) == "relu" and nonnegative(network, source_of(node), known) is None:
            replace(node, source_of(node))
    tidy(network)
