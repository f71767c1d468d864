"""AMC: an agent walks over the layers and decides how much of each stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from billhook.errors import InputError
from billhook.options import OneOf, option
from billhook.registry import Info
from billhook.search.agents.options import AgentOptions
from billhook.search.searcher import Searcher

if TYPE_CHECKING:
    from billhook.search.problem import SearchProblem
    from billhook.search.session import Session

INFO = Info(
    "an agent decides layer by layer; a wall keeps it within the budget",
    "He et al., ECCV 2018, arXiv:1802.03494",
    notes="agent=td3, sac or ppo instead of DDPG; needs a budget, or a reward that knows costs",
)


@dataclass(frozen=True)
class AMC(AgentOptions, Searcher):
    """AutoML for model compression.

    With a pattern and without channels it is the source's fine-grained mode; with both, a layer's channels
    are decided first, then its density.

    References:
        He et al., "AMC: AutoML for Model Compression and Acceleration on Mobile Devices", ECCV 2018.
        arXiv:1802.03494.
    Differs from the source:
        The wall knows the values that a gene can have and any cost, see `billhook.search.agents.wall`. The
        warm-up is shorter if the search is. Critic and actor are those of `billhook.search.agents.ddpg`, and
        narrower: 64 units instead of 300 are as good on a dozen genes and take a third of the time.
        What a walk has left of the budget goes to its narrowest layers before it is judged, for the wall lets
        early layers spend what later ones then lack; a candidate that was judged before gives way to a
        neighbour; and exploration does not fall to nothing. In short searches half of all candidates would be
        repeats otherwise.
    """

    libraries: ClassVar[tuple[str, ...]] = ("gymnasium", "stable_baselines3")

    reward: str = option(
        "error",
        OneOf("error", "accuracy", "error-log-macs", "error-log-params"),
        "what the agent is after",
    )

    def check(self, problem: SearchProblem) -> None:
        """Refuse a reward that says nothing about costs where no budget does either."""
        if problem.budget is None and self.reward in ("error", "accuracy"):
            raise InputError(
                f"the reward {self.reward!r} knows no costs, and there is no budget: everything would stay. "
                "Give a budget, or take the reward 'error-log-macs' or 'error-log-params'"
            )

    def run(self, session: Session) -> None:
        """Learn until the trials are used up."""
        from billhook.search.agents.learn import learn

        learn(
            session,
            self,
            self.reward,
            trials=session.trials,
            planned=session.planned,
            parallel=session.parallel,
            seed=session.seed,
        )


ENTRY = AMC
