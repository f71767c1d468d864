"""Methods that decide while a network is trained: callbacks for anybody's loop, and a loop of our own."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import nn

from billhook.criteria._base import Loss, cross_entropy
from billhook.errors import InputError
from billhook.graph import Plan
from billhook.methods._base import Method, Outcome, Problem
from billhook.options import Configurable
from billhook.train import Callback, FitConfig, FitResult, StepContext, fit


class Deciding(Callback):
    """Something that decides a plan while a network is trained.

    Everything it remembers between steps lies in `memory` (tensors, numbers, text, lists, dicts), so that a
    checkpoint holds all of it and a resumed run decides what an uninterrupted one would have decided. Random
    draws come from generators seeded by the problem's seed and the step.

    Attributes:
        memory: What `begin` puts there and the steps change.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.memory: dict[str, Any] = {}
        self._begun = False

    @abstractmethod
    def begin(self, context: StepContext) -> None:
        """Fill `memory`; called once, before the first step."""

    @abstractmethod
    def plan(self, context: StepContext) -> Plan:
        """Return the plan when training is over; weights may be changed in place, for the last time."""

    def before_step(self, context: StepContext) -> None:
        """Begin if this is the first step; those who override this call it first."""
        if not self._begun:
            if context.model is not self._model:
                raise InputError(
                    "the callback was made for another network than the one in training; make it with "
                    "the very model that the loop trains"
                )
            self.begin(context)
            self._begun = True

    def finish(self, context: StepContext) -> Plan:
        """Return the plan."""
        if not self._begun:
            raise InputError("the method has not seen a single training step, so it has decided nothing")
        return self.plan(context)

    def state_dict(self) -> dict[str, Any]:
        """Return everything it remembers."""
        return {"begun": self._begun, "memory": self.memory}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self._begun, self.memory = state["begun"], dict(state["memory"])


class MethodCallback(Deciding):
    """A method at work on a network that is being trained.

    Attributes:
        problem: What shall shrink; its model is the one in training.
        groups: Groups that may lose units.
        memory: What `begin` puts there and the steps change.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.model)
        self.problem = problem
        self.groups = problem.groups


@dataclass(frozen=True)
class TrainingMethod(Method):
    """A method that decides while it trains; a subclass says how by making a callback."""

    # How it trains if nobody says otherwise. The rate is that of fine-tuning a trained network.
    training: ClassVar[FitConfig] = FitConfig(epochs=1, lr=0.05, schedule="cosine")

    @abstractmethod
    def callback(self, problem: Problem) -> MethodCallback:
        """Return what acts on `problem.model` while somebody trains it."""

    def check(self, problem: Problem) -> None:
        """Raise what making the callback raises: whether the method can judge the network."""
        self.callback(problem)

    def run(self, problem: Problem) -> Outcome:
        """Train a copy of the model, deciding; the model itself is left untouched.

        Raises:
            InputError: if there is no data.
            BudgetError: if the budget is out of reach.
            DivergedError: if the loss becomes NaN or infinite.
        """
        require_data(problem, f"method {name_of(self)!r} trains while it decides")
        model = copy.deepcopy(problem.model)
        fitted = train_for(problem, model, self.callback(problem.on(model)), self.training)
        assert fitted.plan is not None
        return Outcome(fitted.plan, model, fitted.history)


class Trainable(Protocol):
    """What a problem says about training: of channels or of weights."""

    @property
    def data(self) -> Any: ...
    @property
    def loss(self) -> Loss: ...
    @property
    def seed(self) -> int: ...
    @property
    def training(self) -> FitConfig | None: ...
    @property
    def checkpoint_dir(self) -> Path | None: ...
    @property
    def resume(self) -> bool: ...
    @property
    def progress(self) -> bool: ...


def require_data(problem: Trainable, why: str) -> None:
    """Raise `InputError`, beginning with `why`, if there is nothing to train on."""
    if problem.data is None:
        raise InputError(f"{why}; give data=, a DataLoader or a list of (inputs, targets)")


def train_for(
    problem: Trainable, model: nn.Module, callback: Callback, default: FitConfig, *, part: str = ""
) -> FitResult:
    """Train `model` in place as a problem says.

    Args:
        problem: Data, loss, seed, and where checkpoints go.
        model: What to train.
        callback: The method at work.
        default: How, if the problem does not say.
        part: Folder of checkpoints of its own, for methods that train more than once.
    """
    folder = problem.checkpoint_dir
    return fit(
        model,
        problem.data,
        config=replace(problem.training or default, seed=problem.seed),
        loss=None if problem.loss is cross_entropy else problem.loss,
        callbacks=[callback],
        checkpoint_dir=folder / part if folder is not None and part else folder,
        resume=problem.resume,
        progress=problem.progress,
    )


def name_of(method: Configurable) -> str:
    """Return the name of a method that is an entry of a registry: that of its file."""
    return type(method).__module__.rpartition(".")[2].rstrip("_")
