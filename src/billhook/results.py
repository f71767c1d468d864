"""What a measurement and a check hand back: small frozen records that survive JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """A number somebody measured, with what is needed to believe and to repeat it.

    Attributes:
        value: The headline number: the median where there are repetitions.
        unit: "s", "B", "1" (a fraction), "images/s", …
        repetitions: How many samples `value` summarises.
        minimum, maximum: Extremes of the samples, same unit.
        conditions: Runtime, precision, threads, batch, data set, split, machine, …
    """

    value: float
    unit: str
    repetitions: int = 1
    minimum: float | None = None
    maximum: float | None = None
    conditions: Mapping[str, Any] = field(default_factory=dict)

    @property
    def spread(self) -> float:
        """Half the range of the samples relative to the median; 0 for a single sample."""
        if self.minimum is None or self.maximum is None or self.value == 0:
            return 0.0
        return (self.maximum - self.minimum) / 2 / abs(self.value)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {**asdict(self), "conditions": dict(self.conditions)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Measurement:
        """Return the measurement that `to_dict` wrote."""
        return cls(**data)


@dataclass(frozen=True)
class Cost:
    """What one forward pass costs, computed from shapes; batch size is that of the example inputs.

    Attributes:
        macs: Multiply-adds of convolutions, linear layers and matrix products, for the whole batch.
        params: Number of scalar parameters (shared ones counted once).
        bytes: Size of parameters and buffers in their own dtypes.
        peak_activation_bytes: Largest sum of tensors alive at one time, weights not included.
    """

    macs: int
    params: int
    bytes: int
    peak_activation_bytes: int

    def to_dict(self) -> dict[str, int]:
        """Return plain data for JSON."""
        return asdict(self)

    def bounded(self) -> dict[str, int]:
        """Return the values that a budget may bound, by the budget's names."""
        return {"macs": self.macs, "params": self.params, "size": self.bytes}


@dataclass(frozen=True)
class Check:
    """Outcome of `verify`: does removing channels equal silencing them?

    Attributes:
        exact: True if every operator on the way is exact and the outputs agree within `tolerance`.
        agrees: True if the outputs agree within `tolerance` (mixing operators run on what is kept).
        max_abs_error: Largest absolute difference over all outputs.
        max_rel_error: The same, relative to the largest absolute output.
        tolerance: Bound on `max_rel_error`.
        first_difference: Name of the first layer whose output differs; None if they agree.
        mixed: Groups in the plan that pass through channel-mixing operators.
    """

    exact: bool
    agrees: bool
    max_abs_error: float
    max_rel_error: float
    tolerance: float
    first_difference: str | None = None
    mixed: tuple[str, ...] = ()
