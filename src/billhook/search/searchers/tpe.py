"""Tree-structured Parzen estimator: Optuna's default, for a budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from billhook.options import Number, option
from billhook.registry import Info
from billhook.search.searcher import Searcher
from billhook.search.session import Session
from billhook.search.space import Space

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

INFO = Info(
    "models which values good candidates have",
    "Bergstra et al., Algorithms for Hyper-Parameter Optimization, NIPS 2011",
)


@dataclass(frozen=True)
class Tpe(Searcher):
    """Optuna's TPE proposes; proposals are fitted to the budget before they are evaluated and learned from.

    References:
        Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NIPS 2011; Watanabe, arXiv:2304.11127.
    """

    libraries: ClassVar[tuple[str, ...]] = ("optuna",)
    startup: int = option(20, Number(1, integer=True), "random candidates at the beginning")

    def run(self, session: Session) -> None:
        """Evaluate what the sampler proposes until the trials are used up."""
        import optuna

        sampler = optuna.samplers.TPESampler(seed=session.seed, n_startup_trials=self.startup)
        study = quiet_study(direction="maximize", sampler=sampler)
        space = distributions(session.space)
        while True:
            rows = []
            for number in range(len(session.done), len(session.done) + session.parallel):
                asked = study.ask(space)
                study.tell(asked, state=optuna.trial.TrialState.FAIL)  # what is told is what was evaluated
                genes = np.array([asked.params[name] for name in space], dtype=np.int64)
                rows.append(session.costs.fitted(genes, np.random.default_rng([session.seed, number])))
            for trial in session.evaluate(rows):
                params = dict(zip(space, trial.genes, strict=True))
                study.add_trial(
                    optuna.trial.create_trial(params=params, distributions=space, value=trial.accuracy)
                )


def quiet_study(**settings: Any) -> Any:
    """Return an Optuna study in memory, for its sampler alone, without telling the world about it."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(**settings)
    finally:
        optuna.logging.set_verbosity(verbosity)


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Return Optuna's distribution of every gene, by its name."""
    import optuna

    return {g.name: optuna.distributions.IntDistribution(0, len(g.values) - 1) for g in space.genes}


ENTRY = Tpe
