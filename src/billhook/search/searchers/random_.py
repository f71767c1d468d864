"""Random search within the budget: what every other searcher has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from billhook.registry import Info
from billhook.search.searcher import Searcher
from billhook.search.session import Session

INFO = Info("random candidates that use the budget up", "billhook")


@dataclass(frozen=True)
class Random(Searcher):
    """Every value of every gene is as likely; then random genes are lowered or raised to meet the budget."""

    def run(self, session: Session) -> None:
        """Evaluate random candidates until the trials are used up."""
        while True:
            rows = []
            for number in range(len(session.done), len(session.done) + session.parallel):
                rng = np.random.default_rng([session.seed, number])
                rows.append(session.costs.fitted(session.space.random(rng, 1)[0], rng))
            session.evaluate(rows)


ENTRY = Random
