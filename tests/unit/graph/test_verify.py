"""Verify agrees where the smaller network is right, and names the first layer that differs where not."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from billhook.errors import CaptureError, PlanError
from billhook.graph import Graph, Plan, apply, capture, make_plan, verify
from tests.networks import NETWORKS, build
from tests.oracle import prune_half, random_plan, randomize


@pytest.mark.parametrize("name", NETWORKS)
def test_silence_equals_removal_and_both_equal_zeroed_weights(name: str) -> None:
    model, inputs = build(name)
    prune_half(randomize(model), inputs)


@pytest.fixture(scope="module")
def case() -> tuple[nn.Module, Tensor, Graph, Plan, nn.Module]:
    model, x = build("residual")
    graph = capture(model, x)
    plan = random_plan(graph)
    return model, x, graph, plan, apply(model, plan)


def test_the_record_of_a_check(case: tuple[nn.Module, Tensor, Graph, Plan, nn.Module]) -> None:
    model, x, _, plan, small = case
    check = verify(model, plan, x, small=small)
    assert (check.exact, check.agrees, check.first_difference, check.mixed) == (True, True, None, ())
    assert check.max_rel_error <= check.tolerance == 1e-4
    assert verify(model, plan, x) == check


@pytest.mark.parametrize("layer", ["conv", "stem", "inner1", "bn1", "outer2", "project", "head"])
def test_the_first_layer_that_differs_is_named(
    layer: str, case: tuple[nn.Module, Tensor, Graph, Plan, nn.Module]
) -> None:
    model, x, _, plan, small = case
    layer = "stem" if layer == "conv" else layer
    sabotaged = copy.deepcopy(small)
    with torch.no_grad():
        sabotaged.get_submodule(layer).weight[0] += 0.5
    check = verify(model, plan, x, small=sabotaged)
    assert not check.agrees
    assert not check.exact
    assert check.first_difference == layer
    assert check.max_abs_error > 0


def test_swapped_channels_are_noticed(case: tuple[nn.Module, Tensor, Graph, Plan, nn.Module]) -> None:
    model, x, _, plan, small = case
    sabotaged = copy.deepcopy(small)
    with torch.no_grad():
        sabotaged.inner1.weight[:] = sabotaged.inner1.weight.flip(0)
    assert verify(model, plan, x, small=sabotaged).first_difference == "inner1"


def test_other_shapes_and_values_that_are_no_numbers_are_noticed(
    case: tuple[nn.Module, Tensor, Graph, Plan, nn.Module],
) -> None:
    model, x, _, plan, small = case
    other = copy.deepcopy(small)
    other.head = nn.Linear(other.head.in_features, 4)
    assert verify(model, plan, x, small=other).max_abs_error == float("inf")
    broken = copy.deepcopy(small)
    with torch.no_grad():
        broken.head.bias[0] = float("nan")
    check = verify(model, plan, x, small=broken)
    assert (check.agrees, check.first_difference) == (False, "head")


def test_the_tolerance_can_be_given(case: tuple[nn.Module, Tensor, Graph, Plan, nn.Module]) -> None:
    model, x, _, plan, small = case
    wrong = copy.deepcopy(small)
    with torch.no_grad():
        wrong.head.bias[0] *= 1.001
    assert not verify(model, plan, x, small=wrong, tolerance=1e-6).agrees
    check = verify(model, plan, x, small=wrong, tolerance=0.1)
    assert check.agrees
    assert check.tolerance == 0.1


def test_networks_in_train_mode_are_compared_in_eval_mode(
    case: tuple[nn.Module, Tensor, Graph, Plan, nn.Module],
) -> None:
    model, x, _, plan, _ = case
    training = copy.deepcopy(model).train()
    small = apply(training, plan)
    assert verify(training, plan, x, small=small).agrees
    assert small.training
    assert training.training


def test_other_inputs_will_do(case: tuple[nn.Module, Tensor, Graph, Plan, nn.Module]) -> None:
    model, _, _, plan, small = case
    assert verify(model, plan, torch.randn(1, 3, 10, 10), small=small).agrees


def test_inputs_the_model_cannot_take_are_explained(
    case: tuple[nn.Module, Tensor, Graph, Plan, nn.Module],
) -> None:
    model, _, _, plan, small = case
    with pytest.raises(CaptureError, match="does not run on the example inputs"):
        verify(model, plan, torch.zeros(1, 4, 8, 8), small=small)


def test_a_foreign_plan_is_refused(case: tuple[nn.Module, Tensor, Graph, Plan, nn.Module]) -> None:
    _, x, _, plan, _ = case
    with pytest.raises(PlanError):
        verify(build("plain")[0], plan, x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_have_their_own_tolerance(dtype: torch.dtype) -> None:
    model, x = build("plain")
    model, x = model.to(dtype), x.to(dtype)
    plan = random_plan(capture(model, x))
    check = verify(model, plan, x)
    assert check.agrees
    assert (check.tolerance < 1e-4) == (dtype == torch.float64)


def test_channels_through_layer_norm_agree_but_are_not_exact() -> None:
    model = randomize(nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 3)))
    x = torch.randn(2, 4)
    graph = capture(model, x, mixing="allow")
    plan = make_plan(graph, {"0": torch.arange(8) < 5})
    check = verify(model, plan, x)
    assert check.agrees
    assert not check.exact
    assert check.mixed == ("0",)
    assert verify(model, make_plan(graph, {}), x).exact
