"""An agent learns on a session until its trials are used up."""

from __future__ import annotations

import numpy as np

from billhook.search.agents.choose import SYMMETRIC, agent_of
from billhook.search.agents.lockstep import Lockstep
from billhook.search.agents.options import AgentOptions
from billhook.search.agents.randomness import OwnRandomness
from billhook.search.agents.walk import Candidates
from billhook.search.costs import SearchCosts
from billhook.search.space import Genes, Space
from billhook.search.studies.trial import Trial

_TRIES = 16  # neighbours of neighbours, until one is new


def learn(
    candidates: Candidates,
    options: AgentOptions,
    reward: str,
    *,
    trials: int,
    planned: int,
    parallel: int,
    seed: int,
) -> None:
    """Evaluate the candidates that an agent comes to, until `candidates` raises that no trials are left.

    The agent follows from the seed and from the results alone. The global random generators and the number of
    threads are left as they were, and evaluations do not see the agent's.

    Args:
        candidates: A session.
        options: What the agent is and how it learns.
        reward: One of `billhook.search.agents.rewards`.
        trials: Episodes in all.
        planned: How many there were to be at first; says how many of them are random.
        parallel: How many are evaluated side by side.
        seed: Of everything that the agent draws.
    Raises:
        BudgetError: if no candidate meets the budget.
        InputError: for a reward that is no number.
    """
    own = OwnRandomness(seed)
    with own.inside():
        symmetric = options.agent in SYMMETRIC
        outside = _Outside(candidates, own, np.random.default_rng([seed, 2]) if options.fill else None)
        env = Lockstep(outside, reward, parallel, symmetric=symmetric)
        agent = agent_of(options, env, env.walk.length, planned, seed)
        rounds = -(-trials // parallel)
        agent.learn(rounds * parallel * env.walk.length, log_interval=None)  # type: ignore[arg-type]


class _Outside:
    """Candidates that are evaluated with everybody else's generators and threads."""

    def __init__(self, candidates: Candidates, own: OwnRandomness, rng: np.random.Generator | None) -> None:
        self._candidates, self._own, self._rng = candidates, own, rng
        self._seen: set[tuple[int, ...]] = set()
        self.space: Space = candidates.space
        self.costs: SearchCosts = candidates.costs
        self.metric: str = candidates.metric

    def evaluate(self, rows: Genes) -> list[Trial]:
        if self._rng is not None and len(rows):
            rows = np.stack([self._new(row, self._rng) for row in rows])
        return self._own.outside(lambda: self._candidates.evaluate(rows))

    def _new(self, row: Genes, rng: np.random.Generator) -> Genes:
        """Return a row that uses the budget up: of those that were evaluated before, a neighbour."""
        row = self.costs.filled(row)
        for _ in range(_TRIES):
            if tuple(row.tolist()) not in self._seen:
                break
            near = row.copy()
            near[int(rng.integers(len(row)))] += rng.choice((-1, 1))
            near = np.clip(near, self.space.lowest, self.space.highest)
            row = self.costs.filled(self.costs.lowered(near, rng))
        self._seen.add(tuple(row.tolist()))
        return row
