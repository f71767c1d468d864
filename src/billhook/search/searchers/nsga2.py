"""NSGA-II: a whole front of loss and cost, by Optuna."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from billhook.options import Number, option
from billhook.registry import Info
from billhook.search.searcher import Searcher
from billhook.search.searchers.tpe import distributions, quiet_study
from billhook.search.session import Session

INFO = Info(
    "evolution of a whole front of loss and cost",
    "Deb et al., A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, 2002",
)


@dataclass(frozen=True)
class Nsga2(Searcher):
    """Optuna's NSGA-II on loss and the metric; with a budget, what exceeds it is lowered until it does not.

    References:
        Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE TEC 6(2), 2002.
    """

    libraries: ClassVar[tuple[str, ...]] = ("optuna",)
    objectives: ClassVar[tuple[str, ...]] = ("loss", "cost")
    population: int = option(32, Number(2, integer=True), "candidates of a generation")

    def run(self, session: Session) -> None:
        """Evaluate what the sampler proposes until the trials are used up."""
        import optuna

        sampler = optuna.samplers.NSGAIISampler(seed=session.seed, population_size=self.population)
        study = quiet_study(directions=["minimize", "minimize"], sampler=sampler)
        space = distributions(session.space)
        while True:
            asked = [study.ask(space) for _ in range(session.parallel)]
            rows = []
            for number, one in enumerate(asked, len(session.done)):
                genes = np.array([one.params[name] for name in space], dtype=np.int64)
                rows.append(session.costs.lowered(genes, np.random.default_rng([session.seed, number])))
            for one, trial in zip(asked, session.evaluate(rows), strict=False):
                study.tell(one, [trial.loss, trial.costs[session.metric]])


ENTRY = Nsga2
