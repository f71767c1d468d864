"""The network of a candidate, as a module of its own: what a search hands over to training."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import nn

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
        whole = copy.deepcopy(whole)
        tensors = dict(named_tensors(whole))
        with torch.no_grad():
            for name, tensor in reconstruction.tensors(plan.keep).items():
                tensors[name].copy_(tensor)
    small = apply(whole, replace(plan, patterns={}))
    weights = dict(small.named_parameters())
    if reconstruction is not None:
        reconstruction.thin_out_(weights, plan.keep, plan.patterns)
    else:
        impose_(weights, plan.patterns)
    if problem.settings.recalibrates:
        recalibrate_batchnorm(small, problem.calibration(), len(problem.calibration()))
    return small
