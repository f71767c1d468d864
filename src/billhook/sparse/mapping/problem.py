"""What a search for a mapping is about: the choices of every layer, and what those of all are worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Mapping as Table
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from billhook.errors import InputError
from billhook.graph.patterns import Pattern
from billhook.graph.weights import WeightLayer
from billhook.sparse.allocation import require_sparsity
from billhook.sparse.mapping.candidates import legal, reach
from billhook.sparse.mapping.latency_table import LatencyModel, LatencyTable, network_latency
from billhook.sparse.mapping.mapping import Mapping

Actions = tuple[int, ...]


@dataclass(frozen=True)
class Trial:
    """One mapping that was evaluated.

    Attributes:
        mapping: What was chosen.
        accuracy: What `evaluate` said.
        latency: Modelled seconds of the network.
        reward: accuracy - w · max(0, latency - bound) / bound.
    """

    mapping: Mapping
    accuracy: float
    latency: float
    reward: float


@dataclass(frozen=True, eq=False)
class MappingProblem:
    """A search for the pattern of every layer.

    Attributes:
        layers: Of the network, in the order of the forward pass.
        evaluate: Mapping → accuracy, as after one-shot pruning and an epoch or two of training. Asked once
            per mapping.
        latency: Bound in seconds on the modelled latency.
        sparsity: Fraction of zeros of every layer that gets a pattern; one for all, or by tensor.
        options: Tensor → what it may get, at least one entry; None: dense. By default dense and the legal
            list of the layer's type, without what cannot reach the sparsity.
        table: What a layer costs; None: the default table.
        weight: w in the reward: what it costs to be over the bound by its own size.
    """

    layers: Sequence[WeightLayer]
    evaluate: Callable[[Mapping], float]
    latency: float
    sparsity: float | Table[str, float] = 0.8
    options: Table[str, Sequence[Pattern | None]] | None = None
    table: LatencyModel | None = None
    weight: float = 1.0
    trials: dict[Actions, Trial] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.layers:
            raise InputError("there is no layer to map")
        for name, value in (("latency", self.latency), ("weight", self.weight)):
            if not isfinite(value) or value < 0 or (name == "latency" and value == 0):
                raise InputError(f"{name}={value!r} must be a finite number above 0")
        given = self.sparsity.values() if isinstance(self.sparsity, Table) else (self.sparsity,)
        for sparsity in given:
            require_sparsity(sparsity, "sparsity")
        if isinstance(self.sparsity, Table):
            missing = [la.tensor for la in self.layers if la.tensor not in self.sparsity]
            if missing:
                raise InputError(f"no sparsity is given for {missing[0]!r}")
        fill: Any = object.__setattr__  # the one way to complete a frozen record
        fill(self, "table", LatencyTable.default() if self.table is None else self.table)
        fill(self, "options", {la.tensor: self._options(la) for la in self.layers})

    @property
    def counts(self) -> tuple[int, ...]:
        """How many options every layer has."""
        return tuple(len(self.of(layer)) for layer in self.layers)

    def of(self, layer: WeightLayer) -> Sequence[Pattern | None]:
        """Return the options of a layer."""
        assert self.options is not None
        return self.options[layer.tensor]

    def mapping(self, actions: Sequence[int]) -> Mapping:
        """Return the mapping that these options, one index per layer, make up."""
        choices = {la.tensor: self.of(la)[a] for la, a in zip(self.layers, actions, strict=True)}
        sparsities = {t: self._sparsity(t) for t, p in choices.items() if p is not None}
        return Mapping(choices, {}, sparsities)

    def trial(self, actions: Sequence[int]) -> Trial:
        """Return what these options, one index per layer, are worth; evaluated at most once.

        Raises:
            InputError: if `evaluate` does not return a finite number.
        """
        key = tuple(int(a) for a in actions)
        if key not in self.trials:
            assert self.table is not None
            mapping = self.mapping(key)
            accuracy = float(self.evaluate(mapping))
            if not isfinite(accuracy):
                raise InputError(f"evaluate returned {accuracy} for a mapping; it must return an accuracy")
            seconds = network_latency(self.table, self.layers, mapping.choices, mapping.sparsities)
            over = max(0.0, seconds - self.latency) / self.latency
            self.trials[key] = Trial(mapping, accuracy, seconds, accuracy - self.weight * over)
        return self.trials[key]

    def _sparsity(self, tensor: str) -> float:
        return self.sparsity[tensor] if isinstance(self.sparsity, Table) else self.sparsity

    def _options(self, layer: WeightLayer) -> tuple[Pattern | None, ...]:
        if self.options is None:
            wanted = self._sparsity(layer.tensor)
            reachable = [(p, *reach(p, layer.view)) for p in legal(layer)]
            return (None, *(p for p, low, high in reachable if low <= wanted <= high))
        options = tuple(self.options.get(layer.tensor, ()))
        if not options:
            raise InputError(f"options: {layer.tensor} has none; give at least one, None for dense")
        for pattern in options:
            why = None if pattern is None else layer.refusal(pattern)
            if why is not None or (pattern is not None and layer.depthwise):
                raise InputError(f"options: {pattern} does not fit {layer.tensor}: {why or 'depthwise'}")
        return options
