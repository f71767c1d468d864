"""JCW: joint evolution of widths and weight densities, for all latencies at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from billhook.errors import BudgetError, InputError
from billhook.options import Above, Flag, Number, OneOf, OrNone, option
from billhook.registry import Info
from billhook.search.evolution.bounds import Bounds
from billhook.search.evolution.least import least_fractions
from billhook.search.evolution.offspring import offspring
from billhook.search.evolution.operators import without_repeats
from billhook.search.evolution.selection import by_individual, latency_targets, nsga2, unds
from billhook.search.pareto import Costs, Rows
from billhook.search.problem import SearchProblem
from billhook.search.searcher import Searcher
from billhook.search.session import Session
from billhook.search.shared.generations import InheritedGenerations, SharedGenerations
from billhook.search.shared.training import Training, first_channels
from billhook.search.space import Genes
from billhook.train import FitConfig

INFO = Info(
    "evolution of widths and densities together, a whole front of loss and latency",
    "Zhao et al., Joint Channel and Weight Pruning, ECCV 2022, arXiv:2110.08013",
    needs_data=True,
    trains=True,
    notes="evaluation=inherited does not train; with pattern=4x1|dense, densities are searched too",
)

_COUNT = Number(1, integer=True)
_USED_UP = 0.9  # of the budget: what costs more has used it up
_FIRST, _BREEDING, _TARGETS = 0, 1, 2  # what a generator of random numbers is for


@dataclass(frozen=True)
class Jcw(Searcher):
    """Every generation has children; the best of parents and children for each latency are the next one.

    With evaluation="shared", candidates of a generation are judged with the weights of one network, which is
    trained anew for each generation: first as dense slices, then with sparse weights. Losses of two
    generations cannot be compared, so parents are judged again: a generation costs two trials for each of its
    members, and one whose parents would use up the trials is not begun. With "inherited", candidates keep
    trained weights, as with every other searcher: nothing is trained, and only children are judged.

    The defaults are those of the source. They are made for 128 generations of 30 epochs each; `slice_steps`
    and `mask_steps` make that short, and start="trained" makes short training say more.

    References:
        Zhao et al., "Joint Channel and Weight Pruning for Model Acceleration on Mobile Devices", 2021 (ECCV
        2022 as "Multi-granularity Pruning for Model Acceleration on Mobile Devices"). arXiv:2110.08013.
    Differs from the source:
        Any network, pattern and cost; the space says which widths and densities there are. protect=True sets
        the bounds of its ResNet-18. The source knows no budget; with one, every candidate uses it up, and its
        loss alone decides. Then, and wherever trials are few, a population of a twentieth of them is better
        than the source's (ResNet-20, 200 trials, inherited weights).
    """

    objectives: ClassVar[tuple[str, ...]] = ("loss", "cost")

    selection: str = option(
        "unds", OneOf("unds", "nsga2", "individual"), "who survives; unds keeps good ones at every latency"
    )
    evaluation: str = option(
        "shared", OneOf("shared", "inherited"), "weights that judge: trained for each generation, or kept"
    )
    population: int = option(64, Number(2, integer=True), "how many survive, and how many children they have")
    targets: int = option(4, Number(2, integer=True), "latencies that unds selects for")
    spread: str = option("even", OneOf("even", "random"), "where these are; the ends are always among them")
    crossover_eta: float = option(0.5, Number(0), "of the crossover; higher: children closer to parents")
    crossover_prob: float = option(0.5, Number(0, 1), "probability of a gene to cross over")
    mutation_eta: float = option(15.0, Number(0), "of the mutation; higher: smaller steps")
    channels: float = option(0.5, Number(0, 1), "least fraction of a group's channels")
    density: float = option(0.3, Number(0, 1), "least fraction of a tensor's weights")
    protect: bool = option(False, Flag(), "more of the first layer, of strided ones and of residual widths")
    start: str = option(
        "untrained", OneOf("untrained", "trained"), "weights with which a generation's training begins"
    )
    slice_epochs: int = option(10, _COUNT, "training of dense slices")
    mask_epochs: int = option(20, _COUNT, "training with sparse weights, if there are densities")
    slice_steps: int | None = option(None, OrNone(_COUNT), "steps instead of epochs")
    mask_steps: int | None = option(None, OrNone(_COUNT), "the same for sparse weights")
    lr: float = option(0.1, Above(0), "peak learning rate, falling as a cosine in each of both")
    momentum: float = option(0.9, Number(0, 0.9999), "of SGD")
    weight_decay: float = option(4e-5, Number(0), "not applied to norms, biases and vectors")
    precision: str = option("auto", OneOf("auto", "32-true", "bf16-mixed"), "arithmetic of the training")
    settling: int = option(10, _COUNT, "batches from which a candidate's batch norms are measured")

    def check(self, problem: SearchProblem) -> None:
        """Raise `InputError` if there is nothing to train on."""
        if self.evaluation == "shared" and problem.data is None:
            raise InputError(
                "searcher 'jcw' trains shared weights: give data=, (inputs, targets), or the option "
                "evaluation='inherited'"
            )

    def run(self, session: Session) -> None:
        """Evolve until the trials are used up, or no new children are found."""
        bounds = Bounds.above(
            session.space,
            least_fractions(session.space, self.channels, self.density, protect=self.protect),
        )
        select = self._selection(session, bounds)
        judge = self._shared(session) if self.evaluation == "shared" else InheritedGenerations(session, {})
        population = self._first(session, bounds)
        for generation in range(session.trials):
            rng = _rng(session, _BREEDING, generation)
            children = offspring(
                population,
                self.population,
                bounds,
                rng,
                known=judge.known,
                repair=_repair(session, bounds, rng),
                crossover_eta=self.crossover_eta,
                crossover_prob=self.crossover_prob,
                mutation_eta=self.mutation_eta,
            )
            if not len(children) and generation:
                return
            trials = judge(generation, population, children)
            table = np.array([(t.loss, t.costs[session.metric]) for t in trials])
            population = np.array([trials[i].genes for i in select(table)], dtype=np.int64)

    def _selection(self, session: Session, bounds: Bounds) -> Callable[[Costs], Rows]:
        """Return who survives, as a function of (loss, cost)."""
        metric, costs = session.metric, session.costs
        ends = costs.of(np.stack([bounds.low, bounds.high]), (metric,))[metric]
        low, high = float(ends[0]), float(ends[1])
        limit = costs.limits.get(metric, np.inf)
        limit = (
            limit if limit < high else np.inf
        )  # of a budget that all candidates keep there is nothing to say
        self._require_reachable(session, bounds)

        def judged(table: Costs) -> Costs:
            """Let what uses the budget up cost as much as it: which steps genes have is no merit."""
            losses, found = table.T
            return np.stack([losses, np.where(found > _USED_UP * limit, limit, found)], 1)

        if self.selection == "nsga2":
            return lambda table: nsga2(judged(table), self.population)
        rng = None if self.spread == "even" else _rng(session, _TARGETS, 0)
        targets = latency_targets(low, min(high, limit), self.targets, rng)
        choose = unds if self.selection == "unds" else by_individual
        return lambda table: choose(judged(table), targets, self.population)

    def _require_reachable(self, session: Session, bounds: Bounds) -> None:
        costs = session.costs
        for metric, limit in costs.limits.items():
            least = float(costs.of(bounds.low, (metric,))[metric][0])
            if least > limit:
                whole = costs.original[metric]
                raise BudgetError(
                    f"no candidate keeps the budget with the options channels={self.channels:g} and density="
                    f"{self.density:g}: the least {metric} is {least / whole:.1%} of the original, the bound "
                    f"{limit / whole:.1%}. Lower these options, or raise the budget",
                    {metric: least},
                )

    def _first(self, session: Session, bounds: Bounds) -> Genes:
        """Return the first population: random, within the budget, all different if there are so many."""
        rng = _rng(session, _FIRST, 0)
        repair = _repair(session, bounds, rng)
        found = np.zeros((0, len(bounds.low)), dtype=np.int64)
        for _ in range(16):
            new = bounds.random(rng, self.population)
            if repair is not None:
                new = np.stack([repair(row) for row in new])
            found = without_repeats(np.concatenate([found, new]))[: self.population]
            if len(found) == self.population:
                break
        return found

    def _shared(self, session: Session) -> SharedGenerations:
        if session.trials <= self.population:
            raise InputError(
                f"trials={session.trials} are too few for one generation of a population of "
                f"{self.population}, which takes twice as many. Raise trials, or lower the option population"
            )
        trained = self.start == "trained"
        how = Training(
            self._config(self.slice_epochs, self.slice_steps),
            self._config(self.mask_epochs, self.mask_steps),
            trained=trained,
            settling=self.settling,
        )
        return SharedGenerations(session, session.space if trained else first_channels(session.space), how)

    def _config(self, epochs: int, steps: int | None) -> FitConfig:
        return FitConfig(
            epochs=epochs,
            steps=steps,
            lr=self.lr,
            schedule="cosine",
            warmup=0.0,
            momentum=self.momentum,
            nesterov=False,
            weight_decay=self.weight_decay,
            precision=self.precision,
        )


def _rng(session: Session, purpose: int, generation: int) -> np.random.Generator:
    return np.random.default_rng([session.seed, purpose, generation])


def _repair(session: Session, bounds: Bounds, rng: np.random.Generator) -> Callable[[Genes], Genes] | None:
    """Return what makes a row fit the budget: lowers it, and raises it if cost is what the budget bounds."""
    costs = session.costs
    if costs.within(bounds.high)[0]:
        return None
    if session.metric not in costs.limits:
        return lambda row: bounds.lowered(row, costs.within, rng)
    return lambda row: bounds.raised(bounds.lowered(row, costs.within, rng), costs.within, rng)


ENTRY = Jcw
