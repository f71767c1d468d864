"""`prune` and `shrink`: a verified plan in one call; `pruning_callback`: the same in your own loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from torch import nn

import billhook
from billhook.allocate.budget import Budget
from billhook.criteria import criteria
from billhook.criteria._base import Loss, cross_entropy
from billhook.errors import InputError, NameNotFoundError
from billhook.fuse.fuse import fuse
from billhook.fuse.options import Fusion
from billhook.graph import ExampleInputs, Graph, Plan, Scope, capture
from billhook.graph import verify as verify_plan
from billhook.graph.verify import disagreement
from billhook.methods import methods, names
from billhook.methods._base import Method, Outcome, Problem
from billhook.methods._training import MethodCallback, TrainingMethod
from billhook.options import configure
from billhook.train import FitConfig


def prune(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    budget: Budget,
    method: str = "l2",
    options: Mapping[str, Any] | None = None,
    allocator: str | None = None,
    scope: Scope | None = None,
    data: Any = None,
    loss: Loss | None = None,
    round_to: int | Literal["auto"] = "auto",
    backend: str = "onnxruntime",
    threads: int = 1,
    mixing: Literal["freeze", "allow"] = "freeze",
    seed: int = 0,
    verify: bool = True,
    training: FitConfig | None = None,
    validation: Any = None,
    fusion: Fusion | None = None,
) -> Plan:
    """Return a plan that makes `model` meet `budget`; the model itself is left untouched.

    Nothing is removed yet: look at the plan, keep it, `apply` it. Takes one capture of the network, one look
    at its weights (or at `data`), and two forward passes to verify; a latency bound adds up to eight exports
    and timing runs. Methods that train or repair weights do so on a copy, of which only the plan comes back:
    `shrink` returns the weights as well.

    Args:
        model: A trained network, in any mode, on any device.
        example_inputs: One batch: a tensor, a tuple of arguments or a dict of keyword arguments.
        budget: Bounds to meet, e.g. `Budget(macs=0.5)`.
        method: Name of a method, or of a criterion for one-shot pruning with it; see `billhook methods`.
        options: Options of the method or criterion.
        allocator: How width is shared out between groups: "global" or "uniform"; methods have their own
            defaults, for a criterion it is "global".
        scope: Which groups may be touched; all prunable ones by default. Outputs are always protected.
        data: (inputs, targets), for methods that learn from data: a `Batches`, a DataLoader or a list.
        loss: Scalar loss of (outputs, targets); cross entropy by default.
        round_to: Kept channels are a multiple of this; "auto" takes what `backend` runs fast.
        backend: Runtime the network is meant for, and which a latency bound is measured on.
        threads: Threads of that runtime when it is measured.
        mixing: "allow" lets channels leave that pass through layer norm and the like; see `capture`.
        seed: The same seed gives the same plan.
        verify: Check on the example inputs that removal equals silence.
        training: How a method that trains does so; each has a default.
        validation: Held-out (inputs, targets), for methods that check accuracy while they decide ("fupruner"
            with `max_drop`).
        fusion: Rewrite the network first, so that shortcuts can be pruned and blocks of a stage differ; see
            `billhook.fuse.fuse`. The plan names the fusions, and `apply` carries them out again.
    Returns:
        A plan whose `made_by` records how it was made and what it costs.
    Raises:
        BudgetError: if no allowed widths meet the budget; names the reachable bound.
        CaptureError: if the network cannot be captured.
        DivergedError: if the loss of a method that trains becomes NaN or infinite.
        InputError: for unknown names, options, or scope patterns, and for missing data.
        VerifyError: if the smaller network differs from the silenced one; names the first such layer.
    """
    return shrink(
        model,
        example_inputs,
        budget=budget,
        method=method,
        options=options,
        allocator=allocator,
        scope=scope,
        data=data,
        loss=loss,
        round_to=round_to,
        backend=backend,
        threads=threads,
        mixing=mixing,
        seed=seed,
        verify=verify,
        training=training,
        validation=validation,
        fusion=fusion,
    ).plan


def shrink(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    budget: Budget,
    method: str = "l2",
    options: Mapping[str, Any] | None = None,
    allocator: str | None = None,
    scope: Scope | None = None,
    data: Any = None,
    loss: Loss | None = None,
    round_to: int | Literal["auto"] = "auto",
    backend: str = "onnxruntime",
    threads: int = 1,
    mixing: Literal["freeze", "allow"] = "freeze",
    seed: int = 0,
    verify: bool = True,
    training: FitConfig | None = None,
    checkpoint_dir: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
    graph: Graph | None = None,
    validation: Any = None,
    fusion: Fusion | None = None,
) -> Outcome:
    """Return a plan and the network it is for: `model`, or a copy whose weights the method has changed.

        outcome = billhook.shrink(model, x, method="gator", data=loader, budget=billhook.Budget(macs=0.5))
        small = outcome.small()

    Takes the arguments of `prune` and raises its errors. A method that trains keeps what it needs to go on in
    `checkpoint_dir`, if given; with `resume` it goes on there, and the plan is that of an uninterrupted
    run. `progress` shows a bar meanwhile. `graph` is the graph of `model`, if it was captured already. With
    `fusion` the network of the outcome is the rewritten one.
    """
    chosen = find_method(method, options or {}, allocator)
    before, bounds = None, budget
    if fusion is not None and fusion.level == "aggressive":
        before = (graph or capture(model, example_inputs, mixing=mixing)).costs.cost(None)
        again = hasattr(data, "__len__")  # else it can be read only once, and the method needs it
        seen = Problem(model, example_inputs, budget, data=data, seed=seed).calibration if again else None
        model = fuse(model, example_inputs, fusion, data=None if seen is None else seen.batches).network
        graph = capture(model, example_inputs, mixing=mixing)
        bounds = budget.of(before, graph.costs.cost(None))
    problem = Problem(
        model,
        example_inputs,
        bounds,
        scope=scope or Scope(),
        data=data,
        loss=loss or cross_entropy,
        seed=seed,
        backend=backend,
        threads=threads,
        round_to=round_to,
        mixing=mixing,
        training=training,
        checkpoint_dir=None if checkpoint_dir is None else Path(checkpoint_dir),
        resume=resume,
        progress=progress,
        captured=graph,
        validation=validation,
    )
    outcome = chosen.run(problem)
    if verify:
        _verify(problem.on(outcome.model), outcome.plan)
    plan = outcome.plan.with_made_by(
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
            "before": (before or problem.graph.costs.cost(None)).to_dict(),
            "after": problem.graph.costs.cost(outcome.plan).to_dict(),
        },
    )
    return Outcome(plan, outcome.model, outcome.history)


def pruning_callback(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    budget: Budget,
    method: str,
    options: Mapping[str, Any] | None = None,
    allocator: str | None = None,
    scope: Scope | None = None,
    data: Any = None,
    loss: Loss | None = None,
    round_to: int | Literal["auto"] = "auto",
    backend: str = "onnxruntime",
    threads: int = 1,
    mixing: Literal["freeze", "allow"] = "freeze",
    seed: int = 0,
    validation: Any = None,
) -> MethodCallback:
    """Return a method that trains as a callback for a training loop of your own.

    The loop trains `model` itself; see `billhook.train.CallbackDriver` for the lines that drive a callback.
    At the end `driver.finish()` returns the plan, and `apply(model, plan)` the smaller network. Takes the
    arguments of `prune` and raises its errors. `data` is for criteria that learn from data, and for ThiNet,
    `validation` for methods that check accuracy.
    """
    chosen = find_method(method, options or {}, allocator)
    if not isinstance(chosen, TrainingMethod):
        raise InputError(
            f"method {method!r} does not act during training, so it has no callback; "
            "use billhook.prune before the loop"
        )
    return chosen.callback(
        Problem(
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
            validation=validation,
        )
    )


def find_method(name: str, options: Mapping[str, Any], allocator: str | None) -> Method:
    """Return the method called `name`, or one-shot pruning with the criterion of that name."""
    if name in methods.names():
        if allocator is not None:
            if "allocator" not in {f.name for f in fields(methods.get(name))}:
                raise InputError(f"method {name!r} shares the width out itself; leave the allocator out")
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
