"""GNN-RL's search: PPO on episodes, until trials are used up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger

from billhook.search.costs import SearchCosts
from billhook.search.encoder.decoder_search import Evaluate
from billhook.search.encoder.graphs import NetworkGraph
from billhook.search.encoder.policies import GraphActor, GraphCritic, GraphPolicy
from billhook.search.encoder.policies_episodes import PruningEpisodes
from billhook.search.space import Genes

_FOREVER = 1 << 62  # steps; what evaluates stops the search
_SIDE_BY_SIDE = 4  # episodes, at least


@dataclass(frozen=True)
class Proximal:
    """How PPO trains.

    Attributes:
        lr: Step size of Adam.
        std: Of the actions.
        epochs: Passes over the steps of an update.
        batch: Steps of an update, at least; the release has 100, and 15,000 episodes.
        clip: How far a probability may move in one update.
        gamma: Discount.
        entropy: Weight of the entropy; of no effect as long as `std` is fixed.
        steps: At most, in an episode.
        freeze_encoder: The encoders stay as they are.
    """

    lr: float = 3e-4
    std: float = 0.5
    epochs: int = 10
    batch: int = 20
    clip: float = 0.2
    gamma: float = 0.99
    entropy: float = 0.01
    steps: int = 5
    freeze_encoder: bool = False


def search_with_ppo(
    evaluate: Evaluate,
    costs: SearchCosts,
    actor: GraphActor,
    critic: GraphCritic,
    graph: NetworkGraph,
    proximal: Proximal,
    *,
    parallel: int,
    seed: int,
) -> None:
    """Evaluate what the policy comes up with, and train it, until `evaluate` raises.

    Args:
        evaluate: What candidates are worth.
        costs: With limits.
        actor: What is trained.
        critic: The same.
        graph: Of the network.
        proximal: How.
        parallel: Episodes that run side by side, if more than 4.
        seed: Of everything that is drawn; of the global generators, which are seeded with it.
    Differs from the source:
        Advantages are standardised, returns are not. Episodes that are cut off by an update's end are judged
        by the critic up to there.
    """

    def judge(rows: Sequence[Genes]) -> list[float]:
        trials = evaluate(rows)
        if len(trials) < len(rows):
            evaluate(rows[:1])  # says that there are no more
        return [t.accuracy for t in trials]

    episodes = max(parallel, _SIDE_BY_SIDE)
    each = max(1, -(-proximal.batch // episodes))
    agent = PPO(
        GraphPolicy,
        PruningEpisodes(costs, judge, episodes, proximal.steps),
        learning_rate=proximal.lr,
        n_steps=each,
        batch_size=each * episodes,
        n_epochs=proximal.epochs,
        gamma=proximal.gamma,
        gae_lambda=1.0,
        clip_range=proximal.clip,
        ent_coef=proximal.entropy,
        policy_kwargs={
            "graph": graph,
            "actor": actor,
            "critic": critic,
            "std": proximal.std,
            "freeze_encoder": proximal.freeze_encoder,
        },
        seed=seed,
        device="cpu",
    )
    agent.set_logger(Logger(folder=None, output_formats=[]))
    agent.learn(_FOREVER)
