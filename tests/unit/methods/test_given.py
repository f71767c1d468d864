"""A plan from a file: kept as it is, with the weights that were asked for, or refused with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from billhook import Budget, Scope, prune, shrink, sparsify, verify
from billhook.errors import BudgetError, InputError, PlanError, StorageError
from billhook.graph import Plan, apply, capture, make_plan
from billhook.graph.storage import write_tensors
from billhook.methods import Outcome, Problem
from billhook.methods.given import Given
from billhook.train import recalibrate_batchnorm
from tests.contract.wrong_values import wrong_values
from tests.networks import batches, build

HALF = Budget(macs=0.9)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A plan for the network "residual" that keeps every other unit of its groups."""
    model, x = build("residual")
    graph = capture(model, x)
    plan = make_plan(graph, {g.id: torch.arange(g.size) % 2 == 0 for g in graph.groups.prunable}, by="hand")
    plan.save(tmp_path / "plan.json")
    return tmp_path / "plan.json"


def carried_out(file: Path, **changes: object) -> Outcome:
    model, x = build("residual")
    options = {"plan": str(file), **{k: changes.pop(k) for k in ("weights", "tensors") if k in changes}}
    return shrink(model, x, method="given", options=options, **{"budget": HALF, **changes})


def test_the_plan_is_the_one_in_the_file_and_says_who_made_it(file: Path) -> None:
    outcome, there = carried_out(file), Plan.load(file)
    assert outcome.plan.diff(there) == {}
    assert outcome.plan.made_by["method"] == "given"
    assert outcome.plan.made_by["given"] == {"by": "hand"}
    before = build("residual")[0].state_dict()
    assert all(torch.equal(t, before[n]) for n, t in outcome.model.state_dict().items())


def test_least_squares_bring_the_outputs_nearer_to_the_originals(file: Path) -> None:
    model, x = build("residual")
    data = batches("residual", 8)
    kept, refitted = (carried_out(file, weights=w, data=data) for w in ("kept", "reconstructed"))
    with torch.no_grad():
        wanted = model(data[0][0])
        errors = [float((o.small()(data[0][0]) - wanted).square().mean()) for o in (kept, refitted)]
    assert errors[1] < 0.7 * errors[0]
    assert verify(refitted.model, refitted.plan, x).agrees
    again = carried_out(file, weights="reconstructed", data=data)
    assert all(torch.equal(t, again.model.state_dict()[n]) for n, t in refitted.model.state_dict().items())
    assert all(torch.equal(t, build("residual")[0].state_dict()[n]) for n, t in model.state_dict().items())


def test_fresh_weights_are_those_of_a_smaller_network_that_was_never_trained(file: Path) -> None:
    first, again, other = (carried_out(file, weights="fresh", seed=s).small() for s in (1, 1, 2))
    assert torch.equal(first.inner1.weight, again.inner1.weight)
    assert not torch.equal(first.inner1.weight, other.inner1.weight)
    # Kaiming's uniform bound of torch's convolutions: 1 / sqrt(inputs * kernel), of 8 inputs, not 16.
    bound = (8 * 9) ** -0.5
    assert 0.95 * bound < float(first.inner1.weight.detach().abs().max()) <= bound
    assert torch.equal(first.bn1.running_mean, torch.zeros(12))
    assert torch.equal(first.bn1.weight, torch.ones(12))
    state = torch.get_rng_state()
    carried_out(file, weights="fresh")
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_of_a_file_take_the_place_of_the_networks_own(file: Path, tmp_path: Path) -> None:
    other = build("residual")[0]
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    write_tensors(tmp_path / "w.safetensors", other)
    data = batches("residual", 8)
    options = {"weights": "file", "tensors": str(tmp_path / "w.safetensors")}
    outcome = carried_out(file, data=data, **options)
    small, wanted = outcome.small(), apply(other, outcome.plan)
    assert torch.equal(small.inner1.weight, wanted.inner1.weight)
    recalibrate_batchnorm(wanted, data, 8)
    assert torch.allclose(small.bn1.running_mean, wanted.bn1.running_mean, atol=1e-6)
    with pytest.raises(InputError, match="learns from data with weights='file'"):
        carried_out(file, **options)
    with pytest.raises(InputError, match="weights='file' and tensors=FILE together"):
        carried_out(file, data=data, weights="file")
    write_tensors(tmp_path / "w.safetensors", build("plain")[0])
    with pytest.raises(StorageError, match=r"w\.safetensors"):
        carried_out(file, data=data, **options)


