"""From labels to groups: components that touch the same axes in the same way are interchangeable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from billhook.graph.groups import ChannelGroup, Groups, Member, Reason, Role
from billhook.graph.labels import Components, Labels
from billhook.graph.rules import Flow

ONE_UNIT = "only one unit: its channels cannot leave one by one"
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Partition:
    """The groups of a network and where every label belongs.

    Attributes:
        groups: The table.
        group_of: Index of the group per label, -1 if it belongs to none; shape [labels].
        unit_of: Unit inside its group per label; shape [labels].
        axes: (tensor, axis) → labels, for every axis that carries channels.
    """

    groups: Groups
    group_of: Ints
    unit_of: Ints
    axes: Mapping[tuple[str, int], Labels]

    def affine(self, labels: Labels) -> tuple[int, tuple[tuple[int, int], ...]]:
        """Return the length of a dimension: (constant, ((prunable group, indices per unit), ...))."""
        group = self.group_of[labels]
        constant = 0
        terms: list[tuple[int, int]] = []
        for g, count in zip(*np.unique(group, return_counts=True), strict=True):
            if g < 0 or not self.groups[int(g)].prunable:
                constant += int(count)
            else:
                terms.append((int(g), int(count) // self.groups[int(g)].size))
        return constant, tuple(terms)

    def kept(self, labels: Labels, keep: Sequence[npt.NDArray[np.bool_] | None]) -> npt.NDArray[np.bool_]:
        """Return which indices of a dimension stay, given a keep array (or None) per group."""
        result = np.ones(len(labels), dtype=bool)
        group, unit = self.group_of[labels], self.unit_of[labels]
        for g in np.unique(group):
            mask = keep[g] if g >= 0 else None
            if mask is not None:
                result[group == g] = mask[unit[group == g]]
        return result


@dataclass(frozen=True)
class _Slots:
    """Every index of every axis that carries channels, as flat arrays."""

    axis: Ints  # position in `keys`
    index: Ints
    component: Ints
    keys: list[tuple[str, int]]
    roles: list[Role]


def partition(flow: Flow) -> Partition:
    """Return the groups of a network whose labels have flowed."""
    components = flow.store.components()
    slots = _slots(flow, components)
    signature = _signatures(slots, components)
    present = np.unique(slots.component)
    # Groups in the order of production: by their first slot, producers first.
    first = _first_slot(slots, len(components.frozen))
    order: dict[int, list[int]] = {}
    for component in present[np.argsort(first[present], kind="stable")]:
        order.setdefault(int(signature[component]), []).append(int(component))

    group_of_component = np.full(len(components.frozen), -1, dtype=np.int64)
    unit_of_component = np.zeros(len(components.frozen), dtype=np.int64)
    for g, units in enumerate(order.values()):
        group_of_component[units] = g
        unit_of_component[units] = np.arange(len(units))
    tables = _members(slots, group_of_component, unit_of_component, len(order))
    named = _Names(flow)
    groups: list[ChannelGroup] = []
    renumber = np.full(len(order) + 1, -1, dtype=np.int64)
    for g, units in enumerate(order.values()):
        members = tables[g]
        if all(m.role == "in" for m in members):
            continue  # channels of the user's input: nothing here makes them
        frozen, mixed = components.frozen[units[0]], components.mixed[units[0]]
        reason = components.reasons[frozen] if frozen >= 0 else None
        if reason is None and len(units) == 1:
            reason = Reason(ONE_UNIT)
        renumber[g] = len(groups)
        groups.append(
            ChannelGroup(
                named(members), len(units), members, reason, components.reasons[mixed] if mixed >= 0 else None
            )
        )
    group_of = renumber[group_of_component[components.of]]
    axes = {key: flow.axes[key] for key in slots.keys}
    return Partition(Groups(groups), group_of, unit_of_component[components.of], axes)


def _slots(flow: Flow, components: Components) -> _Slots:
    """Flatten all axes that carry channels, producers first, in the order of the program."""
    rank = {"out": 0, "through": 1, "in": 2}
    roles = _roles(flow, components)
    used = sorted(roles, key=lambda key: rank[roles[key]])  # stable: the program's order inside a role
    labels = [flow.axes[key] for key in used]
    empty = np.empty(0, dtype=np.int64)
    return _Slots(
        axis=np.concatenate([np.full(len(x), i) for i, x in enumerate(labels)] or [empty]),
        index=np.concatenate([np.arange(len(x)) for x in labels] or [empty]),
        component=np.concatenate([components.of[x] for x in labels] or [empty]),
        keys=used,
        roles=[roles[key] for key in used],
    )


def _roles(flow: Flow, components: Components) -> dict[tuple[str, int], Role]:
    """Return the role of every axis that carries channels, in the order of the program.

    An axis whose labels met others only after other operators (a table that is indexed and permuted before it
    is added) was given none by a rule; it follows the channels it met.
    """
    channel = np.zeros(len(components.frozen), dtype=bool)
    for key in flow.roles:
        channel[components.of[flow.axes[key]]] = True
    return {
        key: flow.roles.get(key, "through")
        for key, labels in flow.axes.items()
        if key in flow.roles or channel[components.of[labels]].any()
    }


def _signatures(slots: _Slots, components: Components) -> npt.NDArray[np.uint64]:
    """Hash per component: the multiset of axes it touches, and why it is frozen or mixed."""
    random = np.random.default_rng(0x1B2C)
    weight = random.integers(1, 2**63, size=len(slots.keys) + 1, dtype=np.uint64)
    result = np.zeros(len(components.frozen), dtype=np.uint64)
    np.add.at(result, slots.component, weight[slots.axis])
    for why in (components.frozen, components.mixed):
        salt = random.integers(1, 2**63, size=len(components.reasons) + 1, dtype=np.uint64)
        result += salt[why + 1]
    return result


def _first_slot(slots: _Slots, count: int) -> Ints:
    first = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(first, slots.component, np.arange(len(slots.component)))
    return first


def _members(slots: _Slots, group_of: Ints, unit_of: Ints, count: int) -> list[tuple[Member, ...]]:
    """Return the members of every group, with index maps [size, width]."""
    group, unit = group_of[slots.component], unit_of[slots.component]
    order = np.lexsort((slots.index, unit, slots.axis, group))
    group, axis, unit, index = group[order], slots.axis[order], unit[order], slots.index[order]
    cuts = np.flatnonzero((np.diff(group) != 0) | (np.diff(axis) != 0)) + 1
    tables: list[list[Member]] = [[] for _ in range(count)]
    for part in np.split(np.arange(len(order)), cuts) if len(order) else []:
        g, a = int(group[part[0]]), int(axis[part[0]])
        size = int(unit[part[-1]]) + 1
        name, dimension = slots.keys[a]
        tables[g].append(Member(name, dimension, slots.roles[a], index[part].reshape(size, -1)))
    return [tuple(t) for t in tables]


class _Names:
    """Gives every group the name of the layer that makes its channels; parts of a layer get their range."""

    def __init__(self, flow: Flow) -> None:
        self._sizes = {key: len(labels) for key, labels in flow.axes.items()}
        self._taken: set[str] = set()

    def __call__(self, members: tuple[Member, ...]) -> str:
        maker = members[0]
        layer, _, leaf = maker.tensor.rpartition(".")
        name = layer if leaf in ("weight", "bias", "index") and layer else maker.tensor
        if maker.index.size < self._sizes[maker.tensor, maker.axis]:
            flat = np.sort(maker.index.reshape(-1))
            whole = flat[-1] - flat[0] + 1 == len(flat)
            name += f"[{flat[0]}:{flat[-1] + 1}]" if whole else f"[{flat[0]}...{flat[-1]}]"
        unique, n = name, 2
        while unique in self._taken:
            unique, n = f"{name}#{n}", n + 1
        self._taken.add(unique)
        return unique
