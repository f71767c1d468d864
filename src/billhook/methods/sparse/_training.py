"""Sparse methods that decide while a network is trained."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from billhook.errors import InputError
from billhook.graph import Plan, make_plan
from billhook.graph.structure import Structure
from billhook.methods._training import Deciding, name_of, require_data, train_for
from billhook.methods.sparse._base import SparseMethod, SparseOutcome, SparseProblem
from billhook.options import Number, option
from billhook.sparse.holding import Held
from billhook.train import FitConfig, StepContext


class SparseCallback(Deciding):
    """A sparse method at work: it acts until its part of the training is over, then structures are held.

    Attributes:
        problem: Whose weights; its model is the one in training.
        until: Part of the training after which structures are fixed.
        made_by: What the plan says of how it was made.
    """

    def __init__(self, method: SparseTraining, problem: SparseProblem) -> None:
        super().__init__(problem.model)
        self.problem, self.until = problem, method.until
        self.made_by: Mapping[str, Any] = {}
        self._held: Held | None = None
        self._anchors: dict[str, Any] = {}
        self._about = _fingerprint(method, problem)

    @abstractmethod
    def settle(self, context: StepContext) -> Mapping[str, Structure]:
        """Return the structures that training ends with."""

    def act(self, context: StepContext) -> None:
        """Act before a step of the method's part of the training."""

    def pull(self, context: StepContext) -> None:
        """Change the gradients of a step of the method's part of the training."""

    def push(self, context: StepContext) -> None:
        """Change the weights after a step of the method's part of the training."""

    def begin(self, context: StepContext) -> None:
        """Note that nothing is fixed yet."""
        self.memory |= {"structures": {}, "settled": False, "log": []}

    def before_step(self, context: StepContext) -> None:
        """Act, or fix the structures when the time has come."""
        super().before_step(context)
        if self._held is None and (self.memory["structures"] or self.problem.kept):
            structures = {**self.problem.kept, **_read(self.memory["structures"])}
            self._held = Held(context.model, structures, self._anchors)
        if not self.memory["settled"]:
            if context.step >= round(self.until * context.total_steps):
                self.fix(context)
            else:
                self.act(context)

    def after_backward(self, context: StepContext) -> None:
        """Let the method see the gradients, and hold them where there is something to hold."""
        if not self.memory["settled"]:
            self.pull(context)
        if self._held is not None:
            self._held.gradients_()

    def after_step(self, context: StepContext) -> None:
        """Let the method see the weights, and hold them where there is something to hold."""
        if not self.memory["settled"]:
            self.push(context)
        if self._held is not None:
            self._held.step_(context.optimizer)

    def plan(self, context: StepContext) -> Plan:
        """Return a plan that demands the structures; the network has them."""
        if not self.memory["settled"]:
            self.fix(context)
        structures = _read(self.memory["structures"])
        Held(context.model, {**self.problem.kept, **structures})  # averaged weights remember what was before
        plan = make_plan(self.problem.graph, {}).with_patterns(structures)
        return plan.with_made_by(**self.made_by, log=list(self.memory["log"]))

    def state_dict(self) -> dict[str, Any]:
        """Return everything it remembers, the signs of equal weights too, and what the run is about."""
        signs = {} if self._held is None else self._held.signs
        return {**super().state_dict(), "anchors": signs, "about": self._about}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken; raises `InputError` if it is of a run with other settings."""
        if state["about"] != self._about:
            raise InputError(
                "the checkpoint is of a run with other patterns, another sparsity or other options; use the "
                "same, or another directory for a new run"
            )
        super().load_state_dict(state)
        self._anchors = dict(state["anchors"])

    def fix(self, context: StepContext) -> None:
        """End the method's part of the training; raises what `settle` raises."""
        self.hold(context, self.settle(context))
        self.memory["settled"] = True

    def hold(self, context: StepContext, structures: Mapping[str, Structure]) -> None:
        """Hold these structures from now on."""
        self._held = Held(context.model, {**self.problem.kept, **structures})
        self._held.momentum_(context.optimizer)
        self.memory["structures"] = {name: s.to_dict() for name, s in structures.items()}


def _fingerprint(method: SparseTraining, problem: SparseProblem) -> str:
    """Return what must be the same for a run to be resumed."""
    patterns = {name: str(pattern) for name, pattern in problem.patterns.items()}
    shares = problem.sparsities if problem.sparsities is None else dict(problem.sparsities)
    return repr((method, patterns, problem.sparsity, problem.allocation, shares, sorted(problem.kept)))


def _read(structures: Mapping[str, Any]) -> dict[str, Structure]:
    return {name: Structure.from_dict(data) for name, data in structures.items()}


@dataclass(frozen=True)
class SparseTraining(SparseMethod):
    """A sparse method that trains; a subclass says how by making a callback."""

    # How it trains if nobody says otherwise. The rate is that of fine-tuning a trained network.
    training: ClassVar[FitConfig] = FitConfig(epochs=2, lr=0.05, schedule="cosine")

    until: float = option(0.4, Number(0.01, 1), "part of training after which the zeros are fixed")

    @abstractmethod
    def callback(self, problem: SparseProblem) -> SparseCallback:
        """Return what acts on `problem.model` while somebody trains it."""

    def run(self, problem: SparseProblem) -> SparseOutcome:
        """Train a copy of the model, deciding; the model itself is left untouched.

        Raises:
            InputError: if there is no data.
            DivergedError: if the loss becomes NaN or infinite, or the method's penalty diverges.
        """
        require_data(problem, f"sparse method {name_of(self)!r} trains while it decides")
        model = copy.deepcopy(problem.model)
        fitted = train_for(problem, model, self.callback(problem.on(model)), self.training)
        assert fitted.plan is not None
        log = tuple(fitted.plan.made_by["log"])
        return SparseOutcome(fitted.plan.patterns, model, fitted.history, log)
