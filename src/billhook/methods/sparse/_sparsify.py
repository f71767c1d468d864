"""`sparsify`: zeros in a network's weights in one call; `sparsifying_callback`: the same in your own loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

import billhook
from billhook.criteria._base import Loss, cross_entropy
from billhook.errors import InputError, NameNotFoundError, VerifyError
from billhook.graph import ExampleInputs, Graph, Plan, Scope, apply, capture, make_plan
from billhook.graph.patterns import Pattern, parse_pattern
from billhook.graph.weights import WeightLayer
from billhook.methods.sparse import sparse_methods
from billhook.methods.sparse._base import SparseMethod, SparseOutcome, SparseProblem
from billhook.methods.sparse._training import SparseCallback, SparseTraining
from billhook.options import configure
from billhook.sparse.holding import holds
from billhook.train import EpochRecord, FitConfig

Patterns = str | Mapping[str, str]


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
        structures = self.plan.patterns.values()
        weights = sum(s.mask.numel() for s in structures)
        return 1 - sum(s.nonzeros for s in structures) / max(1, weights)


def sparsify(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    sparsity: float,
    pattern: Patterns = "4x1|dense",
    method: str = "magnitude",
    options: Mapping[str, Any] | None = None,
    allocation: str = "lamp",
    sparsities: Mapping[str, float] | None = None,
    scope: Scope | None = None,
    plan: Plan | None = None,
    data: Any = None,
    loss: Loss | None = None,
    seed: int = 0,
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
        sparsity: Fraction of the weights in scope that become zero, from 0 to below 1.
        pattern: Which weights leave together: "unstructured", "4x1", "kernel_pattern", … (see
            `billhook.graph.patterns.parse_pattern`), the first of several that fits a layer
            ("kernel_pattern|4x1|dense", where "dense" leaves a layer as it is), or one such text for each weight
            or layer by name, as a mapping gives them; what it does not name stays dense.
        method: Name of a sparse method; see `billhook methods`.
        options: Its options.
        allocation: How zeros are shared out between layers: "lamp", "global", "uniform" or "erk".
        sparsities: Fraction of zeros by the name of a weight, in the place of `sparsity` and `allocation`.
        scope: Which layers may be touched, by the names of weights and of modules.
        plan: Channels that leave before; patterns are those of the smaller network.
        data: (inputs, targets), for methods that learn from data.
        loss: Scalar loss of (outputs, targets); cross entropy by default.
        seed: The same seed gives the same plan.
        training: How a method that trains does so; each has a default.
        checkpoint_dir, resume, progress: As in `shrink`.
    Raises:
        CaptureError: if the network cannot be captured.
        DivergedError, PenaltyError: if training diverges.
        InputError: for a sparsity outside [0, 1) or out of the patterns' reach, unknown names and options, a
            pattern that does not fit a layer, and missing data.
    """
    chosen = find_sparse_method(method, options or {})
    problem, graph, base = _problem(
        model,
        example_inputs,
        sparsity=sparsity,
        pattern=pattern,
        allocation=allocation,
        sparsities=sparsities,
        scope=scope,
        plan=plan,
        data=data,
        loss=loss,
        seed=seed,
        training=training,
        checkpoint_dir=None if checkpoint_dir is None else Path(checkpoint_dir),
        resume=resume,
        progress=progress,
    )
    outcome = chosen.run(problem)
    leak = holds(outcome.model, outcome.structures)
    if leak is not None:
        raise VerifyError(f"{leak!r} does not have its pattern after {method!r}; please report it")
    made_by = {
        "billhook": billhook.__version__,
        "sparse_method": method,
        "sparse_options": dict(options or {}),
        "pattern": pattern if isinstance(pattern, str) else dict(pattern),
        "weight_sparsity": sparsity,
        "allocation": allocation,
        "seed": seed,
    }
    whole = base.with_patterns(outcome.structures).with_made_by(**made_by)
    return Sparsified(
        whole if graph is None else whole.attached(graph), outcome.model, outcome.history, outcome.log
    )


