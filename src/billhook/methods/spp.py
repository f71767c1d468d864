"""SPP: units drop out with a probability that rises for the weak and falls for those that recover."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from billhook.criteria._members import WHICH
from billhook.graph import Plan
from billhook.graph.plan import Keep
from billhook.methods._base import Problem
from billhook.methods._fixed_widths import FixedWidths
from billhook.methods._parts import Allocating
from billhook.methods._training import MethodCallback, TrainingMethod
from billhook.methods._units import Masks, factor, live_tensors, silence_, unit_norms
from billhook.options import Number, OneOf, OrAuto, option
from billhook.registry import Info
from billhook.train import StepContext

INFO = Info(
    "units are masked at random while training, weak ones more and more often",
    "Wang et al., Structured Probabilistic Pruning, BMVC 2018, arXiv:1709.06994",
    needs_data=True,
    trains=True,
    notes="batch-norm statistics are collected under masks; take them anew where nothing is fine-tuned",
)

AMOUNT, FLATNESS = 0.05, 0.25  # A and u, as published
_SLACK = 1.5  # ranks change while a network trains, so it takes longer than with ranks that stand still
_MOST = 10_000  # rounds of a simulation, so that it ends for any options


def increments(ranks: Tensor, leaving: int, amount: float = AMOUNT, flatness: float = FLATNESS) -> Tensor:
    """Return Δ(r), by how much the probability of the unit at rank r changes: [n], float64.

    A e^(−αr) up to rank N, and from there its mirror image through (N, uA): 0 at r = `leaving`, negative
    beyond. α = (ln 2 − ln u) / leaving, N = −ln u / α.

    Args:
        ranks: 0 is the weakest: [n].
        leaving: How many units have still to leave; at least 1.
        amount: A, the increment of the weakest.
        flatness: u, the increment at the centre as a part of A.
    """
    r = ranks.double()
    alpha = (math.log(2) - math.log(flatness)) / leaving
    centre = -math.log(flatness) / alpha
    before = amount * torch.exp(-alpha * r)
    after = 2 * flatness * amount - amount * torch.exp(-alpha * (2 * centre - r))
    return torch.where(r <= centre, before, after)


def renewed(probabilities: Tensor, scores: Tensor, leaving: int, amount: float, flatness: float) -> Tensor:
    """Return the probabilities after one update: [size], float64.

    Units at 1 are gone and keep out of the ranking; once `leaving` of them are gone, all others stay.

    Args:
        probabilities: Of being masked: [size].
        scores: Size of each unit's weights; ties go by index: [size].
        leaving: How many units leave in all.
        amount: See `increments`.
        flatness: See `increments`.
    """
    gone = probabilities >= 1
    left = leaving - int(gone.sum())
    if left <= 0:
        return gone.double()
    open_ = (~gone).nonzero().flatten()
    order = open_[torch.argsort(scores[open_], stable=True)]
    result = probabilities.double().clone()
    result[order] += increments(torch.arange(len(order)), left, amount, flatness)
    result.clamp_(0, 1)
    # The last round may take more units across than may leave; the strongest of them have to wait.
    over = order[result[order] >= 1][left:]
    result[over] = probabilities.double()[over]
    return result


def rounded(probabilities: Tensor, scores: Tensor, leaving: int) -> Tensor:
    """Return 1 for the `leaving` units of highest probability (among equals the weakest), 0 for others."""
    by_score = torch.argsort(scores, stable=True)
    order = by_score[torch.argsort(-probabilities[by_score], stable=True)]
    return torch.zeros_like(probabilities).index_fill_(0, order[:leaving], 1.0)


def rounds_needed(size: int, leaving: int, amount: float, flatness: float) -> int:
    """Return after how many updates `leaving` of `size` units are gone if their ranks never change."""
    scores, now = torch.arange(size), torch.zeros(size, dtype=torch.float64)
    for number in range(_MOST):
        if int((now >= 1).sum()) >= leaving:
            return number
        now = renewed(now, scores, leaving, amount, flatness)
    return _MOST


def drawn(probabilities: Tensor, seed: int, step: int, group: str) -> Tensor:
    """Return one mask per unit: 0 with its probability, else 1; a function of seed, step and group."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {step} {group}".encode()))
    return (torch.rand(len(probabilities), generator=generator, dtype=torch.float64) >= probabilities).float()


