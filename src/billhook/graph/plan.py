"""`Plan`: the decision, as plain data."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from billhook.errors import PlanError
from billhook.graph.structure import MAX_DIMS, MAX_WEIGHTS, Structure

Keep = npt.NDArray[np.bool_]
FORMAT = "billhook.plan/1"
_ENTRIES = {"format", "fingerprint", "mixing", "inputs", "groups", "made_by", "fusions", "patterns"}
MAX_BYTES = 64 * 2**20  # a plan for a network of millions of channels stays far below this


@dataclass(frozen=True)
class Plan:
    """Which units of which groups stay, and which weights of which tensors.

    Groups that are not named keep everything. A plan knows the network it was made for by
    `fingerprint` and how to call it by `inputs`, so `apply(model, plan)` needs nothing else.

    Attributes:
        keep: Group id → boolean array [size], True stays. All False: the residual branch in which the
            units live is gone (see `Graph.branches`).
        fingerprint: Hash of the names and shapes of parameters and buffers and of the group table.
        inputs: Description of the example inputs (see `graph.inputs`).
        mixing: "freeze" or "allow": whether channels through mixing operators were allowed to leave.
        made_by: Free record of what made the plan (method, options, budget, seed).
        fusions: Rewrites that hold, in order: the plan is for the network that they make of the original.
            Each names its pass ("pass"), its place ("at") and what it rewrites ("operator").
        patterns: Tensor name → which of its weights stay or are equal, once channels have left. Tensors that
            are not named keep everything.
    """

    keep: Mapping[str, Keep]
    fingerprint: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    mixing: str = "freeze"
    made_by: Mapping[str, Any] = field(default_factory=dict)
    fusions: tuple[Mapping[str, Any], ...] = ()
    patterns: Mapping[str, Structure] = field(default_factory=dict)
    # The graph the plan was made from, in this process only: saves a second capture. Not part of the plan.
    graph: Any = field(default=None, repr=False)

    def attached(self, graph: Any) -> Plan:
        """Return a copy that remembers the graph it was made from."""
        return replace(self, graph=graph)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(self.to_json())

    @property
    def counts(self) -> dict[str, int]:
        """Units that stay, per named group."""
        return {name: int(k.sum()) for name, k in self.keep.items()}

    @property
    def removed(self) -> dict[str, int]:
        """Units that leave, for the groups which lose any."""
        return {name: int((~k).sum()) for name, k in self.keep.items() if not k.all()}

    def with_patterns(self, patterns: Mapping[str, Structure]) -> Plan:
        """Return a copy that also demands these structures; of a tensor that has one already, the new one."""
        return replace(self, patterns={**self.patterns, **patterns})

    def with_made_by(self, **entries: Any) -> Plan:
        """Return a copy whose `made_by` also holds `entries`."""
        return replace(self, made_by={**self.made_by, **entries})

    def diff(self, other: Plan) -> dict[str, tuple[int, int]]:
        """Return {group: (units kept here, units kept in `other`)} that differ; for tensors, weights."""
        names = sorted({*self.keep, *other.keep})
        out = {}
        for name in names:
            mine, theirs = self.keep.get(name), other.keep.get(name)
            same = mine is not None and theirs is not None and np.array_equal(mine, theirs)
            if not same:
                out[name] = (_count(mine, theirs), _count(theirs, mine))
        differing = {k: v for k, v in out.items() if v[0] != v[1] or (k in self.keep and k in other.keep)}
        for name in sorted({*self.patterns, *other.patterns}):
            here, there = self.patterns.get(name), other.patterns.get(name)
            if here != there:
                differing[name] = (_nonzeros(here, there), _nonzeros(there, here))
        return differing

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; kept units are written as ranges ("0-3,7")."""
        return {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "mixing": self.mixing,
            "inputs": dict(self.inputs),
            "groups": {n: {"size": len(k), "keep": _ranges(k)} for n, k in sorted(self.keep.items())},
            "made_by": dict(self.made_by),
            **({"fusions": [dict(f) for f in self.fusions]} if self.fusions else {}),
            **({"patterns": {n: s.to_dict() for n, s in self.patterns.items()}} if self.patterns else {}),
        }

    def to_json(self) -> str:
        """Return the plan as JSON text; the same plan gives the same text."""
        return json.dumps(self.to_dict(), indent=1, sort_keys=True)

    @classmethod
    def from_dict(cls, data: Any) -> Plan:
        """Return the plan that `to_dict` wrote.

        Raises:
            PlanError: if `data` is not a plan, names the entry that is wrong.
        """
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            found = data.get("format") if isinstance(data, dict) else type(data).__name__
            raise PlanError(f"not a billhook plan: expected format {FORMAT!r}, found {found!r}")
        unknown = set(data) - _ENTRIES
        if unknown:
            raise PlanError(f"plan has unknown entries {sorted(unknown)}; was it made by a newer version?")
        groups = data.get("groups")
        if not isinstance(groups, dict) or not isinstance(data.get("fingerprint"), str):
            raise PlanError("plan is corrupted: 'groups' or 'fingerprint' is missing")
        for entry, kind in (("inputs", dict), ("made_by", dict), ("mixing", str)):
            if not isinstance(data.get(entry), kind):
                raise PlanError(f"plan is corrupted: {entry!r} is missing or is not a {kind.__name__}")
        if data["mixing"] not in ("freeze", "allow"):
            raise PlanError(f"plan is corrupted: 'mixing' is {data['mixing']!r}, not 'freeze' or 'allow'")
        fusions = data.get("fusions", [])
        if not isinstance(fusions, list) or not all(isinstance(f, dict) for f in fusions):
            raise PlanError("plan is corrupted: 'fusions' is not a list of entries")
        patterns = data.get("patterns", {})
        if not isinstance(patterns, dict):
            raise PlanError("plan is corrupted: 'patterns' is not a table of tensors")
        _require_room(patterns)
        return cls(
            {name: _parse_group(name, entry) for name, entry in groups.items()},
            data["fingerprint"],
            data["inputs"],
            data["mixing"],
            data["made_by"],
            tuple(fusions),
            {name: _parse_structure(name, entry) for name, entry in patterns.items()},
        )

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Return the plan in `text`; raises `PlanError`."""
        try:
            return cls.from_dict(json.loads(text))
        except (ValueError, RecursionError) as e:  # numbers of thousands of digits as well
            raise PlanError(f"plan is not valid JSON: {e}") from None

    def save(self, path: str | Path) -> None:
        """Write the plan; the file appears whole or not at all."""
        path = Path(path)
        part = path.with_name(path.name + ".part")
        part.write_text(self.to_json() + "\n")
        os.replace(part, path)

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan written by `save`; raises `PlanError` with the file's name."""
        path = Path(path)
        try:
            if path.stat().st_size > MAX_BYTES:
                raise PlanError(f"larger than {MAX_BYTES} bytes; this is no plan")
            return cls.from_json(path.read_text())
        except (OSError, UnicodeDecodeError, PlanError) as e:
            raise PlanError(f"{path}: {e}") from None


