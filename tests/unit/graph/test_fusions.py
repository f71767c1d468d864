"""Fusions as data: a plan makes the fused network again, or says why it cannot."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from billhook.errors import PlanError, StorageError
from billhook.fuse import ChannelCopy
from billhook.graph import Plan, apply, apply_, make_plan
from billhook.graph.fusions import Refusal, Site, as_layers, as_record, fused, passes, rewrite_at, tidy
from billhook.graph.inputs import as_call
from billhook.graph.layers import LayeredNetwork
from tests import fused as example
from tests.residual import residual
from tests.small_net import net

SHORTCUT = {"pass": "shortcut", "at": "layer1.0", "operator": "add_identity"}


def plan_with(*fusions: Any) -> Plan:
    """Return a plan that removes nothing of "basic", with these fusions."""
    return Plan({}, "0" * 32, make_plan(example.fused_graph("basic"), {}).inputs, fusions=fusions)


def test_a_plan_makes_the_same_network_again() -> None:
    model, x = residual("basic")
    network, _ = example.fused("basic")
    again = fused(model, plan_with(*network.fusions))
    assert isinstance(again, LayeredNetwork)
    assert again.fusions == network.fusions
    assert again.code == network.code
    assert again.state_dict().keys() == network.state_dict().keys()
    assert torch.equal(again(x), network(x))
    assert sum(isinstance(m, ChannelCopy) for m in again.modules()) == 5


def test_what_has_the_fusions_already_is_taken_as_it_is() -> None:
    network, _ = example.fused("basic")
    assert fused(network, plan_with(*network.fusions)) is network
    model, _ = residual("basic")
    assert fused(model, plan_with()) is model
    assert fused(network, plan_with()) is network


def test_what_has_some_of_the_fusions_gets_the_others() -> None:
    model, x = residual("basic")
    some, _ = example.fused("basic", include=("layer1.0",))
    whole, _ = example.fused("basic")
    again = fused(some, plan_with(*whole.fusions))
    assert len(some.fusions) == 1
    assert isinstance(again, LayeredNetwork)
    assert again.fusions == whole.fusions
    torch.testing.assert_close(again(x), model(x))


def test_statistics_and_modes_of_a_network_in_training_stay() -> None:
    model, _ = residual("basic")
    model.train()
    model.layer1[0].bn1.eval()
    before = copy.deepcopy(model.state_dict())
    again = fused(model, plan_with(SHORTCUT))
    assert again.training
    assert not again.get_submodule("layer1.0.bn1").training
    for key, value in before.items():
        assert torch.equal(again.state_dict()[key], value), key
        assert torch.equal(model.state_dict()[key], value), key


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({**SHORTCUT, "pass": "teleport"}, "a fusion 'teleport' that billhook does not have"),
        ({**SHORTCUT, "at": "layer9.0"}, "'shortcut' finds no add_identity at 'layer9.0'; it is for another"),
        ({**SHORTCUT, "operator": "concat"}, "finds no concat at 'layer1.0'"),
        ({**SHORTCUT, "operator": "add_projection"}, "finds no add_projection at 'layer1.0'"),
        ({"pass": "shortcut", "at": "layer1.0"}, "plan is corrupted at the fusion"),
        ({}, "plan is corrupted at the fusion"),
        (3, "plan is corrupted at the fusion 3"),
    ],
)
def test_what_cannot_be_made_again_is_an_error(entry: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        fused(residual("basic")[0], plan_with(entry))


def test_a_fusion_cannot_be_made_twice() -> None:
    with pytest.raises(PlanError, match=r"finds no add_identity at 'layer1\.0'"):
        fused(residual("basic")[0], plan_with(SHORTCUT, SHORTCUT))


def test_a_fusion_that_does_not_hold_is_an_error() -> None:
    model = net(lambda m, x: (y := m.a(x)) + m.b(y).relu(), a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 4, 1))
    x = torch.zeros(2, 3, 8, 8)
    (refusal,) = [f for f in _found(model, x) if isinstance(f, Refusal)]
    with pytest.raises(PlanError, match=r"does not hold here: .*convolution"):
        fused(model, plan_with({"pass": "shortcut", "at": refusal.at, "operator": refusal.operator}))


def _found(model: nn.Module, x: Tensor) -> list[Site | Refusal]:
    network = as_layers(model, as_call(x))
    return list(passes.get("shortcut").find(network, {}))


def test_a_rewrite_is_noted_and_takes_effect_when_tidied() -> None:
    model, x = residual("basic")
    network = as_layers(model, as_call(x))
    site = next(s for s in passes.get("shortcut").find(network, {}) if isinstance(s, Site))
    rewrite_at(network, "shortcut", site)
    assert network.fusions == (as_record("shortcut", site),) == (SHORTCUT,)
    tidy(network)
    assert "layer1_0_copies" in network.code
    torch.testing.assert_close(network(x), model(x))


def test_settings_are_a_part_of_the_record() -> None:
    assert as_record("p", Site("at", "op", {"kernel": 2})) == {
        "pass": "p", "at": "at", "operator": "op", "kernel": 2
    }  # fmt: skip


def test_fusions_survive_json() -> None:
    plan = make_plan(example.fused_graph("basic"), {"stem": np.arange(8) < 5})
    assert plan.fusions[0] == SHORTCUT
    assert Plan.from_json(plan.to_json()) == plan
    assert Plan.from_json(plan.to_json()).fusions == plan.fusions
    assert "fusions" not in plan_with().to_dict()


@pytest.mark.parametrize("broken", [{"pass": "x"}, ["shortcut"], "all", [SHORTCUT, 3]])
def test_broken_fusions_of_a_plan_are_named(broken: Any) -> None:
    data = {**plan_with().to_dict(), "fusions": broken}
    with pytest.raises(PlanError, match="plan is corrupted: 'fusions'"):
        Plan.from_dict(data)


@pytest.mark.parametrize("change", [{"add_form": "zzz"}, {"copies": 7}, {"extra": 1}])
def test_settings_that_were_changed_by_hand_are_an_error(change: dict[str, Any]) -> None:
    model, _ = residual("basic")
    network, _ = example.fused("basic", copies="dense")
    entry = {**network.fusions[0], **change}
    with pytest.raises(PlanError, match=r"'dense_shortcut' finds no add_identity at 'layer1\.0'"):
        fused(model, plan_with(entry))


def test_a_fused_network_can_be_made_smaller_in_place() -> None:
    network, x = example.fused("basic")
    plan = example.random_plan(example.fused_graph("basic"))
    small = apply(network, plan)
    assert apply_(network, plan) is network
    torch.testing.assert_close(network(x), small(x))


def test_a_fused_network_is_not_pickled() -> None:
    network, _ = example.fused("basic")
    with pytest.raises(StorageError, match=r"save it with billhook\.save"):
        pickle.dumps(network)
