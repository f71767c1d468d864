"""What rules are written with: `Call`, `Flow` and the table of rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import fx

from billhook.errors import InputError
from billhook.graph.capture import Program, layer_of, source_line
from billhook.graph.groups import Reason, Role
from billhook.graph.labels import FIXED, Dims, Labels, LabelStore

Mixing = Literal["freeze", "allow"]
Result = Dims | list[Dims]
Rule = Callable[["Flow", "Call"], Result]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for operators by base name ("conv2d" for aten.conv2d.default).

    A string may hold several names, separated by spaces.
    """

    def register(function: Rule) -> Rule:
        for name in " ".join(names).split():
            if name in RULES:
                raise InputError(f"operator {name!r} already has a rule")
            RULES[name] = function
        return function

    return register


@dataclass(frozen=True)
class Call:
    """One operator call.

    Attributes:
        node: The graph node.
        name: Base name: no namespace, overload or in-place underscore.
        args: Arguments by the names of the operator's schema, defaults filled in.
    """

    node: fx.Node
    name: str
    args: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        """Return the argument called `name`."""
        return self.args[name]

    def get(self, *names: str) -> Any:
        """Return the first of the arguments that exists, None if none does."""
        return next((self.args[n] for n in names if n in self.args), None)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the (first) result."""
        return shape_of(self.node)

    @property
    def operands(self) -> list[fx.Node]:
        """All tensor arguments, in order, those in lists too."""
        found: list[fx.Node] = []
        for value in self.args.values():
            items = value if isinstance(value, (list, tuple)) else [value]
            found += [v for v in items if isinstance(v, fx.Node) and is_tensor(v)]
        return found


@dataclass(frozen=True)
class Silencer:
    """Dimension `dim` of `operand` is read with labels `labels`: removed ones must read as zero."""

    operand: fx.Node
    dim: int
    labels: Labels


@dataclass(frozen=True)
class MacTerm:
    """`constant` × product of the lengths of `dims` multiply-adds."""

    node: fx.Node
    constant: int
    dims: tuple[Labels, ...]


@dataclass
class Flow:
    """The labels of all values so far, and what rules said about them."""

    program: Program
    mixing: Mixing = "freeze"
    tie_parts: bool = True  # equal parts of a chunk lose the same positions
    tied_parts: bool = False  # whether that tied anything
    store: LabelStore = field(default_factory=LabelStore)
    values: dict[fx.Node, Result] = field(default_factory=dict)
    axes: dict[tuple[str, int], Labels] = field(default_factory=dict)  # labels of axes of named tensors
    roles: dict[tuple[str, int], Role] = field(default_factory=dict)
    numbering: dict[str, Labels] = field(default_factory=dict)  # labels of what the values of a tensor count
    silencers: dict[fx.Node, list[Silencer]] = field(default_factory=dict)
    mixers: set[fx.Node] = field(default_factory=set)
    mac_terms: list[MacTerm] = field(default_factory=list)
    # Decides which dimension carries the labels where one dimension is split; see `propagate`.
    carrier: Callable[[Call, Sequence[int]], int] | None = None

    def dims(self, value: Any) -> Dims:
        """Return the labels of a tensor argument, one entry per dimension."""
        if not isinstance(value, fx.Node):
            return []
        found = self.values.get(value)
        if found is None:
            return [None] * len(shape_of(value))
        return list(found)  # type: ignore[arg-type]

    def tensor_name(self, value: Any) -> str | None:
        """Return the parameter's or buffer's name if `value` is one."""
        return self.program.tensors.get(value.name) if isinstance(value, fx.Node) else None

    def reason(self, call: Call, text: str) -> Reason:
        """Return a `Reason` that points at `call`'s line of the user's code."""
        layer = layer_of(call.node)
        where = f" in {layer}" if layer else ""
        return Reason(f"{text}{where}", str(call.node.target), source_line(call.node))

    def unify(self, call: Call, a: Labels | None, b: Labels | None) -> None:
        """Make a[i] and b[i] leave together; a dimension without channels freezes the other."""
        if a is None and b is None:
            return
        if a is None or b is None:
            labels = a if a is not None else b
            assert labels is not None
            self.store.freeze(labels.reshape(-1), self.reason(call, "meets a dimension without channels"))
            return
        self.store.unify(a, b, self.reason(call, "meets an index that cannot leave"))

    def freeze(self, call: Call, labels: Labels | None, text: str) -> None:
        """Protect `labels`, with the reason."""
        if labels is not None:
            self.store.freeze(labels.reshape(-1), self.reason(call, text))

    def mix(self, call: Call, labels: Labels | None, text: str) -> None:
        """Say that the operator mixes these channels: silence is not exact there."""
        if labels is None:
            return
        if self.mixing == "freeze":
            self.freeze(call, labels, text)
        else:
            self.store.mark_mixed(labels.reshape(-1), self.reason(call, text))
            self.mixers.add(call.node)

    def contract(self, call: Call, operand: fx.Node, dim: int) -> None:
        """Say that the operator sums over dimension `dim` of `operand`, i.e. consumes its channels."""
        labels = self.dims(operand)[dim]
        if labels is not None:
            dim %= len(shape_of(operand))
            self.silencers.setdefault(call.node, []).append(Silencer(operand, dim, labels))

    def role(self, value: Any, axis: int, role: Role) -> None:
        """Say what an axis of a named tensor does with its channels; the first role counts."""
        name = self.tensor_name(value)
        if name is not None:
            self.roles.setdefault((name, axis % len(self.program.shapes[name])), role)

    def macs(self, call: Call, constant: int, *dims: Labels | None) -> None:
        """Say that the operator costs `constant` × product of the dimensions' lengths."""
        self.mac_terms.append(MacTerm(call.node, constant, tuple(d for d in dims if d is not None)))