def _count(keep: Keep | None, other: Keep | None) -> int:
    if keep is not None:
        return int(keep.sum())
    return 0 if other is None else len(other)


def _nonzeros(structure: Structure | None, other: Structure | None) -> int:
    if structure is not None:
        return structure.nonzeros
    return 0 if other is None else prod(other.shape)


def _require_room(patterns: Mapping[str, Any]) -> None:
    """Raise `PlanError` if patterns claim more weights together than one tensor may have.

    Packed arrays can be thousands of times smaller than what they unpack to.
    """
    total = 0
    for name, entry in patterns.items():
        shape = entry.get("shape") if isinstance(entry, dict) else None
        if isinstance(shape, list) and len(shape) <= MAX_DIMS and all(type(n) is int for n in shape):
            total += abs(prod(shape))
        if total > MAX_WEIGHTS:
            raise PlanError(
                f"plan is corrupted at the pattern of {name!r}: up to it there are more than {MAX_WEIGHTS} "
                "weights with a pattern"
            )


def _parse_structure(name: str, entry: Any) -> Structure:
    try:
        return Structure.from_dict(entry)
    except ValueError as e:
        raise PlanError(f"plan is corrupted at the pattern of {name!r}: {e}") from None


def _ranges(keep: Keep) -> str:
    edges = np.flatnonzero(np.diff(np.concatenate(([0], keep.astype(np.int8), [0]))))
    pairs = zip(edges[::2], edges[1::2] - 1, strict=True)
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in pairs)


def _parse_group(name: str, entry: Any) -> Keep:
    try:
        size, text = entry["size"], entry["keep"]
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= 10_000_000:
            raise ValueError(f"size {size!r}")
        keep = np.zeros(size, dtype=bool)
        for part in text.split(",") if text != "" else ():  # no text: the branch these units live in is gone
            first, _, last = part.partition("-")
            a, b = int(first), int(last or first)
            if not 0 <= a <= b < size or keep[a : b + 1].any():
                raise ValueError(f"range {part!r} of {size}")
            keep[a : b + 1] = True
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise PlanError(f"plan is corrupted at group {name!r}: {e}") from None
    return keep
