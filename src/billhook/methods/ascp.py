"""Asymptotic soft cluster pruning: units become copies of each other, and copies can be added up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from billhook.allocate.rounding import keep_best
from billhook.criteria import criteria
from billhook.criteria._base import ScoreContext
from billhook.graph.groups import ChannelGroup, Member
from billhook.graph.plan import Keep
from billhook.methods._asymptotic import SCHEDULES, AsymptoticCallback
from billhook.methods._base import Problem
from billhook.methods._clusters import add_channels_, average_, filters, kmeans, mergeable, merged_clusters
from billhook.methods._parts import Allocating, scores_of
from billhook.methods._training import MethodCallback, TrainingMethod
from billhook.methods._units import live_tensors, open_gates_, silence_, unit_norms
from billhook.options import Number, OneOf, option
from billhook.registry import Info
from billhook.train import StepContext

INFO = Info(
    "makes the filters of a cluster equal while training, then adds them up",
    "Niu et al., Asymptotic Soft Cluster Pruning, 2022, arXiv:2206.08186 (partly reconstructed)",
    needs_data=True,
    trains=True,
    notes="right after removal the network computes what it computed before, up to rounding",
)


@dataclass(frozen=True)
class Ascp(Allocating, TrainingMethod):
    """Clusters the filters of every group, replaces each by its cluster's mean, trains on, and repeats.

    The number of clusters comes down to the final width. Members of a cluster begin every round as equals and
    part again only through the weights that read them, so the network keeps its capacity while it learns to
    do with copies. After the last round, whoever read several copies reads one with the sum of the weights
    (channel addition), and the plan removes the others.

    Attributes:
        allocator: The source prunes every layer at one rate.

    References:
        Niu, Teng, Zou, "Asymptotic Soft Cluster Pruning for Deep Neural Networks", 2022. arXiv:2206.08186.
        Ding et al., "Centripetal SGD", CVPR 2019, for k-means, the mean and the channel addition.
        arXiv:1904.03837.
    Differs from the source:
        Only its abstract could be read; schedules, clustering and reconstruction are reconstructed from it
        and from the two methods it joins (ASFP and Centripetal SGD).
        A group is clustered once, on the filters of all layers that make or pass on its channels (depthwise
        ones included), one beside the other; clusters of a round start from those of the round before.
        Momentum is averaged within a cluster like the weights: stale momentum would part equals at once.
        Rounds are spread over the steps of the run, not one per epoch, because a short run has few epochs.
        Where channels are not read by weights alone (queries and keys, layer norm with mixing="allow"), or
        are picked and not made (channel selection), a sum of copies cannot be put into weights; there the
        smallest units are silenced instead.
    """

    allocator: str = "uniform"
    rounds: int = option(20, Number(1, integer=True), "how often filters are clustered, evenly over the run")
    decay: str = option("asymptotic", OneOf(*SCHEDULES), "how the number of clusters comes down")
    until: float = option(0.5, Number(0.01, 1), "part of the run after which the number is the final one")
    restarts: int = option(10, Number(1, integer=True), "starts of k-means in a group's first round")

    def callback(self, problem: Problem) -> MethodCallback:
        """Return what clusters."""
        return AscpCallback(self, problem)


class AscpCallback(AsymptoticCallback):
    """Remembers the widths, and the cluster of every unit in the round before."""

    def __init__(self, method: Ascp, problem: Problem) -> None:
        super().__init__(
            problem, method.allocating(), rounds=method.rounds, schedule=method.decay, until=method.until
        )
        self.method = method
        self._mergeable = mergeable(problem.graph, live_tensors(problem.model))

    def begin(self, context: StepContext) -> None:
        """Decide the widths; there are no clusters yet."""
        super().begin(context)
        self.memory["clusters"] = {}

    def scores(self, context: StepContext) -> dict[str, Tensor]:
        """Return L2 norms, for allocators that look at scores."""
        return scores_of(self.problem, context.model, criteria.get("l2")())

    def hold_round(self, context: StepContext, counts: Mapping[str, int], *, last: bool) -> dict[str, Keep]:
        """Cluster and make the members of a cluster equal; in the last round, add them up."""
        tensors = live_tensors(context.model)
        open_gates_(context.model, self.groups)
        keep: dict[str, Keep] = {}
        merged: list[tuple[ChannelGroup, Tensor]] = []
        for group in self.groups:
            count = counts[group.id]
            if group.id not in self._mergeable:
                norms = unit_norms(tensors, group, which="all")
                keep[group.id] = keep_best(norms.double().numpy(), count)
                continue
            labels = self._cluster(context, group, tensors, count)
            merged.append((group, labels))
            keep[group.id] = _first_of_each(labels)
        for group, labels in merged:
            average_(_following(context, group, tensors), labels)
        if last:
            for group, labels in merged:
                add_channels_(group, tensors, labels)
        silence_(tensors, [g for g in self.groups if g.id not in self._mergeable], keep)
        return keep

    def _cluster(
        self, context: StepContext, group: ChannelGroup, tensors: Mapping[str, Tensor], count: int
    ) -> Tensor:
        """Return the cluster of every unit: [size], of `count` clusters."""
        before = self.memory["clusters"].get(group.id)
        rows = filters(group, tensors)
        gram = (rows @ rows.T).cpu()
        # By the step as well: rounds draw anew, and a resumed run draws the same.
        generator = ScoreContext({}, self.problem.seed + 7919 * (context.step + 1)).generator(group)
        if before is None:
            labels = kmeans(gram, count, generator, restarts=self.method.restarts)
        else:
            labels = kmeans(gram, count, generator, start=merged_clusters(gram, before, count))
        self.memory["clusters"][group.id] = labels
        return labels


def _first_of_each(labels: Tensor) -> Keep:
    """Return a mask of the first unit of every cluster."""
    keep: Keep = np.zeros(len(labels), dtype=bool)
    keep[np.unique(labels.numpy(), return_index=True)[1]] = True
    return keep


def _following(
    context: StepContext, group: ChannelGroup, tensors: Mapping[str, Tensor]
) -> Sequence[tuple[Tensor, Member]]:
    """Return everything that makes or follows the group's channels, and the optimiser's memory of it."""
    members = [m for m in group.members if m.role != "in" and tensors[m.tensor].is_floating_point()]
    parameters = dict(context.model.named_parameters())
    found = []
    for m in members:
        found.append((tensors[m.tensor], m))
        state = context.optimizer.state.get(parameters[m.tensor], {}) if m.tensor in parameters else {}
        found += [
            (value, m)
            for value in state.values()
            if isinstance(value, Tensor) and value.shape == tensors[m.tensor].shape
        ]
    return found


ENTRY = Ascp
