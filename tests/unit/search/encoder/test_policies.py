"""PPO's policy: each state of a batch has its own graph, gradients reach stage 1, values are not squashed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from billhook.search.encoder.policies import GraphActor, GraphCritic, GraphPolicy
from tests.networks import build
from tests.unit.search.encoder.test_graphs import graph_of


def policy_of(**given: object) -> GraphPolicy:
    torch.manual_seed(0)
    graph = graph_of(*build("residual"))
    return GraphPolicy(
        spaces.Box(0.0, 1.0, (graph.genes,), np.float32),
        spaces.Box(-1.0, 1.0, (graph.genes,), np.float32),
        lambda _: 3e-4,
        graph=graph,
        actor=GraphActor(),
        critic=GraphCritic(),
        **given,
    )


def test_the_policys_loss_has_a_gradient_in_stage_one() -> None:
    policy = policy_of()
    states = torch.rand(4, policy._graph.genes).clamp_min(0.2)
    actions, _, before = policy(states)
    _, after, _ = policy.evaluate_actions(states, actions.detach())
    advantages = torch.tensor([1.0, -1.0, 0.5, -0.5])
    (-(advantages * (after - before.detach()).exp()).mean()).backward()
    assert policy.actor.encoder.motif.lin.weight.grad.abs().max() > 0
    assert policy.actor.encoder.types.grad.abs().max() > 0


def test_probabilities_of_a_batch_are_those_of_its_states_one_by_one() -> None:
    policy = policy_of()
    states = torch.rand(3, policy._graph.genes).clamp_min(0.2)
    actions, values, logs = policy(states)
    for i in range(3):
        value, log, _ = policy.evaluate_actions(states[i : i + 1], actions[i : i + 1])
        assert torch.allclose(log, logs[i], atol=1e-4)
        assert torch.allclose(value[0], values[i], atol=1e-5)


def test_actions_vary_as_much_as_told() -> None:
    policy = policy_of(std=0.25)
    distribution = policy.get_distribution(torch.ones(1, policy._graph.genes))
    assert distribution.distribution.stddev == pytest.approx(0.25)


def test_a_value_may_be_any_number() -> None:
    policy = policy_of()
    with torch.no_grad():
        policy.critic.head.bias.fill_(7.0)
    assert policy.predict_values(torch.ones(1, policy._graph.genes)) > 5


def test_frozen_encoders_are_not_trained() -> None:
    policy = policy_of(freeze_encoder=True)
    trained = {id(p) for group in policy.optimizer.param_groups for p in group["params"]}
    assert not any(id(p) in trained for p in policy.actor.encoder.parameters())
    assert any(id(p) in trained for p in policy.actor.head.parameters())