@dataclass(frozen=True)
class Spp(Allocating, TrainingMethod):
    """Every unit has a probability of being masked in a step; every few steps it rises or falls by rank.

    The weakest n units of a group, by L1 norm, drift towards leaving, all others back to safety, so one that
    was weak for a while recovers. A unit that reaches 1 is gone. The unit is a whole unit of a channel group
    (the source's row and channel variants): that is what makes a network smaller. The source's columns of a
    weight matrix do not change widths; they belong to fine-grained sparsity.

    A masked unit is not read in that step, and nothing of it changes: all its weights, also those of layers
    that read it, are put back after the optimiser's step, which momentum and weight decay would have moved.
    The optimiser's memory goes on. One mask holds for a whole batch.

    Widths come from the budget at the first step. After the part `until` of the run, or when a group has lost
    what it must, probabilities become 0 or 1 so that exactly the right number leaves; the rest of the run
    trains the smaller network, and its batch-norm statistics catch up.

    References:
        Wang et al., "Structured Probabilistic Pruning for Convolutional Neural Network Acceleration",
        BMVC 2018, algorithm 1.
    Differs from the source:
        One budget for the network. Updates come as often as fits the run instead of every 180 steps; where
        even one update per step is too slow for A = 0.05 (20 updates for the weakest), A grows.
        Norms of all coupled layers count; members="out" takes the filters alone, as the source does.
    """

    allocator: str = "uniform"
    until: float = option(0.7, Number(0.01, 1), "part of the run after which all is decided")
    interval: int | str = option(
        "auto", OrAuto(1, integer=True), "steps between updates (published 180); auto: as many as fit"
    )
    amount: float | str = option(
        "auto", OrAuto(0.001, 1), "A, increment of the weakest; auto: 0.05, as published, more in short runs"
    )
    flatness: float = option(FLATNESS, Number(0.01, 0.99), "u, increment at the centre as a part of A")
    members: str = option("all", OneOf(*WHICH), "weights that count: of all layers, or of the producers")

    def pace(self, sizes: Iterable[tuple[int, int]], steps: int) -> tuple[int, float]:
        """Return interval and A for groups of (size, units that leave) and the steps there are."""
        published = AMOUNT if isinstance(self.amount, str) else float(self.amount)
        needed = max((rounds_needed(s, n, published, self.flatness) for s, n in set(sizes)), default=1)
        needed = max(1, math.ceil(_SLACK * needed))
        interval = max(1, steps // needed) if isinstance(self.interval, str) else self.interval
        rounds = max(1, steps // interval)
        faster = max(1.0, needed / rounds) if isinstance(self.amount, str) else 1.0
        return interval, min(1.0, published * faster)

    def callback(self, problem: Problem) -> MethodCallback:
        """Return what masks."""
        return SppCallback(self, problem)


class SppCallback(FixedWidths):
    """Remembers the widths and the probability of every unit."""

    def __init__(self, method: Spp, problem: Problem) -> None:
        super().__init__(problem, method.allocating())
        self.method = method
        self._masks: Masks | None = None
        self._masked: dict[str, Tensor] = {}
        self._before: dict[str, Tensor] = {}

    def begin(self, context: StepContext) -> None:
        """Choose widths; every unit is safe."""
        super().begin(context)
        counts = self.decided.counts
        leaving = {g.id: g.size - counts[g.id] for g in self.groups}
        until = max(1, round(self.method.until * context.total_steps))
        interval, amount = self.method.pace([(g.size, leaving[g.id]) for g in self.groups], until)
        chances = {g.id: torch.zeros(g.size, dtype=torch.float64) for g in self.groups}
        self.memory.update(leaving=leaving, chances=chances)
        self.memory.update(until=until, interval=interval, amount=amount)

    def scores(self, context: StepContext) -> dict[str, Tensor]:
        """Return the L1 norm of the weights of every unit."""
        tensors = live_tensors(self.problem.model)
        return {g.id: unit_norms(tensors, g, power=1, which=self.method.members) for g in self.groups}

    def before_step(self, context: StepContext) -> None:
        """Renew the probabilities if it is time, and put this step's masks on."""
        super().before_step(context)
        memory = self.memory
        if context.step == memory["until"]:
            self._decide(context)
        elif context.step < memory["until"] and context.step % memory["interval"] == 0:
            self._renew(context)
        self._masked = {g: drawn(p, self.problem.seed, context.step, g) for g, p in memory["chances"].items()}
        names = {m.tensor for g in self.groups for m in g.members}
        self._before = {n: p.detach().clone() for n, p in self.problem.model.named_parameters() if n in names}
        self._masks = self._masks or Masks(self.problem.model, self.groups)
        self._masks.put(self._masked)

    def after_backward(self, context: StepContext) -> None:
        """Take the masks off; what was masked has no gradient."""
        assert self._masks is not None
        self._masks.take_off(slopes_wanted=False)

    @torch.no_grad()
    def after_step(self, context: StepContext) -> None:
        """Put back whatever belongs to a masked unit."""
        moved: dict[str, Tensor] = {}
        for group in self.groups:
            for m in group.members if not self._masked[group.id].all() else ():
                if m.tensor in self._before:
                    before = self._before[m.tensor]
                    stays = factor(self._masked[group.id], m, before)
                    moved[m.tensor] = moved[m.tensor] * stays if m.tensor in moved else stays
        parameters = dict(self.problem.model.named_parameters())
        for name, stays in moved.items():
            parameters[name].copy_(torch.where(stays > 0, parameters[name], self._before[name]))
        self._before = {}

    def plan(self, context: StepContext) -> Plan:
        """Return the plan that removes the units whose probability came out as 1."""
        self._decide(context)
        return self.plan_with(self._stays())

    def _renew(self, context: StepContext) -> None:
        scores, memory = self.scores(context), self.memory
        for name, chances in memory["chances"].items():
            memory["chances"][name] = renewed(
                chances, scores[name], memory["leaving"][name], memory["amount"], self.method.flatness
            )
        self._silence()

    def _decide(self, context: StepContext) -> None:
        scores, memory = self.scores(context), self.memory
        for name, chances in memory["chances"].items():
            memory["chances"][name] = rounded(chances, scores[name], memory["leaving"][name])
        self._silence()

    def _silence(self) -> None:
        """Let nobody read the units that are gone."""
        silence_(live_tensors(self.problem.model), self.groups, self._stays())

    def _stays(self) -> dict[str, Keep]:
        return {name: (chances < 1).numpy() for name, chances in self.memory["chances"].items()}


ENTRY = Spp
