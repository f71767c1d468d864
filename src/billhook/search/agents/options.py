"""Options of the agents, as every searcher that has one offers them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from billhook.options import Above, Configurable, Flag, Number, OneOf, OrAuto, option

AGENTS = ("ddpg", "td3", "sac", "ppo")
_WARMUP = 100  # episodes, in the source; no more than an eighth of a search


@dataclass(frozen=True)
class AgentOptions(Configurable):
    """What an agent is, and how it learns."""

    agent: str = option("ddpg", OneOf(*AGENTS), "what learns")
    warmup: int | Literal["auto"] = option(
        "auto", OrAuto(0, integer=True), "random episodes at the start; 'auto': 100, or an eighth if fewer"
    )
    sigma: float = option(0.5, Number(0, 10), "deviation of actions after the warm-up (DDPG)")
    sigma_decay: float = option(0.95, Number(0.01, 1), "factor on it from episode to episode (DDPG)")
    fill: bool = option(True, Flag(), "give what a walk leaves of the budget to the narrowest layers")
    least_sigma: float = option(0.08, Number(0, 1), "it falls no further than this (DDPG)")
    tau: float = option(0.01, Number(0, 1), "how fast target networks follow (not PPO)")
    replay: int | Literal["auto"] = option(
        "auto", OrAuto(1, integer=True), "transitions kept; 'auto': 100 for each gene (not PPO)"
    )
    batch: int = option(64, Number(2, integer=True), "transitions of an update")
    hidden: int = option(64, Number(1, 4096, integer=True), "width of the two hidden layers")
    updates: float = option(1.0, Above(0), "updates for each transition (not PPO)")
    actor_lr: float = option(1e-4, Above(0), "step size of the actor (DDPG)")
    critic_lr: float = option(1e-3, Above(0), "step size of the critic, and of all of the other agents")

    def random_episodes(self, trials: int) -> int:
        """Return how many of `trials` episodes come before any learning."""
        return min(_WARMUP, trials // 8) if self.warmup == "auto" else self.warmup

    def kept(self, genes: int) -> int:
        """Return how many transitions are remembered."""
        return 100 * genes if self.replay == "auto" else self.replay
