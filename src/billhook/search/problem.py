"""`SearchProblem`: what is to be made smaller, what candidates are, and how one is judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from torch import nn

from billhook.allocate.budget import Budget
from billhook.criteria import Calibration, criteria, score
from billhook.criteria._base import Loss, cross_entropy
from billhook.errors import InputError
from billhook.graph import ExampleInputs, Graph, Scope, capture
from billhook.graph.apply import free_batch
from billhook.measure.backend import channels_that_fit
from billhook.options import Configurable, Number, OneOf, OrNone, Text, option
from billhook.search.batches import first_images
from billhook.search.space import Space, channel_values, ranked
from billhook.sparse.alternatives import fitting_patterns
from billhook.train.batches import as_batches, batch_size, unpack

DENSITIES = tuple(round(0.1 * i, 1) for i in range(1, 11))


@dataclass(frozen=True)
class Settings(Configurable):
    """What candidates are, and how one is judged.

    Attributes:
        channels: Widths are searched.
        lowest: A group keeps at least this fraction of its channels.
        pattern: Densities are searched as well: which weights leave together, e.g. "4x1|dense".
        least_density: A tensor keeps at least this fraction of its weights.
        criterion: Which channels stay; "first" keeps the first ones.
        repair: What is done to a candidate before it is judged: least squares, new statistics of batch norms,
            or the one and then the other. On a ResNet-20 (Fashion-MNIST, all layers alike) at half of its
            weights: 26 % of the classes right without, 77 % with least squares, 91 % with both, dense 93 %.
        images: Validation images that judge it.
        calibration: Training images that `repair` looks at.
        metric: What is weighed against accuracy; None: the first metric of the budget, or MACs.
        latency: Where latency comes from, if anybody asks for it.
    """

    channels: bool = True
    lowest: float = option(0.125, Number(0, 1), "least fraction of a group's channels")
    pattern: str | None = option(None, OrNone(Text()), "weights that leave together")
    least_density: float = option(0.1, Number(0.01, 1), "least fraction of a tensor's weights")
    criterion: str = option("l1", Text(), "which channels stay: a criterion, or 'first'")
    repair: str = option(
        "both",
        OneOf("none", "reconstruct", "recalibrate", "both"),
        "what comes before judging",
    )
    images: int = option(2000, Number(1, integer=True), "validation images that judge a candidate")
    calibration: int = option(512, Number(1, integer=True), "training images that repair looks at")
    metric: str | None = option(
        None, OrNone(OneOf("macs", "params", "size", "latency")), "what is weighed against accuracy"
    )
    latency: str = option("auto", OneOf("auto", "table", "fitted", "measured"), "where latency comes from")

    @property
    def reconstructs(self) -> bool:
        """Candidates are repaired by least squares."""
        return self.repair in ("reconstruct", "both")

    @property
    def recalibrates(self) -> bool:
        """Candidates get new statistics of batch norms."""
        return self.repair in ("recalibrate", "both")


@dataclass(frozen=True, eq=False)
class SearchProblem:
    """What is to be made smaller.

    Attributes:
        model: The trained network; nobody may change it.
        example_inputs: One batch as the model takes it.
        budget: Bounds that every candidate keeps; None: a search for a whole front needs none.
        data: Training batches: a `Batches`, a DataLoader or a list of (inputs, targets).
        validation: Held-out batches that judge candidates; read once and kept in memory.
        settings: What candidates are, and how one is judged.
        scope: Which groups and weights may be touched.
        loss: Scalar loss of (outputs, targets).
        seed: Of every draw.
        backend: Runtime that the network is meant for.
        threads: Of that runtime.
        round_to: Kept channels are a multiple of this; "auto" leaves it to the backend.
        mixing: "freeze" or "allow", as in `capture`.
        progress: Show bars.
        captured: The graph of `model`, if there is one already.
    """

    model: nn.Module
    example_inputs: ExampleInputs
    budget: Budget | None = None
    data: Any = None
    validation: Any = None
    settings: Settings = field(default_factory=Settings)
    scope: Scope = field(default_factory=Scope)
    loss: Loss = cross_entropy
    seed: int = 0
    backend: str = "onnxruntime"
    threads: int = 1
    round_to: int | Literal["auto"] = "auto"
    mixing: Literal["freeze", "allow"] = "freeze"
    progress: bool = False
    captured: Graph | None = None

    @cached_property
    def whole(self) -> Graph:
        """The network captured with the example inputs: costs are those of one batch of them."""
        return self.captured or capture(self.model, self.example_inputs, mixing=self.mixing)

    @cached_property
    def graph(self) -> Graph:
        """The captured network, for any batch size where it allows that."""
        return self._free[0]

    @cached_property
    def _free(self) -> tuple[Graph, str | None]:
        return free_batch(self.model, self.whole)

    def _fitting(self, batches: list[Any]) -> list[Any]:
        """Return batches; raises `InputError` if the network takes one batch size only, and not theirs."""
        why, size = self._free[1], batch_size(self.whole.example_inputs)
        sizes = {batch_size(unpack(batch)[0]) for batch in batches}
        if why is not None and sizes != {size}:
            raise InputError(
                f"{type(self.model).__name__} works only for the batch size of the example inputs, {size} "
                f"({why}), and the data has batches of {', '.join(map(str, sorted(sizes)))}: give example "
                "inputs and data of one batch size, and as many images as fill whole batches"
            )
        return batches

    @cached_property
    def space(self) -> Space:
        """The candidates.

        Raises:
            InputError: if there is nothing to choose, or the criterion cannot judge a group.
        """
        settings = self.settings
        fits = channels_that_fit(self.backend, self.round_to)
        groups = self.scope.select(self.graph.groups) if settings.channels else ()
        values = {g.id: channel_values(g, fits, settings.lowest) for g in groups}
        free = [g for g in groups if len(values[g.id]) > 1]
        if settings.criterion == "first":
            order = {g.id: np.arange(g.size) for g in free}
        else:
            given = None if self.data is None else Calibration(self.calibration(), self.loss)
            found = score(
                criteria.get(settings.criterion)(),
                self.model,
                free,
                calibration=given,
                seed=self.seed,
                example_inputs=self.example_inputs,
            )
            order = ranked(found)
        layers = self.whole.weights
        patterns = {} if settings.pattern is None else fitting_patterns(layers, settings.pattern, self.scope)
        densities = [d for d in DENSITIES if d >= settings.least_density - 1e-9]
        return Space(
            self.graph,
            {g.id: values[g.id] for g in free},
            order,
            {t: densities for t in patterns if len(densities) > 1},
            patterns,
            whole=self.whole,
        ).of(self.model)

    @property
    def key(self) -> str:
        """Names how candidates are judged when they inherit weights; see `Objective.key`."""
        return f"inherited {self.settings.repair} {self.settings.images}"

    @property
    def metric(self) -> str:
        """What is weighed against accuracy."""
        bounds = () if self.budget is None else tuple(self.budget.bounds)
        return self.settings.metric or (bounds[0] if bounds else "macs")

    def calibration(self) -> Sequence[Any]:
        """Return the first training batches, as many as hold `settings.calibration` images.

        Raises:
            InputError: if there are no training data.
        """
        return self._calibration

    @cached_property
    def _calibration(self) -> list[Any]:
        if self.data is None:
            raise InputError("training data are needed: give data=, (inputs, targets)")
        taken, images = [], 0
        for batch in as_batches(self.data, self.seed).epoch(0):
            taken.append(batch)
            images += batch_size(unpack(batch)[0])
            if images >= self.settings.calibration:
                break
        return self._fitting(taken)

    @cached_property
    def judged_on(self) -> list[Any]:
        """The validation batches, up to `settings.images` images."""
        if self.validation is None:
            raise InputError("candidates are judged by accuracy: give validation=, (inputs, targets)")
        return self._fitting(first_images(self.validation, self.settings.images))
