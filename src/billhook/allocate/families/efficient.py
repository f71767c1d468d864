"""The least score lost per time saved; whole residual branches may leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from billhook.allocate.allocator import Allocator, Curve, Space
from billhook.allocate.costs import Floats, Work, fitted
from billhook.allocate.descent import descent
from billhook.allocate.families._scale import normalized
from billhook.allocate.rounding import Counts
from billhook.options import FlagOrAuto, OneOf, OrAuto, option
from billhook.registry import Info

INFO = Info("least score lost per time saved; whole residual branches may leave")

_NARROW, _SHALLOW = 0.3, 0.5  # of the MACs, and of the layers that can leave: what is left when calibrating


@dataclass(frozen=True)
class Efficient(Allocator):
    """A greedy way down: each step loses the least score for the work it saves.

    A step is one allowed width less in one group, or a residual branch that leaves with all that is left in
    it. Scores are taken to add up: a step loses the sum of the scores of its units (negative ones count as
    zero). Work is MACs + overhead · layers, where a layer is an operator with MACs. Narrow layers take hardly
    less time than wide ones on small images and small batches; the overhead says how much of it is fixed, and
    with it branches leave before their last units do.

    With a criterion whose scores add up across the network as they are, such as taylor, "auto" stands for
    normalize="none" and branches=True. With any other a group is worth, in all, the MACs that it takes part
    in (normalize="cost"), scores say which of its units are worth more than others, and no branch leaves. A
    unit of average score then leaves as readily as one of any other group, however dear. Divided by their
    mean or maximum instead, all units are worth the same, and a trunk that many blocks share gives up almost
    all of its few dear units before anything else.

    ResNet-20 trained on Fashion-MNIST (93.0 %), 50 % of the MACs, right after removal, with batch-norm
    statistics measured anew, one seed: L2 90 % with "cost", 37 % with "mean"; Taylor 89 % with "none", 81 %
    with "cost", 69 % with "mean". Global widths gave 83 % (L2) and 79 % (Taylor), uniform ones 90 % and 85 %.

    Scores on a scale of their own group cannot tell which branches matter. The same network at 45 % of the
    latency (ONNX Runtime), after 60 steps of training: Taylor with "none" 90 % (3 of 9 branches gone), global
    widths 88 %; L2 with "cost" 77 % (5 gone), 88 % with branches=False, global widths 87 %.

    With overhead="auto" and a latency bound, two networks on the way, a narrow one and a shallow one, are
    timed beside the original, and time = a·MACs + b·layers + c is solved with a, b, c ≥ 0. Without a latency
    bound "auto" is 0.
    """

    normalize: str = option(
        "auto",
        OneOf("auto", "cost", "mean", "max", "none"),
        "scale of a group's scores: its MACs, or divided by …; auto: by what they are",
    )
    overhead: float | str = option(
        "auto", OrAuto(0), "MACs that take as long as a layer does however narrow it is; auto: measured"
    )
    branches: bool | str = option(
        "auto", FlagOrAuto(), "whole residual branches may leave; auto: if scores can tell which"
    )

    def curve(self, space: Space, work: Work) -> Curve:
        """Return the networks of the way down, from the smallest at t = 0; equal steps of t between them."""
        way = descent(space, self._scores(space), self._branches(space), work)[::-1]
        return lambda amounts: way[np.floor(amounts * (len(way) - 1)).astype(np.int64)]

    def work(self, space: Space) -> Work:
        """Return MACs + overhead · layers, or what two measurements say."""
        if not isinstance(self.overhead, str):
            return Work(per_layer=float(self.overhead))
        # Where no layer can leave, they all cost the same on every way.
        if space.seconds is None or not self._branches(space):
            return Work()
        original = space.costs.original(("macs", "layers"))
        probes = np.stack([self._narrow(space), self._shallow(space, float(original["macs"][0]))])
        costs = space.costs.of(probes, ("macs", "layers"))
        return fitted(
            np.concatenate([original["macs"], costs["macs"]]),
            np.concatenate([original["layers"], costs["layers"]]),
            np.array([1.0, *(space.seconds(p) for p in probes)]),
        )

    def judging(self, *, additive: bool) -> Efficient:
        """Return this allocator with what "auto" stands for."""
        scale = ("none" if additive else "cost") if self.normalize == "auto" else self.normalize
        leave = additive if isinstance(self.branches, str) else self.branches
        return replace(self, normalize=scale, branches=leave)

    def knowing(self, overhead: float) -> Efficient:
        """Return this allocator with an overhead that need not be measured again."""
        return replace(self, overhead=overhead) if isinstance(self.overhead, str) else self

    def _narrow(self, space: Space) -> Counts:
        """Return the first network on the way without branches that has few MACs."""
        way = descent(space, self._scores(space), (), Work())
        return _first(way, space.costs.of(way, ("macs",))["macs"], _NARROW, 0.0)

    def _shallow(self, space: Space, macs: float) -> Counts:
        """Return the first network with few layers on the way on which a layer costs as much as all MACs."""
        way = descent(space, self._scores(space), self._branches(space), Work(per_layer=macs))
        layers = space.costs.of(way, ("layers",))["layers"]
        return _first(way, layers, _SHALLOW, float(layers[-1]))

    def _branches(self, space: Space) -> Sequence[tuple[int, ...]]:
        return space.branches if self.branches is not False else ()

    def _scores(self, space: Space) -> list[Floats]:
        if self.normalize in ("auto", "cost"):
            shares = [s / max(float(s.sum()), 1e-300) for s in (np.maximum(s, 0.0) for s in space.scores)]
            return [s * macs for s, macs in zip(shares, _macs_of_groups(space), strict=True)]
        return [np.maximum(normalized(s, self.normalize), 0.0) for s in space.scores]


def _macs_of_groups(space: Space) -> Floats:
    """Return the MACs that each group takes part in, as far as they grow with it: [groups]."""
    full = np.array([a[-1] for a in space.allowed], dtype=np.int64)
    narrower = full - np.eye(len(full), dtype=np.int64)
    macs = space.costs.of(np.concatenate([narrower, full[None]]), ("macs",))["macs"]
    # What takes part in none must not look as if it were worth nothing.
    worth: Floats = np.maximum((macs[-1] - macs[:-1]) * full, 1e-6 * macs[-1])
    return worth


def _first(way: Counts, sizes: Floats, part: float, least: float) -> Counts:
    """Return the first network that is down to `part` of the way from the first size to `least`."""
    below = sizes <= least + part * (sizes[0] - least)
    network: Counts = way[int(np.argmax(below)) if below.any() else -1]
    return network


ENTRY = Efficient
