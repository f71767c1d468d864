"""`Structure`: a pattern filled in for one tensor, as a plan holds it and `impose_` carries it out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import Tensor

from billhook.errors import InputError, PlanError
from billhook.graph.packing import from_text, packed_bytes, to_text
from billhook.graph.patterns import Parts, Pattern, Shape, patterns
from billhook.options import configure

MAX_WEIGHTS, MAX_DIMS = 2**28, 8  # of one tensor; what claims more is not a plan of ours


@dataclass(frozen=True, eq=False)
class Structure:
    """A pattern filled in for one tensor: which of its weights stay.

    Attributes:
        pattern: What the arrays mean.
        shape: Of the tensor, after channels have left.
        parts: The pattern's arrays, see `Pattern.layout`.
        transposed: The tensor has its inputs first, as transposed convolutions have.
    """

    pattern: Pattern
    shape: tuple[int, ...]
    parts: Parts
    transposed: bool = False

    @cached_property
    def mask(self) -> Tensor:
        """True where a weight may differ from zero, in the shape of the tensor."""
        return self._back(self.pattern.mask(self.parts, self._viewed))

    @cached_property
    def nonzeros(self) -> int:
        """How many weights may differ from zero."""
        return int(self.mask.sum())

    @property
    def sparsity(self) -> float:
        """Fraction of the weights that are zero."""
        return 1 - self.nonzeros / max(1, prod(self.shape))

    @cached_property
    def values(self) -> int:
        """How many numbers the tensor consists of: fewer than `nonzeros` where weights share a magnitude."""
        return self.pattern.values(self.parts, self._viewed)

    def stored_bytes(self, itemsize: int) -> int:
        """Return the size of the tensor when it is stored as few numbers and the structure."""
        numbers = self.pattern.encode(torch.zeros(self._viewed, dtype=torch.int8), self.parts)
        bits = (t.numel() * (itemsize if name in FLOATS else t.element_size()) for name, t in numbers.items())
        layout = self.pattern.layout(self._viewed)
        return sum(bits) + sum(packed_bytes(self.parts[n], part.levels) for n, part in layout.items())

    def project(self, weight: Tensor) -> Tensor:
        """Return the nearest tensor to `weight` that has this structure."""
        view = viewed(weight, transposed=self.transposed)
        return self._back(self.pattern.hold(view, self.parts, self.pattern.anchor(view, self.parts)))

    def anchor(self, weight: Tensor) -> Tensor:
        """Return what of `weight` training must not change (see `Pattern.anchor`), in its shape."""
        return self._back(self.pattern.anchor(viewed(weight, transposed=self.transposed), self.parts))

    def hold(self, values: Tensor, anchor: Tensor) -> Tensor:
        """Return the nearest tensor to `values` with this structure and the anchor of a weight."""
        view, held = (viewed(t, transposed=self.transposed) for t in (values, anchor))
        return self._back(self.pattern.hold(view, self.parts, held))

    def encode(self, weight: Tensor) -> dict[str, Tensor]:
        """Return the numbers that a tensor of this structure consists of."""
        return self.pattern.encode(viewed(weight, transposed=self.transposed), self.parts)

    def decode(self, numbers: Mapping[str, Tensor]) -> Tensor:
        """Return the tensor that `encode` took apart, bit by bit the same; raises `ValueError`."""
        return self._back(self.pattern.decode(numbers, self.parts, self._viewed))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        layout = self.pattern.layout(self._viewed)
        return {
            "pattern": self.pattern.name,
            "options": self.pattern.options(),
            "shape": list(self.shape),
            **({"transposed": True} if self.transposed else {}),
            "parts": {name: to_text(self.parts[name], part.levels) for name, part in layout.items()},
        }

    @classmethod
    def from_dict(cls, data: Any) -> Structure:
        """Return what `to_dict` wrote; raises `ValueError` with what is wrong."""
        if not isinstance(data, dict) or not isinstance(data.get("parts"), dict):
            raise ValueError("not a table with 'parts'")
        if unknown := set(data) - {"pattern", "options", "shape", "transposed", "parts"}:
            raise ValueError(f"unknown entries {sorted(unknown)}")
        shape, transposed = data.get("shape"), data.get("transposed", False)
        if not isinstance(shape, list) or not 2 <= len(shape) <= MAX_DIMS or not isinstance(transposed, bool):
            raise ValueError(f"shape {shape!r}")
        if not all(type(s) is int and s > 0 for s in shape) or prod(shape) > MAX_WEIGHTS:
            raise ValueError(f"shape {shape!r}")
        options = data.get("options")
        if not isinstance(data.get("pattern"), str) or not isinstance(options, dict):
            raise ValueError("'pattern' or 'options' is missing")
        try:
            kind = patterns.get(data["pattern"])
            pattern = configure(kind, options, what=f"pattern {data['pattern']!r}")
        except InputError as e:
            raise ValueError(str(e)) from None
        view = view_shape(tuple(shape), transposed)
        if why := pattern.refusal(view):
            raise ValueError(why)
        layout = pattern.layout(view)
        if set(layout) != set(data["parts"]):
            raise ValueError(f"parts {sorted(data['parts'])}, expected {sorted(layout)}")
        parts = {n: from_text(data["parts"][n], part.shape, part.levels) for n, part in layout.items()}
        if why := pattern.flaw(parts, view):
            raise ValueError(f"no structure of the pattern {pattern}: {why}")
        return cls(pattern, tuple(shape), parts, transposed)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Structure) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((str(self.pattern), self.shape))

    def __repr__(self) -> str:
        return f"<Structure: {self.pattern}, {list(self.shape)}, {self.sparsity:.1%} zero>"

    @property
    def _viewed(self) -> Shape:
        return view_shape(self.shape, self.transposed)

    def _back(self, view: Tensor) -> Tensor:
        if not self.transposed:
            return view.reshape(self.shape)
        outputs, inputs, _ = view.shape
        return view.reshape(outputs, inputs, *self.shape[2:]).transpose(0, 1).contiguous()


def sparsity_of(structures: Iterable[Structure]) -> float:
    """Return the fraction of zeros in all tensors that have a structure; 0 if none has."""
    all_of_them = tuple(structures)
    weights = sum(prod(s.shape) for s in all_of_them)
    return 1 - sum(s.nonzeros for s in all_of_them) / weights if weights else 0.0


FLOATS = ("values", "magnitudes")  # numbers of the weight's own type; others are packed already


def viewed(weight: Tensor, *, transposed: bool = False) -> Tensor:
    """Return a weight as [outputs, inputs, positions]."""
    view = weight.transpose(0, 1) if transposed else weight
    return view.reshape(view.shape[0], view.shape[1], -1)


@torch.no_grad()
def impose_(tensors: Mapping[str, Tensor], structures: Mapping[str, Structure]) -> None:
    """Give the named tensors, in place, the structures that a plan demands.

    Raises:
        PlanError: if a tensor is missing or has another shape, as when the plan was made for another network.
    """
    for name, structure in structures.items():
        require_fit(name, tensors.get(name), structure)
        tensors[name].copy_(structure.project(tensors[name]))


def require_fit(name: str, tensor: Tensor | None, structure: Structure) -> None:
    """Raise `PlanError` unless `structure` can be that of `tensor`."""
    if tensor is None:
        raise PlanError(f"the plan has a pattern for {name!r}, which this network does not have")
    if tuple(tensor.shape) != structure.shape:
        raise PlanError(
            f"the plan's pattern for {name!r} is for the shape {list(structure.shape)}, the network has "
            f"{list(tensor.shape)}; it was made for another network"
        )


def view_shape(shape: tuple[int, ...], transposed: bool) -> Shape:
    """Return the shape that `viewed` gives a weight."""
    first, second, *kernel = shape
    return (second, first, prod(kernel)) if transposed else (first, second, prod(kernel))
