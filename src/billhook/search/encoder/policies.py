"""GNN-RL's policy for Stable-Baselines3: actor and critic on graphs, one head for all genes."""

from __future__ import annotations

from math import log
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import DiagGaussianDistribution, Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from billhook.search.encoder.graphs import NetworkGraph
from billhook.search.encoder.network import EncoderName, make_encoder


class GraphActor(nn.Module):
    """What leaves each gene next, from -1 (nothing) to 1 (all): encoder → 200 ReLU → tanh.

    Differs from the source:
        One head says what happens to a gene from the network's embedding, that of the gene's layers and what
        is left of it, instead of one output for each of a fixed number of layers; so it fits other networks.
    """

    def __init__(self, encoder: EncoderName = "hierarchical", hidden: int = 200) -> None:
        super().__init__()
        self.encoder = make_encoder(encoder)
        self.head = nn.Sequential(
            nn.Linear(2 * self.encoder.size + 1, hidden), nn.ReLU(), nn.Linear(hidden, 1), nn.Tanh()
        )

    def forward(self, graph: NetworkGraph, fractions: Tensor) -> Tensor:
        """Return the mean action; [rows, genes] of what is left [rows, genes]."""
        seen = self.encoder(graph, fractions)
        whole = seen.whole[:, None].expand(-1, graph.genes, -1)
        said: Tensor = self.head(torch.cat([whole, seen.genes, fractions[..., None]], dim=2)).squeeze(2)
        return said


class GraphCritic(nn.Module):
    """What is to come, from an encoder of its own; nothing squashes it."""

    def __init__(self, encoder: EncoderName = "hierarchical") -> None:
        super().__init__()
        self.encoder = make_encoder(encoder)
        self.head = nn.Linear(self.encoder.size, 1)

    def forward(self, graph: NetworkGraph, fractions: Tensor) -> Tensor:
        """Return the value of what is left; [rows, 1]."""
        value: Tensor = self.head(self.encoder(graph, fractions).whole)
        return value


class GraphPolicy(ActorCriticPolicy):
    """Actor and critic as Stable-Baselines3 wants them; what it observes are the fractions that are left.

    The graph is made from them anew wherever a state is judged, in the update too: gradients reach the
    encoders, and each state of a batch has its own embedding.

    Args:
        observation_space: As in the base class.
        action_space: The same.
        lr_schedule: The same.
        graph: Of the network.
        actor: What chooses.
        critic: What judges.
        std: Of the actions, fixed.
        freeze_encoder: The encoders stay as they are.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        graph: NetworkGraph,
        actor: GraphActor,
        critic: GraphCritic,
        std: float = 0.5,
        freeze_encoder: bool = False,
        **rest: Any,
    ) -> None:
        self._parts = {"actor": actor, "critic": critic}  # before modules can be registered
        self._graph, self._std, self._frozen = graph, std, freeze_encoder
        super().__init__(observation_space, action_space, lr_schedule, **rest)

    def _build(self, lr_schedule: Schedule) -> None:
        self.actor, self.critic = self._parts["actor"], self._parts["critic"]
        if self._frozen:
            for part in self._parts.values():
                part.encoder.requires_grad_(False)
        trained = [p for p in self.parameters() if p.requires_grad]
        self.optimizer = self.optimizer_class(trained, lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    def get_distribution(self, obs: PyTorchObs) -> Distribution:
        """Return the distribution of actions in some states [rows, genes]."""
        assert isinstance(obs, Tensor)
        mean = self.actor(self._graph, obs)
        assert isinstance(self.action_dist, DiagGaussianDistribution)
        return self.action_dist.proba_distribution(mean, torch.full_like(mean, log(self._std)))

    def predict_values(self, obs: PyTorchObs) -> Tensor:
        """Return the value of some states [rows, genes]; [rows, 1]."""
        value: Tensor = self.critic(self._graph, obs)
        return value

    def forward(self, obs: Tensor, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Return actions, values and log probabilities."""
        distribution = self.get_distribution(obs)
        actions = distribution.get_actions(deterministic=deterministic)
        return actions, self.predict_values(obs), distribution.log_prob(actions)

    def evaluate_actions(self, obs: PyTorchObs, actions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return values and log probabilities of actions in their states, and entropies."""
        distribution = self.get_distribution(obs)
        return self.predict_values(obs), distribution.log_prob(actions), distribution.entropy()
