"""`Graph` and plans made from it: fingerprints, wrong plans, changed models."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

import billhook
from billhook.errors import PlanError
from billhook.graph import Plan, apply, capture, cost, groups, make_plan, verify
from tests.networks import Residual, build

HALF = np.arange(24) < 12


@pytest.fixture(scope="module")
def residual() -> tuple[nn.Module, torch.Tensor]:
    return build("residual")


@pytest.fixture(scope="module")
def plan(residual: tuple[nn.Module, torch.Tensor]) -> Plan:
    return make_plan(capture(*residual), {"inner1": HALF}, method="first")


def test_groups_is_the_table_of_capture(residual: tuple[nn.Module, torch.Tensor]) -> None:
    assert [g.id for g in groups(*residual)] == [g.id for g in capture(*residual).groups]


def test_the_public_names_are_these(residual: tuple[nn.Module, torch.Tensor]) -> None:
    assert billhook.groups is groups
    assert billhook.capture is capture


def test_a_plan_records_what_it_needs_later(residual: tuple[nn.Module, torch.Tensor], plan: Plan) -> None:
    assert plan.counts == {"inner1": 12}
    assert plan.fingerprint == capture(*residual).fingerprint
    assert plan.inputs["args"] == [{"shape": [2, 3, 8, 8], "dtype": "float32", "max": 0}]
    assert plan.made_by == {"method": "first"}
    json.dumps(plan.to_dict())


def test_lists_will_do_for_a_plan(residual: tuple[nn.Module, torch.Tensor], plan: Plan) -> None:
    assert make_plan(capture(*residual), {"inner1": HALF.tolist()}, method="first") == plan


def test_weights_do_not_count_in_the_fingerprint_but_shapes_do(
    residual: tuple[nn.Module, torch.Tensor],
) -> None:
    assert capture(build("residual", seed=3)[0], residual[1]).fingerprint == capture(*residual).fingerprint
    other = Residual()
    other.inner1, other.bn1 = nn.Conv2d(16, 28, 3, padding=1, bias=False), nn.BatchNorm2d(28)
    other.outer1 = nn.Conv2d(28, 16, 3, padding=1, bias=False)
    assert capture(other, residual[1]).fingerprint != capture(*residual).fingerprint


def test_mixing_counts_in_the_fingerprint(residual: tuple[nn.Module, torch.Tensor]) -> None:
    assert capture(*residual, mixing="allow").fingerprint != capture(*residual).fingerprint


@pytest.mark.parametrize(
    "act",
    [
        apply,
        lambda m, p: verify(m, p, torch.zeros(2, 3, 8, 8)),
        lambda m, p: cost(m, torch.zeros(2, 3, 8, 8), p),
    ],
)
def test_a_plan_for_another_network_is_refused(act: object, plan: Plan) -> None:
    with pytest.raises(PlanError, match="made for another network") as caught:
        act(build("concat")[0], plan)  # type: ignore[operator]
    assert plan.fingerprint[:12] in str(caught.value)


def test_a_changed_model_is_noticed(plan: Plan) -> None:
    model, _ = build("residual")
    model.inner1.groups = 1
    assert type(apply(model, plan)) is Residual
    model.inner2.stride = (1, 1)  # the plan's own graph is of another network now
    model.project.stride = (1, 1)
    small = apply(model, plan)
    assert small.inner2.stride == (1, 1)
    assert small(torch.zeros(1, 3, 8, 8)).shape == (1, 5)


def test_wrong_lengths_are_refused_with_both_numbers(residual: tuple[nn.Module, torch.Tensor]) -> None:
    graph = capture(*residual)
    with pytest.raises(PlanError, match="group 'inner1' has 24 units, the plan speaks of 23"):
        make_plan(graph, {"inner1": HALF[1:]})
    with pytest.raises(PlanError, match="group 'inner1' has 24 units"):
        make_plan(graph, {"inner1": np.array(True)})
    with pytest.raises(PlanError, match="group 'inner1' has 24 units"):
        make_plan(graph, {"inner1": HALF.reshape(2, 12)})


def test_frozen_groups_are_refused_with_the_reason(residual: tuple[nn.Module, torch.Tensor]) -> None:
    with pytest.raises(
        PlanError, match=r"group 'head' is frozen: model output.*no unit of it can be removed"
    ):
        make_plan(capture(*residual), {"head": np.arange(5) < 3})


def test_a_frozen_group_may_be_named_if_it_stays_whole(residual: tuple[nn.Module, torch.Tensor]) -> None:
    assert make_plan(capture(*residual), {"head": np.ones(5)}).removed == {}


def test_at_least_one_unit_stays(residual: tuple[nn.Module, torch.Tensor]) -> None:
    with pytest.raises(
        PlanError,
        match=r"removes all 16 units of group 'stem'; at least one must stay, because.*residual branch",
    ):
        make_plan(capture(*residual), {"stem": np.zeros(16)})


def test_an_unknown_group_is_refused_with_close_names(residual: tuple[nn.Module, torch.Tensor]) -> None:
    with pytest.raises(PlanError, match=r"'inner'; did you mean 'inner[12]'"):
        make_plan(capture(*residual), {"inner": HALF})


def test_a_plan_from_json_that_was_tampered_with_is_refused(
    residual: tuple[nn.Module, torch.Tensor], plan: Plan
) -> None:
    data = plan.to_dict()
    data["groups"] = {"inner1": {"size": 20, "keep": "0-9"}}
    with pytest.raises(PlanError, match="has 24 units, the plan speaks of 20"):
        apply(residual[0], Plan.from_dict(data))
    data["groups"] = {"head": {"size": 5, "keep": "0-2"}}
    with pytest.raises(PlanError, match="frozen"):
        apply(residual[0], Plan.from_dict(data))
    data["groups"] = {"nowhere": {"size": 5, "keep": "0-2"}}
    with pytest.raises(PlanError, match="does not have"):
        apply(residual[0], Plan.from_dict(data))


def test_example_inputs_and_their_description(residual: tuple[nn.Module, torch.Tensor]) -> None:
    model, x = residual
    assert capture(model, x).example_inputs[0] is x
    assert capture(model, {"x": x}).example_inputs == {"x": x}
    assert set(capture(model, x).inputs) == {"args", "kwargs"}
