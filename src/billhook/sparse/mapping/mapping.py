"""`Mapping`: which pattern every layer gets, and why; plain data."""

from __future__ import annotations

from collections import abc
from dataclasses import dataclass, field
from typing import Any

from billhook.errors import InputError, StorageError
from billhook.graph.patterns import Pattern, parse_pattern

FORMAT = "billhook.mapping/1"
DENSE = "dense"
_ENTRIES = ("format", "choices", "reasons", "sparsities")


@dataclass(frozen=True)
class Mapping:
    """Which pattern every layer gets.

    Attributes:
        choices: Tensor → its pattern; None: it stays dense.
        reasons: Tensor → why, for people; may lack tensors.
        sparsities: Tensor → fraction of zeros, for tensors with a pattern; empty if somebody else decides it.
    """

    choices: abc.Mapping[str, Pattern | None]
    reasons: abc.Mapping[str, str] = field(default_factory=dict)
    sparsities: abc.Mapping[str, float] = field(default_factory=dict)

    @property
    def patterns(self) -> dict[str, Pattern]:
        """The tensors that have a pattern."""
        return {tensor: pattern for tensor, pattern in self.choices.items() if pattern is not None}

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; patterns as the texts that `parse_pattern` reads."""
        return {
            "format": FORMAT,
            "choices": {t: DENSE if p is None else str(p) for t, p in self.choices.items()},
            "reasons": dict(self.reasons),
            "sparsities": dict(self.sparsities),
        }

    @classmethod
    def from_dict(cls, data: Any) -> Mapping:
        """Return the mapping that `to_dict` wrote; raises `StorageError` with the entry that is wrong."""
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise StorageError(f"not a mapping: expected a table with format {FORMAT!r}")
        if unknown := sorted(set(data) - set(_ENTRIES)):
            raise StorageError(f"mapping: unknown entries {unknown}")
        choices = {t: _pattern(t, text) for t, text in _table(data, "choices", str).items()}
        reasons = _table(data, "reasons", str)
        sparsities = {t: float(s) for t, s in _table(data, "sparsities", (int, float)).items()}
        for tensor, sparsity in sparsities.items():
            if not 0 <= sparsity < 1:
                raise StorageError(f"mapping: sparsities.{tensor}={sparsity} must be at least 0 and below 1")
        if stray := sorted({*reasons, *sparsities} - set(choices)):
            raise StorageError(f"mapping: {stray[0]!r} has a reason or a sparsity but no choice")
        return cls(choices, reasons, sparsities)

    def __hash__(self) -> int:
        return hash(tuple((t, str(p)) for t, p in self.choices.items()))

    def __str__(self) -> str:
        """Return one line per tensor: its pattern, its sparsity, the reason."""
        width = max(map(len, self.choices), default=0)
        return "\n".join(f"{tensor:{width}}  {self._line(tensor)}" for tensor in self.choices)

    def _line(self, tensor: str) -> str:
        pattern = self.choices[tensor]
        parts = [DENSE if pattern is None else str(pattern)]
        if tensor in self.sparsities:
            parts.append(f"{self.sparsities[tensor]:.1%}")
        return "  ".join([*parts, self.reasons.get(tensor, "")]).rstrip()


def _table(data: dict[str, Any], entry: str, kind: Any) -> dict[str, Any]:
    table = data.get(entry)
    if not isinstance(table, dict) or not all(isinstance(t, str) for t in table):
        raise StorageError(f"mapping: entry {entry!r} is missing or is no table of tensors")
    for tensor, value in table.items():
        if not isinstance(value, kind) or isinstance(value, bool):
            raise StorageError(f"mapping: {entry}.{tensor} is a {type(value).__name__}")
    return table


def _pattern(tensor: str, text: str) -> Pattern | None:
    try:
        return None if text == DENSE else parse_pattern(text)
    except InputError as e:
        raise StorageError(f"mapping: choices.{tensor}: {e}") from None
