"""How much accuracy a decision costs, on held-out data."""

from __future__ import annotations

import copy

from torch import nn

from billhook.allocate.budget import format_value
from billhook.allocate.path import KEYS
from billhook.errors import BudgetError
from billhook.graph import Plan
from billhook.methods._base import Problem
from billhook.methods._decide import full_costs
from billhook.train import as_batches, evaluate, recalibrate_batchnorm
from billhook.train.rng import preserved_rng

_BATCHES = 16  # for batch-norm statistics; more of them change accuracy by less than units do


def accuracy_of(problem: Problem, model: nn.Module) -> float:
    """Return the accuracy of `model` on the problem's held-out data."""
    with preserved_rng():
        return evaluate(model, problem.validation, loss=problem.loss).accuracy


def settled_accuracy(problem: Problem, model: nn.Module) -> float:
    """Return the accuracy that `model` has once its batch norms have seen what is left of it.

    Statistics are measured anew on a copy, as they will be after removal; without training data they stay as
    they are. The model is left untouched.
    """
    if problem.data is None:
        return accuracy_of(problem, model)
    twin = copy.deepcopy(model)
    with preserved_rng():
        recalibrate_batchnorm(twin, as_batches(problem.data, problem.seed), _BATCHES)
    return accuracy_of(problem, twin)


def too_inaccurate(problem: Problem, held: Plan, accuracy: float, least: float) -> BudgetError:
    """Return the error for a budget that costs too much accuracy; it names, by formulas, what `held` costs.

    Args:
        problem: Its budget cannot be met.
        held: The smallest network that was seen to hold the accuracy.
        accuracy: Of the network that meets the budget.
        least: What it should be.
    """
    costs, full = problem.graph.costs.cost(held).to_dict(), full_costs(problem.graph)
    metrics = [m for m in problem.budget.bounds if m != "latency"] or ["macs"]
    reached = {m: float(costs[KEYS[m]]) for m in metrics}
    shown = ", ".join(f"{m} {format_value(m, v)} ({v / full[m]:.1%})" for m, v in reached.items())
    return BudgetError(
        f"budget {problem.budget} cannot be met: max_drop asks for an accuracy of at least {least:.2%}, and "
        f"within the budget it is {accuracy:.2%}; during training it held down to {shown} of the original. "
        "Raise max_drop or the bound, or train longer",
        reached,
    )
