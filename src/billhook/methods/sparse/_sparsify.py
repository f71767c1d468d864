"""`sparsify`: zeros in a network's weights in one call; `sparsifying_callback`: the same in your own loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

import billhook
from billhook.criteria._base import Loss, cross_entropy
from billhook.errors import InputError, NameNotFoundError, VerifyError
from billhook.graph import ExampleInputs, Plan, Scope, apply, capture, make_plan
from billhook.graph.patterns import Pattern
from billhook.graph.structure import sparsity_of
from billhook.methods.sparse import sparse_methods
from billhook.methods.sparse._base import SparseMethod, SparseProblem
from billhook.methods.sparse._given import checked_sparsities, require_finite
from billhook.methods.sparse._patterns import MappingSubject, is_mapping, mapped, patterns_of
from billhook.methods.sparse._training import SparseCallback, SparseTraining
from billhook.options import configure
from billhook.sparse.allocation import reachable, require_sparsity
from billhook.sparse.alternatives import Patterns
from billhook.sparse.holding import holds
from billhook.train import EpochRecord, FitConfig


@dataclass(frozen=True, eq=False)
class Sparsified:
    """A sparse network and the plan that says which of its weights are zero or equal.

    Attributes:
        plan: For the original network: the channels that leave, if any, and the patterns.
        network: The sparse network. Its tensors have their full size; zeros are in them.
        history: One record for each epoch that the method trained.
        log: What the method noted on its way.
    """

    plan: Plan
    network: nn.Module
    history: tuple[EpochRecord, ...] = ()
    log: tuple[Mapping[str, float], ...] = ()

    @property
    def weight_sparsity(self) -> float:
        """Fraction of zeros in the weights that have a pattern."""
        return sparsity_of(self.plan.patterns.values())


def sparsify(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    sparsity: float | None = None,
    pattern: Patterns = "4x1|dense",
    method: str = "magnitude",
    options: Mapping[str, Any] | None = None,
    allocation: str | None = None,
    sparsities: Mapping[str, float] | None = None,
    scope: Scope | None = None,
    plan: Plan | None = None,
    data: Any = None,
    validation: Any = None,
    loss: Loss | None = None,
    seed: int = 0,
    backend: str = "onnxruntime",
    threads: int = 1,
    training: FitConfig | None = None,
    checkpoint_dir: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
) -> Sparsified:
    """Return a network in which a fraction of the weights is zero, in a pattern; `model` is left untouched.

        sparse = billhook.sparsify(model, x, pattern="4x1", sparsity=0.8, method="admm", data=loader)
        sparse.plan.save("plan.json")

    Args:
        model: A trained network, in any mode, on any device.
        example_inputs: One batch: a tensor, a tuple of arguments or a dict of keyword arguments.
        sparsity: Fraction of the weights in scope that become zero, from 0 to below 1. Not needed where
            `sparsities`, "rules:latency=…" or a pattern such as "2:4" say it.
        pattern: Which weights leave together: "unstructured", "4x1", "kernel_pattern", … (see
            `billhook.graph.patterns.parse_pattern`), the first of several that fits a layer
            ("kernel_pattern|4x1|dense", where "dense" leaves a layer as it is), or one such text for each
            weight or layer by name; what it does not name stays dense. "rules" and "search" map a pattern to
            each layer: see `Rules` and `Search` in `_patterns`, and `billhook.sparse.mapping`.
        method: Name of a sparse method; see `billhook methods`.
        options: Its options.
        allocation: How zeros are shared out between layers: "lamp", "global", "uniform" or "erk"; None: the
            method's own way.
        sparsities: Fraction of zeros by the name of a weight, in the place of `sparsity` and `allocation`.
        scope: Which layers may be touched, by the names of weights and of modules.
        plan: Channels that leave before; patterns are those of the smaller network.
        data: (inputs, targets), for methods that learn from data.
        validation: Held-out (inputs, targets), for the search for a mapping.
        loss: Scalar loss of (outputs, targets); cross entropy by default.
        seed: The same seed gives the same plan.
        backend: Runtime the network is meant for; for "billhook", a mapping is made by measured times.
        threads: Of that runtime.
        training: How a method that trains does so; each has a default.
        checkpoint_dir: Where a method that trains keeps what it needs to go on; None: nowhere.
        resume: Go on from there.
        progress: Show bars.
    Raises:
        CaptureError: if the network cannot be captured.
        DivergedError, PenaltyError: if training diverges.
        InputError: for a sparsity outside [0, 1) or out of the patterns' reach, unknown names and options, a
            pattern that does not fit a layer, and missing data.
    """
    chosen = find_sparse_method(method, options or {})
    problem, base = _problem(
        model,
        example_inputs,
        sparsity=sparsity,
        pattern=pattern,
        allocation=allocation,
        sparsities=sparsities,
        scope=scope,
        plan=plan,
        data=data,
        validation=validation,
        loss=loss,
        seed=seed,
        backend=backend,
        threads=threads,
        training=training,
        checkpoint_dir=None if checkpoint_dir is None else Path(checkpoint_dir),
        resume=resume,
        progress=progress,
    )
    outcome = chosen.run(problem)
    whole = base.with_patterns(outcome.structures)
    leak = holds(outcome.model, whole.patterns)
    if leak is not None:
        raise VerifyError(f"{leak!r} does not have its pattern after {method!r}; please report it")
    return Sparsified(
        whole.with_made_by(**_made_by(method, options, pattern, problem)),
        outcome.model,
        outcome.history,
        outcome.log,
    )


def sparsifying_callback(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    method: str,
    sparsity: float | None = None,
    pattern: Patterns = "4x1|dense",
    options: Mapping[str, Any] | None = None,
    allocation: str | None = None,
    sparsities: Mapping[str, float] | None = None,
    scope: Scope | None = None,
    data: Any = None,
    validation: Any = None,
    loss: Loss | None = None,
    seed: int = 0,
    backend: str = "onnxruntime",
    threads: int = 1,
) -> SparseCallback:
    """Return a sparse method that acts during training as a callback for a training loop of your own.

    The loop trains `model` itself; `driver.finish()` returns the plan, whose patterns the model has by then.
    The arguments are those of `sparsify`, which raises the same errors; `data` and `validation` are for the
    search for a mapping.
    """
    chosen = find_sparse_method(method, options or {})
    if not isinstance(chosen, SparseTraining):
        raise InputError(
            f"sparse method {method!r} is no callback: it does not act within one training; use "
            "billhook.sparsify before the loop, and billhook.train.holding in it"
        )
    problem, _ = _problem(
        model,
        example_inputs,
        sparsity=sparsity,
        pattern=pattern,
        allocation=allocation,
        sparsities=sparsities,
        scope=scope,
        plan=None,
        data=data,
        validation=validation,
        loss=loss,
        seed=seed,
        backend=backend,
        threads=threads,
    )
    callback = chosen.callback(problem)
    callback.made_by = _made_by(method, options, pattern, problem)
    return callback


def find_sparse_method(name: str, options: Mapping[str, Any]) -> SparseMethod:
    """Return the sparse method called `name` with these options; raises `InputError`."""
    if name not in sparse_methods.names():
        raise NameNotFoundError("sparse method", name, sparse_methods.names())
    return configure(sparse_methods.get(name), options, what=f"sparse method {name!r}")


def _made_by(
    method: str, options: Mapping[str, Any] | None, pattern: Patterns, problem: SparseProblem
) -> dict[str, Any]:
    shares = problem.sparsities
    return {
        "billhook": billhook.__version__,
        "sparse_method": method,
        "sparse_options": dict(options or {}),
        "pattern": pattern if isinstance(pattern, str) else dict(pattern),
        "weight_sparsity": problem.sparsity if shares is None else dict(shares),
        "allocation": problem.allocation,
        "seed": problem.seed,
    }


def _problem(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    pattern: Patterns,
    sparsity: float | None,
    allocation: str | None,
    sparsities: Mapping[str, float] | None,
    scope: Scope | None,
    plan: Plan | None,
    validation: Any,
    loss: Loss | None,
    seed: int,
    backend: str,
    threads: int,
    **settings: Any,
) -> tuple[SparseProblem, Plan]:
    """Return the problem, and the plan for the original network that patterns are added to."""
    if sparsity is not None:
        require_sparsity(sparsity, "sparsity")
        sparsity = float(sparsity)
    if sparsities is not None and (sparsity is not None or allocation is not None):
        raise InputError("sparsities say it all: leave sparsity and allocation out")
    small = model if plan is None else apply(model, plan)
    graph = capture(small, example_inputs)
    base = make_plan(graph, {}) if plan is None else plan
    if isinstance(pattern, str) and is_mapping(pattern):
        layers = (scope or Scope()).select_weights(graph.weights)
        data = settings.get("data")
        subject = MappingSubject(
            *(small, layers, sparsity, data, validation, int(seed), example_inputs),
            backend=backend,
            threads=threads,
        )
        found = mapped(pattern, subject)
        base = base.with_made_by(mapping=found.to_dict())
        patterns: Mapping[str, Pattern] = found.patterns
        if sparsities is None and allocation is None:
            sparsities = found.sparsities  # its latency is that of these zeros
    else:
        patterns = patterns_of(graph.weights, pattern, scope)
    views = {layer.tensor: layer.view for layer in graph.weights if layer.tensor in patterns}
    if sparsities is not None:
        sparsities = checked_sparsities(sparsities, patterns, graph.weights)
    elif sparsity is None:
        least, most = reachable(views, patterns)
        if least < most:
            raise InputError("how many weights shall be zero? Give sparsity=0.8")
        sparsity = least  # patterns such as 2:4 leave no choice
    require_finite(small, patterns)
    problem = SparseProblem(
        small,
        example_inputs,
        patterns,
        0.0 if sparsity is None else sparsity,
        allocation=allocation,
        sparsities=sparsities,
        kept={name: s for name, s in base.patterns.items() if name not in patterns},
        loss=loss or cross_entropy,
        seed=int(seed),
        captured=graph,
        **settings,
    )
    return problem, base
