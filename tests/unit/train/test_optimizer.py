from __future__ import annotations

import pytest
import torch
from torch import nn

from billhook.errors import InputError
from billhook.train import FitConfig
from billhook.train.optimizer import load_optimizer_state, make_optimizer, parameter_groups
from tests.unit.train.tiny import tiny_net


def test_norms_biases_and_vectors_do_not_decay() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.LayerNorm([4, 2, 2]), nn.BatchNorm2d(4), nn.Linear(4, 2))
    model.register_parameter("layer_scale", nn.Parameter(torch.ones(4)))
    decay, rest = parameter_groups(model, 0.01)
    assert [p.dim() for p in decay["params"]] == [4, 2]
    assert (decay["weight_decay"], rest["weight_decay"]) == (0.01, 0.0)
    assert len(rest["params"]) == 1 + 1 + 2 + 2 + 1


def test_frozen_parameters_stay_out_and_shared_ones_come_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.Linear(4, 2))
    model[1].weight = model[0].weight
    model[2].requires_grad_(False)
    (group,) = parameter_groups(model, 0.1)
    assert group["params"] == [model[0].weight]


def test_a_network_without_trainable_parameters_is_an_error() -> None:
    with pytest.raises(InputError, match="no trainable parameter"):
        parameter_groups(tiny_net().requires_grad_(False), 0.1)


def test_the_optimizer_follows_the_config() -> None:
    sgd = make_optimizer(tiny_net(), FitConfig(momentum=0.8, nesterov=False))
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (0.8, False)
    assert isinstance(make_optimizer(tiny_net(), FitConfig(optimizer="adamw")), torch.optim.AdamW)


def test_a_loaded_state_has_the_layout_of_its_parameters() -> None:
    model = tiny_net().to(memory_format=torch.channels_last)
    optimizer = make_optimizer(model, FitConfig())
    state = optimizer.state_dict()
    state["state"] = {0: {"momentum_buffer": torch.randn(4, 2, 3, 3)}}
    load_optimizer_state(optimizer, state)
    loaded = optimizer.state[model[0].weight]["momentum_buffer"]
    assert loaded.stride() == model[0].weight.stride() != (18, 9, 3, 1)
    assert torch.equal(loaded, state["state"][0]["momentum_buffer"])