def bind(node: fx.Node) -> Call:
    """Return `node` as a `Call` with named arguments."""
    target: Any = node.target
    name = str(target)
    schema = getattr(target, "_schema", None)
    if schema is None:
        plain = {str(i): a for i, a in enumerate(node.args)}
        return Call(node, getattr(target, "__name__", name), {**plain, **node.kwargs})
    args: dict[str, Any] = {}
    for position, argument in enumerate(schema.arguments):
        if position < len(node.args) and not argument.kwarg_only:
            args[argument.name] = node.args[position]
        elif argument.name in node.kwargs:
            args[argument.name] = node.kwargs[argument.name]
        elif argument.has_default_value():
            args[argument.name] = argument.default_value
        else:
            args[argument.name] = None
    base = schema.name.split("::")
    known = base[-1] if base[0] in ("aten", "prims") else schema.name
    return Call(node, known.rstrip("_") if known.endswith("_") and not known.endswith("__") else known, args)


def is_tensor(node: fx.Node) -> bool:
    """Return True if the node's value is one tensor."""
    return isinstance(node.meta.get("val"), torch.Tensor)


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Return the shape of the node's (first) tensor; symbolic sizes by their example."""
    value = node.meta.get("val")
    if isinstance(value, (list, tuple)):
        value = next((v for v in value if isinstance(v, torch.Tensor)), None)
    if not isinstance(value, torch.Tensor):
        return ()
    return tuple(as_int(s) for s in value.shape)


def as_int(size: Any) -> int:
    """Return a size as a number; a symbolic one by its example."""
    if isinstance(size, fx.Node):
        size = size.meta["val"]
    if isinstance(size, torch.SymInt):
        return int(size.node.hint)
    return int(size)


def all_fixed(labels: Labels | None) -> bool:
    """Return True if no index of the dimension can leave."""
    return labels is None or bool((labels == FIXED).all())


def no_channels(node: fx.Node) -> Dims:
    """Return labels that say: no dimension of this value carries channels."""
    return [None] * len(shape_of(node))


def several(value: Result | None) -> list[Dims]:
    """Return the labels of every result of an operator with several, nothing if it has one."""
    return [d for d in value or () if isinstance(d, list)]


def first_of(call: Call, dims: Dims) -> Result:
    """Return `dims` for the operator's first (or only) result; further results carry no channels."""
    value = call.node.meta.get("val")
    if not isinstance(value, (tuple, list)):
        return dims
    rest: list[Dims] = [[None] * (v.dim() if isinstance(v, torch.Tensor) else 0) for v in value[1:]]
    return [dims, *rest]


def each_of(call: Call, dims: Dims) -> Result:
    """Return `dims` for every result of the operator."""
    value = call.node.meta.get("val")
    return [list(dims) for _ in value] if isinstance(value, (tuple, list)) else dims
