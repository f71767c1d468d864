"""What the tables of operators are written with: views of planes, and the network that is being built.

A tensor is a `View`: an array of plane numbers, shaped like its leading dimensions, and the sizes of the
trailing ones, which lie inside a plane. Reshaping, transposing, slicing and joining tensors is then numpy's
reshaping, transposing, slicing and joining of plane numbers; a `Select` is made when an operator reads them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, fx

from billhook.compile.ir import Flatten, Op, Pair, Select, Value
from billhook.compile.lower.turned import Turned, places, reshaped
from billhook.compile.lower.view import Doubles as Doubles
from billhook.compile.lower.view import Numbers, Shape, View, arranged
from billhook.compile.planes import Rearrange
from billhook.graph.rules._base import Call

Lowering = Callable[["Builder", Call], Any]
OPERATORS: dict[str, Lowering] = {}
_WINDOW = ("kernel", "stride", "dilation")
_LARGEST_WINDOW = 65535  # as in engine/validate_planes.c
F = TypeVar("F", bound=Lowering)


class Refusal(Exception):
    """Why an operator cannot be lowered, in words that complete "operator: ..."; never leaves `lower`."""


def operator(*names: str) -> Callable[[F], F]:
    """Register a lowering for operators by base name; a string may hold several, separated by spaces."""

    def register(function: F) -> F:
        for name in " ".join(names).split():
            assert name not in OPERATORS, name
            OPERATORS[name] = function
        return function

    return register


def fixed_shape(tensor: Tensor) -> Shape:
    """Return the shape of a captured tensor."""
    if not all(isinstance(size, int) for size in tensor.shape):
        raise Refusal("has a shape that depends on numbers")
    return tuple(tensor.shape)


class Builder:
    """The operators so far, and the planes that they make.

    Attributes:
        batch: First dimension of all tensors.
        ops: Operators in order.
        results: What each captured node makes: a view, a constant tensor, a list of them or a plain value.
        spread: Planes that hold one number each → the vector of these numbers.
    """

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.ops: list[Op] = []
        self.results: dict[fx.Node, Any] = {}
        self.spread: dict[Value, Value] = {}
        self._values: list[Value] = []
        self._first: list[int] = []  # number of the first plane of each of them
        self._start: dict[Value, int] = {}  # the same by value
        self._planes = 0
        self._names: set[str] = set()
        self._selected: dict[bytes, Value] = {}
        self._flat: dict[Value, Value] = {}  # what a Flatten made → what it read
        self._moved: dict[tuple[Turned, Shape], View] = {}
        self._planar: dict[tuple[bytes, Shape], View] = {}

    def value(self, name: str, channels: int, height: int = 1, width: int = 1) -> Value:
        """Return a new value; its planes get numbers."""
        unique, count = name, 0
        while unique in self._names:
            count += 1
            unique = f"{name}_{count}"
        self._names.add(unique)
        value = Value(unique, channels, height, width)
        self._values.append(value)
        self._first.append(self._planes)
        self._start[value] = self._planes
        self._planes += channels
        return value

    def view(self, value: Value, shape: Shape | None = None) -> View:
        """Return all planes of a value of this builder as a tensor, whose samples have `shape`."""
        shape = (value.channels, value.height, value.width) if shape is None else shape
        first = self._start[value]
        found = arranged(np.arange(first, first + value.channels), value.pixels, shape)
        assert found is not None, f"{value} as {shape}"
        return found

    def run(
        self, kind: type[Op], call: Call, inputs: Sequence[Value], size: tuple[int, int, int], **fields: Any
    ) -> Value:
        """Append an operator that makes `size` = channels, height, width; return what it makes."""
        for name in _WINDOW:
            if max(fields.get(name, (1, 1))) > _LARGEST_WINDOW:
                raise Refusal(
                    f"has a {name} of {max(fields[name])}; the engine takes up to {_LARGEST_WINDOW}"
                )
        made = self.value(call.node.name, *size)
        self.ops.append(kind(tuple(inputs), made, **fields))
        return made

    def operand(self, call: Call, *names: str) -> Any:
        """Return the first of the arguments that exists: a view, a constant tensor or a plain value."""
        argument = call.get(*names)
        return self.results[argument] if isinstance(argument, fx.Node) else argument

    def tensor(self, call: Call, *names: str) -> View:
        """Return an argument that must be no constant, with its pixels in place."""
        return self.plain(self.loose(call, *names), call.node.name)

    def loose(self, call: Call, *names: str) -> View | Turned:
        """Return an argument that must be no constant, as it lies."""
        found = self.operand(call, *(names or ("self", "input")))
        if not isinstance(found, View | Turned):
            raise Refusal(f"{(names or ('self',))[0]} is a constant")
        return found

    def plain(self, x: View | Turned, name: str, shape: Shape | None = None) -> View:
        """Return a tensor, or its numbers in another shape, as planes of its last two dimensions.

        What is a view stays as it is; of a turned one, pixels move, once for each shape.
        """
        if isinstance(x, View):
            return x if shape is None else self.reshape(x, shape, name)
        shape = x.shape if shape is None else shape
        if (x, shape) not in self._moved:
            self._moved[x, shape] = self._rearranged(x, shape, name)
        return self._moved[x, shape]

    def planar(self, view: View, name: str) -> View:
        """Return a tensor whose last two dimensions, or its last one, are rows and pixels of its planes."""
        shape = view.shape
        inside = min(2, max(0, len(shape) - 1))
        wanted = (1, 1, *shape[len(shape) - inside :])[-2:]
        lead = prod(shape[: len(shape) - inside])
        if view.planes.size == lead and self.size(view) == wanted:
            return View(view.planes.reshape(shape[: len(shape) - inside]), shape[len(shape) - inside :])
        key = (view.planes.tobytes(), shape)
        if key not in self._planar:
            self._planar[key] = self._rearranged(Turned(view, tuple(range(len(shape)))), shape, name)
        return self._planar[key]

    def _rearranged(self, x: Turned, shape: Shape, name: str) -> View:
        inside = min(2, max(0, len(shape) - 1))
        lead = len(shape) - inside
        height, width = (1, 1, *shape[lead:])[-2:]
        size = (prod(shape[:lead]), height, width)
        source = self.read(x.view, name)
        found = places(x, size, (source.height, source.width))
        if found is None and shape != x.shape:
            return self.reshape(self.plain(x, name), shape, name)
        if found is None:  # as single numbers, which may go anywhere
            numbers = self.reshape(x.view, (prod(x.shape),), name).planes.reshape(x.view.shape)
            numbers = numbers.transpose(x.order).reshape(-1)
            source = self.read(View(numbers, ()), name)
            flat = Turned(View(np.arange(numbers.size), ()), (0,))
            found = places(flat, size, (1, 1))
            assert found is not None
        made = self.value(name, *size)
        self.ops.append(Rearrange((source,), made, *found))
        return self.view(made, shape)

    def constant(self, call: Call, *names: str) -> Tensor | None:
        """Return an argument that must be a constant, None if it is not given."""
        found = self.operand(call, *names)
        if isinstance(found, View):
            raise Refusal(f"{names[0]} is computed")
        return None if found is None else torch.as_tensor(found)

    def shape(self, call: Call, result: int | None = None) -> Shape:
        """Return the shape of a sample of a result (the only one if no number is given)."""
        made = call.node.meta["val"] if result is None else call.node.meta["val"][result]
        shape = fixed_shape(made)
        if not shape or shape[0] != self.batch:
            raise Refusal("mixes samples")
        return shape[1:]

    def axis(self, dim: int, view: View | Turned) -> int:
        """Return the number of a dimension of the tensor within a sample."""
        rank = len(view.shape) + 1
        if dim % rank == 0:
            raise Refusal("works along the batch")
        return dim % rank - 1

    def size(self, view: View) -> Pair:
        """Return height and width of the planes of a view."""
        sizes = {(v.height, v.width) for v in (self._owner(int(p)) for p in np.unique(view.planes))}
        if len(sizes) != 1:
            raise Refusal("joins planes of different sizes")
        return sizes.pop()

    def read(self, view: View, name: str) -> Value:
        """Return the planes of a view, in order, as one value; makes a `Select` where they are not."""
        numbers = np.ascontiguousarray(view.planes.reshape(-1))
        if not numbers.size:
            raise Refusal("reads a tensor without elements")
        owner = self._owner(int(numbers[0]))
        if numbers.size == owner.channels and (numbers == self.view(owner).planes.reshape(-1)).all():
            return owner
        key = numbers.tobytes()
        if key not in self._selected:
            self._selected[key] = self._select(view, numbers, name)
        return self._selected[key]

    def image(self, view: View, name: str, dims: int = 2) -> Value:
        """Return a tensor [channels, height, width] (or [channels, length] for one of `dims`) as a value."""
        shape = view.shape
        if len(shape) != dims + 1:
            raise Refusal(f"reads a tensor of {len(shape) + 1} dimensions")
        return self.read(self.planar(view, name), name)

    def vector(self, view: View, name: str) -> Value:
        """Return a tensor [features] as a value; what was flattened comes as it was before."""
        if len(view.shape) == 1 and view.spatial:  # one channel that was flattened
            return self.read(view, name)
        if len(view.shape) != 1:
            raise Refusal(f"works on the last dimension of a tensor of {len(view.shape) + 1} dimensions")
        value = self.read(view, name)
        return self._flat.get(value, value)

    def reshape(self, view: View, shape: Shape, name: str) -> View:
        """Return the numbers of a view in the same order as a tensor of another shape."""
        if prod(shape) != prod(view.shape):
            raise Refusal("mixes samples")
        found = arranged(view.planes, view.pixels, shape)
        if not view.spatial and (source := self._source_of_flat(view)) is not None:
            # What was flattened and is an image again.
            found = arranged(self.view(source).planes, source.pixels, shape) or found
        if found is None:
            value = self.read(view, name)
            flat = next((f for f, source in self._flat.items() if source is value), None)
            if flat is None:
                flat = self.value(name, value.channels * value.pixels)
                self.ops.append(Flatten((value,), flat))
                self._flat[flat] = value
            found = self.view(flat, shape)
        return found

    def shaped(self, x: View | Turned, shape: Shape, name: str) -> View | Turned:
        """Return the numbers of a tensor as one of another shape; pixels stay where they are if they can."""
        if isinstance(x, View):
            return self.reshape(x, shape, name)
        if prod(shape) != prod(x.shape):
            raise Refusal("mixes samples")
        return reshaped(x, shape) or self.plain(x, name, shape)

    def _source_of_flat(self, view: View) -> Value | None:
        owner = self._owner(int(view.planes.flat[0])) if view.planes.size else None
        source = self._flat.get(owner) if owner is not None else None
        if owner is None or source is None or view.planes.size != owner.channels:
            return None
        return source if (view.planes.reshape(-1) == self.view(owner).planes.reshape(-1)).all() else None

    def _owner(self, plane: int) -> Value:
        return self._values[bisect_right(self._first, plane) - 1]

    def _select(self, view: View, numbers: Numbers, name: str) -> Value:
        height, width = self.size(view)
        places = np.searchsorted(self._first, numbers, side="right") - 1
        # In the order in which they are first read, so that the operator shows the order of a concatenation.
        used = list(dict.fromkeys(int(p) for p in places))
        begins, total = {}, 0
        for place in used:
            begins[place] = total - self._first[place]
            total += self._values[place].channels
        shift = np.array([begins[int(p)] for p in places], dtype=np.int64)
        made = self.value(f"{name}_planes", numbers.size, height, width)
        inputs = tuple(self._values[p] for p in used)
        self.ops.append(Select(inputs, made, (numbers + shift).astype(np.int32)))
        return made
