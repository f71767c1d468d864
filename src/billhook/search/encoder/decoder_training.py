"""DDPG for AGMC's decoder: whole episodes are replayed, so that gradients reach the LSTM and the encoder.

Stable-Baselines3 is not used here: its replay holds single transitions, and the state of one, as a function
of the weights that are being trained, is the decoder's walk over all genes before it. Each of the 64
transitions of an update would be a walk of its own; here the walk of an episode serves all its transitions.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from billhook.search.encoder.decoder import DecoderPolicy
from billhook.search.encoder.graphs import NetworkGraph

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Schedule:
    """How a decoder is trained.

    Attributes:
        actor_lr: Step size of actor, encoder and decoder.
        critic_lr: Step size of the critic.
        tau: How fast the targets follow.
        batch: Transitions of an update, at least.
        replay: Episodes that are kept.
        updates: Updates after each episode.
        trace: λ of TD(λ). 0: targets look one gene ahead; 1: to the end of the episode.
        penalty: Weight of the squared logits of ratios, which keeps them from the ends 0 and 1.
        freeze_encoder: The encoder stays as it is.
    """

    actor_lr: float = 1e-3
    critic_lr: float = 1e-3
    tau: float = 0.01
    batch: int = 64
    replay: int = 100
    updates: int = 4
    trace: float = 1.0
    penalty: float = 0.003
    freeze_encoder: bool = False


class DecoderTrainer:
    """Learns from episodes (actions, reward) what the actor should say.

    The reward comes at an episode's end, and γ is 1: what an action is worth is the episode's reward.

    Args:
        policy: What is trained.
        critic: What says how good an action is, of (what the actor reads, action); see `critic_of`.
        graph: Of the network.
        schedule: How.
        seed: Of the draws of episodes that are replayed.

    References:
        Lillicrap et al., "Continuous control with deep reinforcement learning", ICLR 2016. arXiv:1509.02971.
    Differs from the source:
        Targets look to the end of the episode, whose reward is known, unless `trace` is below 1: after a few
        hundred episodes, values that travel from gene to gene have not arrived. Rewards are scaled to mean 0
        and deviation 1 over the replay, instead of a moving mean. The penalty on logits is new: candidates
        depend on how ratios compare, so that without it all of them drift to 0 or 1 together.
    """

    def __init__(
        self,
        policy: DecoderPolicy,
        critic: nn.Module,
        graph: NetworkGraph,
        schedule: Schedule,
        seed: int,
    ) -> None:
        self.policy, self.critic, self.graph, self.schedule = policy, critic, graph, schedule
        self._rng = np.random.default_rng([seed, 2])
        self._targets = copy.deepcopy(nn.ModuleList([policy, critic]))
        if schedule.freeze_encoder:
            policy.encoder.requires_grad_(False)
        trained = [p for p in policy.parameters() if p.requires_grad]
        groups = [
            {"params": trained, "lr": schedule.actor_lr},
            {"params": [*critic.parameters()], "lr": schedule.critic_lr},
        ]
        self.optimizer = torch.optim.Adam(groups, fused=True)
        self._actions: list[Tensor] = []
        self._rewards: list[float] = []

    def add(self, actions: Tensor, rewards: Floats) -> None:
        """Keep some episodes: actions [episodes, genes] and rewards [episodes]."""
        self._actions = [*self._actions, *actions][-self.schedule.replay :]
        self._rewards = [*self._rewards, *map(float, rewards)][-self.schedule.replay :]

    def learn(self, episodes: int) -> None:
        """Update as often as so many new episodes ask for."""
        for _ in range(episodes * self.schedule.updates):
            self.optimizer.zero_grad(set_to_none=True)
            self.loss(*self.sample()).backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            if self.schedule.trace == 1:
                continue  # nobody asks the targets
            with torch.no_grad():
                targets: list[Tensor] = [*self._targets.parameters()]
                sources: list[Tensor] = [*self.policy.parameters(), *self.critic.parameters()]
                torch._foreach_lerp_(targets, sources, self.schedule.tau)

    def sample(self) -> tuple[Tensor, Tensor]:
        """Return actions [episodes, genes] and rewards [episodes] to learn from, standardised."""
        count = -(-self.schedule.batch // self.graph.genes)
        rewards = torch.tensor(self._rewards)
        scaled = (rewards - rewards.mean()) / (rewards.std(correction=0) + 1e-6)
        at = self._rng.integers(0, len(self._rewards), size=count)
        return torch.stack([self._actions[i] for i in at]), scaled[torch.from_numpy(at)]

    def loss(self, actions: Tensor, rewards: Tensor) -> Tensor:
        """Return the critic's loss plus the actor's, whose gradients reach encoder and decoder both.

        The actor's does so by what the actor reads, not by what the critic reads: otherwise the encoder would
        learn to show the critic networks that it takes for better ones.
        """
        states = self.policy.states(self.policy.embed(self.graph), actions)
        valued = self.critic(torch.cat([states, actions[..., None]], dim=2)).squeeze(2)
        critic_loss = (valued - self._wanted(actions, rewards)).square().mean()
        logits = self.policy.actor(states).squeeze(2)
        chosen = logits.sigmoid()
        self.critic.requires_grad_(False)  # the actor's loss is not the critic's to lower
        said = self.critic(torch.cat([states.detach(), chosen[..., None]], dim=2))
        self.critic.requires_grad_(True)
        loss: Tensor = critic_loss - said.mean() + self.schedule.penalty * logits.square().mean()
        return loss

    @torch.no_grad()
    def _wanted(self, actions: Tensor, rewards: Tensor) -> Tensor:
        """Return what the critic should say; [episodes, genes]."""
        if self.schedule.trace == 1:
            return rewards[:, None].expand_as(actions)
        policy, critic = self._targets
        assert isinstance(policy, DecoderPolicy)
        states = policy.states(policy.embed(self.graph), actions)
        ahead = critic(torch.cat([states, policy.ratio(states)[..., None]], dim=2)).squeeze(2)
        trace, wanted = self.schedule.trace, [rewards]
        for t in range(actions.shape[1] - 1, 0, -1):
            wanted.append(trace * wanted[-1] + (1 - trace) * ahead[:, t])
        return torch.stack(wanted[::-1], dim=1)
