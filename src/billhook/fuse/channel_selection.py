"""Channel selection: every block of a pre-activation network gets its own choice of the trunk's channels."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, fx, nn

from billhook.graph import ExampleInputs, capture
from billhook.graph.capture import layer_of
from billhook.graph.rules._base import bind

# An operator of its own, so that capture can tell a selection layer from any look-up by number. It is
# composed of index_select, which is all that exporters and autograd get to see.
torch.library.define("billhook::select_channels", "(Tensor x, Tensor index) -> Tensor")
torch.library.impl(
    "billhook::select_channels", "CompositeImplicitAutograd", lambda x, index: x.index_select(1, index)
)

_CONSUMERS = ("conv1d", "conv2d", "conv3d", "linear")
_PASSING = ("dropout", "feature_dropout", "alpha_dropout", "max_pool1d", "max_pool2d", "max_pool3d",
            "avg_pool1d", "avg_pool2d", "avg_pool3d")  # fmt: skip


class ChannelSelection(nn.Module):
    """Passes on the channels that `index` names; all of them until a plan removes some.

    Pruning cuts the buffer `index`, never the input. It multiplies nothing, but copies what it passes on.

    Args:
        channels: Channels of the input, [batch, channels, ...].
    """

    index: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("index", torch.arange(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the selected channels of `x`."""
        selected: Tensor = torch.ops.billhook.select_channels(x, self.index)
        return selected

    def extra_repr(self) -> str:
        """Return how many channels are selected."""
        return f"{len(self.index)} channels"


def channel_selection(model: nn.Module, example_inputs: ExampleInputs) -> nn.Module:
    """Return a copy of `model` that computes the same, with selection layers in front of trunk norms.

    In pre-activation networks (ResNet v2, DenseNet) a batch norm reads a trunk that others read, too.
    Without selection a channel can leave such a block only if it leaves the whole trunk. With it, what the
    block reads is a group of its own, which is judged by the block's own norm and convolution, while the
    trunk stays whole. Networks without such norms come back as plain copies.

    A norm "bn" becomes a sequence: its tensors are found as "bn.norm.weight" and so on, the choice as
    "bn.select.index", a group "bn.select". Weights are copied; train or prune the copy.

    Args:
        model: The network; captured in eval mode, left as it is.
        example_inputs: One batch, as in `capture`.
    References:
        Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017, section 3
        and its published code. arXiv:1708.06519.
    Differs from the source:
        The selection stands in front of the norm, not behind it, so the norm becomes smaller as well.
    """
    program = capture(model, example_inputs).program
    rewritten = copy.deepcopy(model)
    modules = dict(rewritten.named_modules())
    norms = [n for n in program.graph.nodes if n.op == "call_function" and bind(n).name == "batch_norm"]
    runs = [layer_of(n) for n in norms]
    for node in norms:
        name = layer_of(node)
        norm = modules.get(name)
        if not name or not isinstance(norm, nn.modules.batchnorm._BatchNorm) or runs.count(name) > 1:
            continue
        if _read_by_others(bind(node).operands[0]) and _feeds_convolutions(node):
            chosen = ChannelSelection(norm.num_features).to(_device_of(norm)).train(norm.training)
            pair = nn.Sequential(OrderedDict(select=chosen, norm=norm)).train(norm.training)
            rewritten.set_submodule(name, pair)
    return rewritten


def _read_by_others(value: fx.Node) -> bool:
    """Return True if more than one operator reads `value`, or what was put side by side to make it."""
    if len(value.users) > 1:
        return True
    joined = value.op == "call_function" and bind(value).name == "cat"
    return joined and any(_read_by_others(part) for part in bind(value).operands)


def _feeds_convolutions(node: fx.Node) -> bool:
    """Return True if the value goes, activated or pooled, to convolutions and linear layers only."""
    for user in node.users:
        if user.op != "call_function":
            return False
        call = bind(user)
        if call.name in _CONSUMERS:
            continue
        target: Any = user.target
        passes = call.name in _PASSING or torch.Tag.pointwise in getattr(target, "tags", ())
        if not passes or len(call.operands) > 1 or not _feeds_convolutions(user):
            return False
    return bool(node.users)


def _device_of(module: nn.Module) -> torch.device:
    """Return where the module's tensors lie."""
    found = next((t for t in (*module.parameters(), *module.buffers())), None)
    return torch.device("cpu") if found is None else found.device