class Scaled(nn.Module):
    """A layer with a parameter that nobody knows how to draw."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gain = nn.Conv2d(3, 8, 1), nn.Parameter(torch.ones(1))
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(x) * self.gain).mean((2, 3))


def test_a_module_that_cannot_draw_its_parameters_is_named(tmp_path: Path) -> None:
    model, x = nn.Sequential(Scaled()), torch.randn(1, 3, 4, 4)
    make_plan(capture(model, x), {"0.conv": torch.arange(8) < 4}).save(tmp_path / "p.json")
    options = {"plan": str(tmp_path / "p.json"), "weights": "fresh"}
    with pytest.raises(InputError, match=r"0 \(Scaled\) has parameters and no reset_parameters"):
        prune(model, x, method="given", budget=HALF, options=options)


def test_a_plan_that_costs_too_much_names_what_it_costs(file: Path) -> None:
    with pytest.raises(BudgetError, match=r"macs .*, allowed .*; params .*, allowed") as caught:
        carried_out(file, budget=Budget(macs=0.1, params=0.1, size=0.9))
    assert set(caught.value.reachable) == {"macs", "params"}


def test_a_bound_on_latency_is_left_to_the_measurement_of_the_run(file: Path) -> None:
    assert carried_out(file, budget=Budget(latency=0.01)).plan.removed


def test_what_does_not_fit_is_refused_with_the_name_of_the_file(file: Path, tmp_path: Path) -> None:
    model, x = build("plain")
    options = {"plan": str(file)}
    with pytest.raises(PlanError, match=r"plan\.json: the plan was made for another network"):
        prune(model, x, method="given", options=options, budget=HALF)
    with pytest.raises(PlanError, match="made with mixing='freeze', the network was looked at with"):
        prune(model, x, method="given", options=options, budget=HALF, mixing="allow")
    with pytest.raises(PlanError, match=r"removes units of group 'inner1', which is out of scope"):
        carried_out(file, scope=Scope(exclude=("inner1",)))
    (tmp_path / "no.json").write_text("{}")
    with pytest.raises(PlanError, match=r"no\.json: not a billhook plan"):
        carried_out(tmp_path / "no.json")
    with pytest.raises(PlanError, match=r"none\.json"):
        carried_out(tmp_path / "none.json")


def test_missing_things_are_asked_for(file: Path) -> None:
    model, x = build("residual")
    with pytest.raises(InputError, match="say which, with the option plan=FILE"):
        prune(model, x, method="given", budget=HALF)
    with pytest.raises(InputError, match="learns from data with weights='reconstructed'; give data="):
        carried_out(file, weights="reconstructed")


def test_zeros_in_weights_stay_in_the_plan(tmp_path: Path) -> None:
    model, x = build("residual")
    sparse = sparsify(model, x, sparsity=0.5, pattern="4x1|dense")
    sparse.plan.save(tmp_path / "plan.json")
    outcome = carried_out(tmp_path / "plan.json", budget=Budget(macs=0.7))  # met by zeros alone
    assert outcome.plan.patterns.keys() == sparse.plan.patterns.keys()


def test_wrong_options_are_refused_with_the_valid_range(file: Path) -> None:
    model, x = build("residual")
    for option, value, rule in wrong_values(Given):
        if option in ("plan", "tensors"):
            continue  # any text may be the name of a file
        options = {"plan": str(file), option: value}
        with pytest.raises(InputError) as caught:
            prune(model, x, method="given", budget=HALF, options=options)
        assert str(rule) in str(caught.value)


def test_a_check_finds_what_run_would(file: Path) -> None:
    model, x = build("residual")
    with pytest.raises(BudgetError):
        Given(plan=str(file)).check(Problem(model, x, Budget(macs=0.01)))
