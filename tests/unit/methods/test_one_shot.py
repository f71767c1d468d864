"""One-shot pruning by hand: two layers, known norms, known widths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from billhook import verify
from billhook.allocate.budget import Budget
from billhook.errors import InputError, NameNotFoundError
from billhook.methods import Problem
from billhook.methods.one_shot import OneShot
from tests.residual import residual, residual_graph


@pytest.fixture
def model() -> nn.Module:
    """Hidden units of norms 1, 5, 2, 4, 3, 6 (made by that weight, read by 1 output)."""
    network = nn.Sequential(nn.Linear(1, 6, bias=False), nn.ReLU(), nn.Linear(6, 1, bias=False))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1.0], [5.0], [2.0], [4.0], [3.0], [6.0]]))
        network[2].weight.fill_(1.0)
    return network


def _problem(model: nn.Module, **changes: object) -> Problem:
    return Problem(model, torch.ones(1, 1), **({"budget": Budget(params=0.5), "round_to": 1} | changes))


def test_the_units_of_largest_norm_stay(model: nn.Module) -> None:
    plan = OneShot(criterion="l2").run(_problem(model)).plan
    assert np.flatnonzero(plan.keep["0"]).tolist() == [1, 3, 5]


def test_widths_follow_rounding(model: nn.Module) -> None:
    plan = OneShot(criterion="l2").run(_problem(model, round_to=2)).plan
    assert np.flatnonzero(plan.keep["0"]).tolist() == [1, 5]


def test_the_cost_before_and_after_is_recorded(model: nn.Module) -> None:
    made_by = OneShot().run(_problem(model)).plan.made_by
    assert made_by["original"] == {"params": 12}
    assert made_by["reached"] == {"params": 6}


def test_options_reach_criterion_and_allocator() -> None:
    method = OneShot(options={"members": "out"}, allocator_options={"floor": 1})
    criterion, allocator = method.scoring(), method.allocating()
    assert criterion.members == "out"
    assert allocator.floor == 1


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"criterion": "l3"}, NameNotFoundError, "unknown criterion 'l3'; did you mean"),
        ({"allocator": "globel"}, NameNotFoundError, "unknown allocator 'globel'; did you mean 'global'"),
        (
            {"options": {"memberz": "all"}},
            InputError,
            "criterion 'l2' has no option 'memberz'; did you mean 'members'",
        ),
        ({"allocator_options": {"floor": 2}}, InputError, "allocator 'global': option floor=2 .* at most 1"),
    ],
)
def test_mistakes_are_found_before_any_work(settings: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        OneShot(**settings)


def test_whole_branches_leave_if_the_allocator_says_so() -> None:
    network, x = residual("resnet-20")
    problem = Problem(network, x, Budget(macs=0.3), round_to=1, captured=residual_graph("resnet-20"))
    method = OneShot(allocator="efficient", allocator_options={"overhead": 1e6, "branches": True})
    outcome = method.run(problem)
    left = problem.graph.dropped(outcome.plan)
    assert left
    assert outcome.plan.made_by["reached"]["macs"] <= 0.3 * outcome.plan.made_by["original"]["macs"]
    verify(network, outcome.plan, x)
    for options in ({"branches": False}, {}):  # sizes of weights cannot tell which branches matter
        stays = OneShot(allocator="efficient", allocator_options={"overhead": 1e6, **options})
        assert not problem.graph.dropped(stays.run(problem).plan)
