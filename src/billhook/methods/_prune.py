"""`prune`: a verified plan in one call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from torch import nn

import billhook
from billhook.allocate.budget import Budget
from billhook.criteria import criteria
from billhook.criteria._base import Loss, cross_entropy
from billhook.errors import NameNotFoundError
from billhook.graph import ExampleInputs, Plan, Scope
from billhook.graph import verify as verify_plan
from billhook.graph.verify import disagreement
from billhook.methods import methods, names
from billhook.methods._base import Method, Problem
from billhook.options import configure


def prune(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    budget: Budget,
    method: str = "l2",
    options: Mapping[str, Any] | None = None,
    allocator: str | None = None,
    scope: Scope | None = None,
    data: Iterable[Any] | None = None,
    loss: Loss | None = None,
    round_to: int | Literal["auto"] = "auto",
    backend: str = "onnxruntime",
    threads: int = 1,
    mixing: Literal["freeze", "allow"] = "freeze",
    seed: int = 0,
    verify: bool = True,
) -> Plan:
    """Return a plan that makes `model` meet `budget`; the model itself is left untouched.

    Nothing is removed yet: look at the plan, keep it, `apply` it. Takes one capture of the network, one look
    at its weights (or at `data`), and two forward passes to verify; a latency bound adds up to eight exports
    and timing runs.

    Args:
        model: A trained network, in any mode, on any device.
        example_inputs: One batch: a tensor, a tuple of arguments or a dict of keyword arguments.
        budget: Bounds to meet, e.g. `Budget(macs=0.5)`.
        method: Name of a method, or of a criterion for one-shot pruning with it; see `billhook methods`.
        options: Options of the method or criterion.
        allocator: How width is shared out between groups, for a criterion: "global" (default) or "uniform".
        scope: Which groups may be touched; all prunable ones by default. Outputs are always protected.
        data: Batches (inputs, targets), for methods that learn from data.
        loss: Scalar loss of (outputs, targets); cross entropy by default.
        round_to: Kept channels are a multiple of this; "auto" takes what `backend` runs fast.
        backend: Runtime the network is meant for, and which a latency bound is measured on.
        threads: Threads of that runtime when it is measured.
        mixing: "allow" lets channels leave that pass through layer norm and the like; see `capture`.
        seed: The same seed gives the same plan.
        verify: Check on the example inputs that removal equals silence.
    Returns:
        A plan whose `made_by` records how it was made and what it costs.
    Raises:
        BudgetError: if no allowed widths meet the budget; names the reachable bound.
        CaptureError: if the network cannot be captured.
        InputError: for unknown names, options, or scope patterns.
        VerifyError: if the smaller network differs from the silenced one; names the first such layer.
    """
    chosen = _method(method, options or {}, allocator)
    problem = Problem(
        model,
        example_inputs,
        budget,
        scope=scope or Scope(),
        data=data,
        loss=loss or cross_entropy,
        seed=seed,
        backend=backend,
        threads=threads,
        round_to=round_to,
        mixing=mixing,
    )
    plan = chosen.plan(problem)
    if verify:
        _verify(problem, plan)
    return plan.with_made_by(
        billhook=billhook.__version__,
        method=method,
        options=dict(options or {}),
        allocator=allocator,
        budget=budget.to_dict(),
        scope={"include": list(problem.scope.include), "exclude": list(problem.scope.exclude)},
        seed=seed,
        round_to=round_to,
        backend=backend,
        verified=verify,
        cost={
            "before": problem.graph.costs.cost(None).to_dict(),
            "after": problem.graph.costs.cost(plan).to_dict(),
        },
    )


def _method(name: str, options: Mapping[str, Any], allocator: str | None) -> Method:
    """Return the method called `name`, or one-shot pruning with the criterion of that name."""
    if name in methods.names():
        if allocator is not None:
            options = {**options, "allocator": allocator}
        return configure(methods.get(name), options, what=f"method {name!r}")
    if name not in criteria.names():
        raise NameNotFoundError("method", name, names())
    settings: dict[str, Any] = {"criterion": name, "options": options}
    if allocator is not None:
        settings["allocator"] = allocator
    return configure(methods.get("one_shot"), settings, what=f"method {name!r}")


def _verify(problem: Problem, plan: Plan) -> None:
    check = verify_plan(problem.model, plan, problem.example_inputs)
    if not check.agrees:
        raise disagreement(check, problem.model, problem.example_inputs, exclude="scope=Scope(exclude=…)")
