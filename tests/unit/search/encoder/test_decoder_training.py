"""The decoder learns end to end: gradients reach the graph network, and good ratios win."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from billhook.search.encoder.decoder import DecoderPolicy, critic_of
from billhook.search.encoder.decoder_training import DecoderTrainer, Schedule
from billhook.search.encoder.network import EncoderName
from tests.networks import build
from tests.unit.search.encoder.test_graphs import graph_of


def trainer_of(encoder: EncoderName = "plain", **schedule: object) -> DecoderTrainer:
    torch.manual_seed(0)
    policy = DecoderPolicy(encoder)
    graph = graph_of(*build("residual"))
    trainer = DecoderTrainer(policy, critic_of(policy), graph, Schedule(**schedule), seed=0)
    rng = np.random.default_rng(0)
    actions = rng.random((60, graph.genes))
    trainer.add(torch.from_numpy(actions).float(), -((actions - 0.4) ** 2).sum(1))
    return trainer


@pytest.mark.parametrize("encoder", ["plain", "hierarchical"])
def test_the_loss_reaches_every_weight_of_encoder_and_decoder(encoder: EncoderName) -> None:
    trainer = trainer_of(encoder)
    trainer.loss(*trainer.sample()).backward()
    dead = [n for n, p in trainer.policy.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    unused = {"encoder.types"} if encoder == "hierarchical" else set()
    assert set(dead) <= unused


def test_the_actors_own_loss_reaches_the_encoder() -> None:
    trainer = trainer_of(penalty=0.0)
    actions, rewards = trainer.sample()
    whole = trainer.loss(actions, rewards)
    states = trainer.policy.states(trainer.policy.embed(trainer.graph), actions)
    valued = trainer.critic(torch.cat([states, actions[..., None]], dim=2)).squeeze(2)
    actors = whole - (valued - rewards[:, None]).square().mean()
    actors.backward()
    weight = trainer.policy.encoder.convolution.lin.weight
    assert weight.grad.abs().max() > 0


def test_ratios_go_where_rewards_are_high() -> None:
    trainer = trainer_of()
    trainer.learn(150)
    with torch.no_grad():
        said = trainer.policy.act(trainer.policy.embed(trainer.graph), 1, lambda r, _: r)
    assert (said - 0.4).abs().max() < 0.15


def test_a_frozen_encoder_stays() -> None:
    trainer = trainer_of(freeze_encoder=True)
    before = [p.clone() for p in trainer.policy.encoder.parameters()]
    actor = [p.clone() for p in trainer.policy.actor.parameters()]
    trainer.learn(2)
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.policy.encoder.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(actor, trainer.policy.actor.parameters(), strict=True))


def test_targets_that_look_ahead_follow_slowly() -> None:
    trainer = trainer_of(trace=0.5)
    first = next(trainer._targets.parameters()).clone()
    trainer.learn(1)
    moved = (next(trainer._targets.parameters()) - first).abs().max()
    assert 0 < moved < (next(trainer.policy.parameters()) - first).abs().max()
