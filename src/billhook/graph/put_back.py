"""The way back from a smaller network: its weights in a copy of the network in full size."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from billhook.errors import ApplyError
from billhook.graph.constants import Mask
from billhook.graph.fusions import fused
from billhook.graph.graph import graph_of
from billhook.graph.plan import Plan
from billhook.graph.slicing import named_tensors


def put_back(model: nn.Module, plan: Plan, small: nn.Module) -> nn.Module:
    """Return a copy of `model` from which `plan` makes `small` again, weights included.

    What leaves with the plan keeps the values that `model` has. So a decision can go on with a network whose
    weights have been trained or drawn anew after channels had left: `apply(put_back(model, plan, small),
    plan)` computes what `small` computes.

    Args:
        model: What the plan is for, in full size; not touched.
        plan: Which channels leave; patterns of single weights do not matter here.
        small: What `apply(model, plan)` returned, with any weights.
    Raises:
        PlanError: if the plan is for another network.
        ApplyError: if a tensor of the smaller network is not what the plan leaves of one in full size.
    """
    whole = copy.deepcopy(fused(model, plan))
    kept = graph_of(whole, plan).kept(plan)
    own = dict(named_tensors(whole))
    with torch.no_grad():
        for name, tensor in named_tensors(small):
            if name not in own:
                raise ApplyError(f"{name} of the smaller network has no counterpart in full size")
            if kept.numbered(name) is None:  # channel numbers are others in the smaller network
                _fill(name, own[name], kept.tensor(name, own[name].dim()), tensor.detach())
    return whole


def _fill(name: str, whole: Tensor, masks: list[Mask | None], small: Tensor) -> None:
    """Write `small` where the masks keep something of `whole`."""
    rank = whole.dim()
    stays = [np.arange(whole.shape[a]) if m is None else m.nonzero()[0] for a, m in enumerate(masks)]
    if tuple(map(len, stays)) != tuple(small.shape):
        raise ApplyError(
            f"{name} has shape {tuple(small.shape)} in the smaller network, but the plan leaves "
            f"{tuple(map(len, stays))} of {tuple(whole.shape)}"
        )
    if all(m is None for m in masks):
        whole.copy_(small)
        return
    index = tuple(
        torch.from_numpy(places).to(whole.device).view([-1 if a == b else 1 for b in range(rank)])
        for a, places in enumerate(stays)
    )
    whole[index] = small.to(whole)
