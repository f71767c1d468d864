"""`Problem`, `Method`, `Outcome`: what an algorithm is given, what it is, and what it gives back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from torch import nn

from billhook.allocate.budget import Budget
from billhook.criteria import Calibration
from billhook.criteria._base import Loss, cross_entropy
from billhook.errors import InputError
from billhook.graph import ExampleInputs, Graph, Plan, Scope, apply, capture
from billhook.graph.groups import ChannelGroup
from billhook.options import Configurable
from billhook.train import EpochRecord, FitConfig, as_batches


@dataclass(frozen=True, eq=False)
class Problem:
    """What shall shrink, and how far.

    Attributes:
        model: The trained network; nobody may change it.
        example_inputs: One batch as the model takes it.
        budget: Bounds the plan must meet.
        scope: Which groups may be touched.
        data: What a method may learn from: a `Batches`, a DataLoader or a list of (inputs, targets); None if
            there is nothing. Methods that train go through all of it in every epoch.
        loss: Scalar loss of (outputs, targets).
        seed: Of every draw.
        backend: Runtime that the network is meant for; it says which widths are fast.
        threads: Threads of the runtime when latency is measured.
        round_to: Kept channels are a multiple of this; "auto" leaves it to the backend.
        mixing: "freeze" or "allow", as in `capture`.
        training: How a method that trains does so; None: the method's own way.
        checkpoint_dir: Where a method that trains keeps what it needs to go on; None: nowhere.
        resume: Go on from there.
        progress: Show bars.
        captured: The graph of `model`, if there is one already.
        validation: Held-out batches, for methods that check accuracy; None if there are none.
    """

    model: nn.Module
    example_inputs: ExampleInputs
    budget: Budget
    scope: Scope = field(default_factory=Scope)
    data: Any = None
    loss: Loss = cross_entropy
    seed: int = 0
    backend: str = "onnxruntime"
    threads: int = 1
    round_to: int | Literal["auto"] = "auto"
    mixing: Literal["freeze", "allow"] = "freeze"
    training: FitConfig | None = None
    checkpoint_dir: Path | None = None
    resume: bool = False
    progress: bool = False
    captured: Graph | None = None
    validation: Any = None

    def __post_init__(self) -> None:
        valid = isinstance(self.round_to, int) and not isinstance(self.round_to, bool) and self.round_to >= 1
        if self.round_to != "auto" and not valid:
            raise InputError(f"round_to={self.round_to!r}: expected 'auto' or an integer of at least 1")

    @cached_property
    def graph(self) -> Graph:
        """The captured network."""
        return self.captured or capture(self.model, self.example_inputs, mixing=self.mixing)

    @cached_property
    def groups(self) -> tuple[ChannelGroup, ...]:
        """Prunable groups in scope."""
        return self.scope.select(self.graph.groups)

    @property
    def calibration(self) -> Calibration | None:
        """Data and loss for criteria that learn from data."""
        return None if self.data is None else calibration_of(self.data, self.loss, self.seed)

    def on(self, model: nn.Module) -> Problem:
        """Return the same problem for `model`, which is built like the present one."""
        return replace(self, model=model, captured=self.graph)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a method decided, and the network it decided on.

    Attributes:
        plan: Which units stay.
        model: What the plan is for: the given network itself, or, if the method changes weights, a copy of
            the same shape with those weights.
        history: One record for each epoch that the method trained.
    """

    plan: Plan
    model: nn.Module
    history: tuple[EpochRecord, ...] = ()

    def small(self) -> nn.Module:
        """Return the smaller network."""
        return apply(self.model, self.plan)


@dataclass(frozen=True)
class Method(Configurable, ABC):
    """Decides what stays; a subclass is a frozen dataclass whose fields are its options."""

    def check(self, problem: Problem) -> None:
        """Raise now what `run` would raise about the network itself, before anything is trained."""

    @abstractmethod
    def run(self, problem: Problem) -> Outcome:
        """Return a plan that meets the problem's budget; the problem's model is left untouched."""


_CALIBRATION = 64  # batches at most; criteria that want fewer say so themselves


def calibration_of(data: Any, loss: Loss, seed: int) -> Calibration:
    """Return the first batches of an epoch of `data`, for what learns from data but does not train."""
    return Calibration(_First(data, seed), loss)


class _First:
    """The first batches of an epoch, the same ones every time they are read."""

    def __init__(self, data: Any, seed: int) -> None:
        self._data, self._seed = data, seed

    def __iter__(self) -> Iterator[Any]:
        data = self._data
        if hasattr(data, "__iter__") and not hasattr(data, "__len__"):
            return islice(iter(data), _CALIBRATION)  # can be read only once, in whatever order it has
        return islice(as_batches(data, self._seed).epoch(0), _CALIBRATION)
