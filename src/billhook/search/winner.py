"""The network of a candidate, as a module of its own: what a search hands over to training."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from billhook.graph import Plan, apply
from billhook.graph.slicing import named_tensors
from billhook.graph.structure import impose_
from billhook.search.problem import SearchProblem
from billhook.search.repair import reconstruction_of
from billhook.train import recalibrate_batchnorm


def repaired(problem: SearchProblem, plan: Plan) -> nn.Module:
    """Return the smaller network of a plan, repaired as candidates are before they are judged.

    The problem's model is left as it is. Takes a look at the calibration images.

    Args:
        problem: The network, its data, and how candidates are repaired.
        plan: Of a candidate.
    """
    reconstruction = reconstruction_of(problem) if problem.settings.reconstructs else None
    whole = problem.model
    if reconstruction is not None:
        whole = with_tensors(whole, reconstruction.tensors(plan.keep))
    small = apply(whole, replace(plan, patterns={}))
    weights = dict(small.named_parameters())
    if reconstruction is not None:
        reconstruction.thin_out_(weights, plan.keep, plan.patterns)
    else:
        impose_(weights, plan.patterns)
    if problem.settings.recalibrates:
        recalibrate_batchnorm(small, problem.calibration(), len(problem.calibration()))
    return small


def own_network(problem: SearchProblem, plan: Plan, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return the smaller network of a plan with the parameters that a searcher has made for it.

    Statistics of batch norms are measured anew, because those were made for no candidate.

    Args:
        problem: The network and its data.
        plan: Of a candidate, which has no patterns of single weights.
        tensors: Parameters in full size by name.
    """
    small = apply(with_tensors(problem.model, tensors), plan)
    recalibrate_batchnorm(small, problem.calibration(), len(problem.calibration()))
    return small


def with_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of a network in which some tensors have other values; all have names of its own."""
    twin = copy.deepcopy(model)
    own = dict(named_tensors(twin))
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)
    return twin