def sparsifying_callback(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    sparsity: float,
    method: str,
    pattern: Patterns = "4x1|dense",
    options: Mapping[str, Any] | None = None,
    allocation: str = "lamp",
    sparsities: Mapping[str, float] | None = None,
    scope: Scope | None = None,
    loss: Loss | None = None,
    seed: int = 0,
) -> SparseCallback:
    """Return a sparse method that trains as a callback for a training loop of your own.

    The loop trains `model` itself; `driver.finish()` returns the plan, whose patterns the model has by then. Takes
    the arguments of `sparsify` and raises its errors.
    """
    chosen = find_sparse_method(method, options or {})
    if not isinstance(chosen, SparseTraining):
        raise InputError(
            f"sparse method {method!r} does not act during training, so it has no callback; use "
            "billhook.sparsify before the loop, and billhook.sparse.holding in it"
        )
    problem, _, _ = _problem(
        model,
        example_inputs,
        sparsity=sparsity,
        pattern=pattern,
        allocation=allocation,
        sparsities=sparsities,
        scope=scope,
        plan=None,
        loss=loss,
        seed=seed,
    )
    return chosen.callback(problem)


def find_sparse_method(name: str, options: Mapping[str, Any]) -> SparseMethod:
    """Return the sparse method called `name` with these options; raises `InputError`."""
    if name not in sparse_methods.names():
        raise NameNotFoundError("sparse method", name, sparse_methods.names())
    return configure(sparse_methods.get(name), options, what=f"sparse method {name!r}")


def patterns_of(
    layers: Sequence[WeightLayer], pattern: Patterns, scope: Scope | None = None
) -> dict[str, Pattern]:
    """Return the pattern of every weight that shall have one.

    Raises:
        InputError: if none of the alternatives fits a layer; names all such layers and why.
        ScopeError: if a pattern of the scope matches nothing.
    """
    chosen = (scope or Scope()).select_weights(layers)
    if isinstance(pattern, Mapping):
        known = {name for layer in layers for name in (layer.tensor, layer.layer)}
        for name in pattern:
            if name not in known:
                raise NameNotFoundError("weight", name, known)
        wanted = {
            layer.tensor: text
            for layer in chosen
            if (text := pattern.get(layer.tensor, pattern.get(layer.layer))) is not None
        }
    else:
        wanted = {layer.tensor: pattern for layer in chosen}
    read = {text: [_alternative(part) for part in text.split("|")] for text in set(wanted.values())}
    found: dict[str, Pattern] = {}
    problems: list[str] = []
    for layer in chosen:
        if layer.tensor not in wanted:
            continue
        reasons = []
        for alternative in read[wanted[layer.tensor]]:
            reason = None if alternative is None else alternative.refusal(layer.view, layer.groups)
            if reason is None:
                if alternative is not None:
                    found[layer.tensor] = alternative
                break
            reasons.append(f"{alternative}: {reason}")
        else:
            problems.append(f"{layer.tensor} {list(layer.shape)} ({'; '.join(reasons)})")
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise InputError(
            f"the pattern fits not every layer in scope: {'; '.join(problems[:5])}{more}. Exclude these layers, "
            "give them another pattern ('kernel_pattern|4x1'), or leave them as they are ('4x1|dense')"
        )
    if not found:
        raise InputError("no layer in scope has a pattern: nothing would become sparse")
    return found


def _alternative(text: str) -> Pattern | None:
    return None if text.strip() == "dense" else parse_pattern(text)


def _problem(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    pattern: Patterns,
    sparsity: float,
    scope: Scope | None,
    plan: Plan | None,
    loss: Loss | None,
    sparsities: Mapping[str, float] | None,
    **settings: Any,
) -> tuple[SparseProblem, Graph | None, Plan]:
    """Return the problem, the graph of the original network and the plan that patterns are added to."""
    if not 0 <= sparsity < 1:
        raise InputError(f"sparsity={sparsity!r} must be at least 0 and below 1")
    small = model if plan is None else apply(model, plan)
    graph = capture(small, example_inputs)
    base = make_plan(graph, {}) if plan is None else plan
    patterns = patterns_of(graph.weights, pattern, scope)
    if sparsities is not None:
        if missing := sorted(set(patterns) - set(sparsities)):
            raise InputError(f"sparsities: {missing[0]!r} has a pattern but no sparsity")
        sparsities = {name: float(sparsities[name]) for name in patterns}
        if wrong := [n for n, s in sparsities.items() if not 0 <= s < 1]:
            raise InputError(f"sparsities: that of {wrong[0]!r} must be at least 0 and below 1")
    problem = SparseProblem(
        small,
        example_inputs,
        patterns,
        sparsity,
        sparsities=sparsities,
        loss=loss or cross_entropy,
        captured=graph,
        **settings,
    )
    return problem, base.graph, base


__all__ = [
    "SparseOutcome",
    "Sparsified",
    "find_sparse_method",
    "patterns_of",
    "sparsify",
    "sparsifying_callback",
]
