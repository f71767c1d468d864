"""ThiNet: selection and scaling against least squares done the long way, then the method in training."""

from __future__ import annotations

from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import billhook
from billhook import Budget, Scope, shrink
from billhook.errors import InputError
from billhook.methods import Problem
from billhook.methods._training import MethodCallback
from billhook.methods.thinet import (
    ThiNet,
    backward_greedy,
    least_squares_scale,
    matching_pursuit,
)
from billhook.train import CallbackDriver, FitConfig, StepContext, fit
from tests.networks import batches, build
from tests.unit.train.tiny import EXACT, StopAt, assert_same_weights


def _values(rows: int = 200, units: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(rows, units, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _error(x: Tensor, factors: Tensor) -> float:
    return float((x.sum(1) - x @ factors).square().sum())


def _chosen(x: Tensor, kept: int, variant: str) -> Tensor:
    gram = x.T @ x
    return backward_greedy(gram, x.shape[1] - kept) if variant == "iccv" else matching_pursuit(gram, kept)


def _naively_backward(x: Tensor, removed: int) -> set[int]:
    gone: list[int] = []
    for _ in range(removed):
        left = [j for j in range(x.shape[1]) if j not in gone]
        gone.append(min(left, key=lambda j: float(x[:, [*gone, j]].sum(1).square().sum())))
    return set(range(x.shape[1])) - set(gone)


def _naively_pursued(x: Tensor, kept: int) -> set[int]:
    chosen: list[int] = []
    residual = y = x.sum(1)
    for _ in range(kept):
        left = [j for j in range(x.shape[1]) if j not in chosen]
        chosen.append(max(left, key=lambda j: float((x[:, j] @ residual) ** 2 / (x[:, j] @ x[:, j]))))
        part = x[:, chosen]
        residual = y - part @ torch.linalg.lstsq(part, y[:, None]).solution[:, 0]
    return set(chosen)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kept", [1, 3, 6, 8])
def test_the_gram_matrix_chooses_like_the_values_themselves(seed: int, kept: int) -> None:
    x = _values(seed=seed) + 0.5 * _values(units=1, seed=seed + 50)  # correlated
    assert set(_chosen(x, kept, "iccv").nonzero().flatten().tolist()) == _naively_backward(x, 8 - kept)
    assert set(_chosen(x, kept, "tpami").nonzero().flatten().tolist()) == _naively_pursued(x, kept)


def test_four_units_by_hand() -> None:
    x = torch.diag(torch.tensor([3.0, 1.0, 2.0, 0.5], dtype=torch.float64))
    assert _chosen(x, 2, "iccv").tolist() == [True, False, True, False]
    assert _chosen(x, 2, "tpami").tolist() == [True, False, True, False]
    # Units 0 and 1 cancel, so the second to leave is the one that takes the first one's contribution back.
    x = torch.tensor([[1.0, -1.1, 0.0, 0.0], [0.0, 0.0, 2.0, 1.5]], dtype=torch.float64).T.T
    assert _chosen(x, 2, "iccv").tolist() == [False, False, True, True]


def test_a_copy_is_made_up_for_by_the_other() -> None:
    x = _values()
    x[:, 1] = x[:, 0]
    stays = torch.arange(8) != 1
    factors = least_squares_scale(x.T @ x, stays)
    torch.testing.assert_close(factors, torch.tensor([2.0, 0, 1, 1, 1, 1, 1, 1]).double(), rtol=0, atol=1e-4)
    assert _error(x, factors) < 1e-6
    for kept in (7, 8):  # also where copies make the matrix singular
        assert torch.isfinite(least_squares_scale(x.T @ x, _chosen(x, kept, "tpami"))).all()
    assert _chosen(x, 7, "tpami")[[0, 1]].sum() == 1


@pytest.mark.parametrize("variant", ["iccv", "tpami"])
def test_dead_units_leave_first(variant: str) -> None:
    x = _values()
    x[:, [2, 5]] = 0
    stays = _chosen(x, 6, variant)
    assert stays.tolist() == [True, True, False, True, True, False, True, True]
    assert _error(x, least_squares_scale(x.T @ x, stays)) < 1e-12
    assert least_squares_scale(torch.zeros(4, 4).double(), torch.arange(4) < 2).tolist() == [1, 1, 0, 0]


def test_scaling_is_least_squares_and_never_hurts() -> None:
    for seed in range(5):
        x = _values(seed=seed) + 0.5 * _values(units=1, seed=seed + 50)
        gram = x.T @ x
        for kept in range(1, 9):
            stays = _chosen(x, kept, "tpami")
            factors = least_squares_scale(gram, stays)
            best = torch.linalg.lstsq(x[:, stays], x.sum(1)[:, None]).solution[:, 0]
            torch.testing.assert_close(factors[stays], best, rtol=1e-4, atol=1e-4)
            assert _error(x, factors) <= _error(x, stays.double()) + 1e-9
        assert torch.equal(factors, torch.ones(8).double()), "nothing to make up for"


def test_more_units_never_make_the_residual_larger() -> None:
    x = _values() + 0.5 * _values(units=1, seed=50)
    gram = x.T @ x
    errors = [_error(x, least_squares_scale(gram, _chosen(x, k, "tpami"))) for k in range(1, 9)]
    assert all(later <= earlier + 1e-6 for earlier, later in pairwise(errors))
    best = min(_error(x, least_squares_scale(gram, _mask(s))) for s in combinations(range(8), 4))
    assert best <= errors[3] < errors[0]


def _mask(units: Any) -> Tensor:
    return torch.isin(torch.arange(8), torch.tensor(units))


def _callback(model: nn.Module, data: Any, inputs: Tensor, **options: Any) -> MethodCallback:
    return ThiNet(**options).callback(Problem(model, inputs, Budget(macs=0.5), data=data, round_to=1))


def _context(model: nn.Module, step: int, total: int) -> StepContext:
    return StepContext(model, torch.optim.SGD(model.parameters(), lr=0.1), step, 0, total)


def test_readers_compute_what_scaling_promises_on_data_not_seen() -> None:
    """Where contributions come in pairs of multiples, the network's outputs do not change at all."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3, stride=2), nn.Flatten(), nn.Linear(12, 2)
    )
    with torch.no_grad():
        for t in (model[0].weight, model[0].bias):
            t[1], t[3] = t[0], 2 * t[2]
        read = model[2].weight  # contributions, not channels alone, must be alike
        read[:, 1], read[:, 3] = -2 * read[:, 0], 3 * read[:, 2]
    x, unseen = torch.randn(16, 2, 8, 8), torch.randn(4, 2, 8, 8)
    before = model(unseen)
    problem = Problem(
        model, x[:1], Budget(macs=0.55), Scope(include=("0",)), [(x, torch.zeros(16).long())], round_to=1
    )
    callback = ThiNet().callback(problem)
    callback.before_step(_context(model, 0, 10))
    plan = callback.finish(_context(model, 9, 10))
    assert plan.counts["0"] == 2
    assert plan.keep["0"][:2].sum() == plan.keep["0"][2:].sum() == 1
    torch.testing.assert_close(billhook.apply(model, plan)(unseen), before, rtol=1e-3, atol=1e-4)


def test_groups_have_their_turn_one_after_the_other_and_stay_silent() -> None:
    model, inputs = build("plain")
    callback = _callback(model, batches("plain"), inputs, until=0.6)
    turns = []
    for step in range(10):
        callback.before_step(_context(model, step, 10))
        turns.append(list(callback.memory["stays"]))
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.01)
        callback.after_step(_context(model, step, 10))
        for name, reader in (("conv1", model.conv2), ("conv2", model.conv3), ("conv3", model.head)):
            if name in callback.memory["stays"]:
                read = reader.weight.transpose(0, 1).flatten(1).abs().sum(1) > 0
                assert torch.equal(read, callback.memory["stays"][name])
    names = ["conv1", "conv2", "conv3"]
    assert turns == [names[:1]] * 2 + [names[:2]] * 2 + [names] * 6
    plan = callback.finish(_context(model, 9, 10))
    assert {n: int(s.sum()) for n, s in callback.memory["stays"].items()} == plan.counts


def test_a_short_training_still_prunes_every_group() -> None:
    model, inputs = build("residual")
    callback = _callback(model, batches("residual"), inputs)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    driver = CallbackDriver([callback], model, optimizer, total_steps=100)  # somebody stops early
    with driver.attached():
        for x, y in batches("residual"):
            driver.before_step(x, y)
            driver.add_terms(nn.functional.cross_entropy(model(x), y)).backward()
            optimizer.step()
    (plan,) = driver.finish()
    assert set(plan.removed) == {"stem", "inner1", "inner2", "outer2"}
    assert billhook.verify(model, plan, inputs).exact


@pytest.mark.parametrize("variant", ["iccv", "tpami"])
def test_the_outcome_meets_the_budget_and_its_weights_are_ready_for_removal(variant: str) -> None:
    model, inputs = build("residual")
    before = {name: t.clone() for name, t in model.state_dict().items()}
    outcome = shrink(
        model,
        inputs,
        method="thinet",
        options={"variant": variant},
        budget=Budget(macs=0.5),
        data=batches("residual", 4),
        training=FitConfig(epochs=2, lr=0.01),
        round_to=1,
    )
    assert billhook.cost(model, inputs, outcome.plan).macs <= 0.5 * billhook.cost(model, inputs).macs
    torch.testing.assert_close(outcome.small()(inputs), outcome.model.eval()(inputs), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_an_interrupted_run_decides_the_same(tmp_path: Path, stop: int) -> None:
    def run(directory: Path | None, stop: int | None, resume: bool) -> tuple[nn.Module, Any]:
        model, inputs = build("plain")
        data = batches("plain", 4)
        config = FitConfig(**{**vars(EXACT), "epochs": 2, "lr": 0.01, "checkpoint_steps": 1})
        callbacks = [_callback(model, data, inputs), StopAt(stop)]
        try:
            fitted = fit(
                model, data, config=config, callbacks=callbacks, checkpoint_dir=directory, resume=resume
            )
        except KeyboardInterrupt:
            return model, None
        return model, fitted.plan

    whole, expected = run(None, None, False)
    assert run(tmp_path, stop, False)[1] is None
    resumed, plan = run(tmp_path, None, True)
    assert_same_weights(whole, resumed)
    assert plan.to_json() == expected.to_json()


def test_it_needs_data_also_in_a_loop_of_ones_own() -> None:
    model, inputs = build("plain")
    with pytest.raises(InputError, match="method 'thinet' learns from data; give data="):
        _callback(model, None, inputs)


def test_a_group_that_nothing_reads_is_named_before_training() -> None:
    model, inputs = build("plain")
    with torch.no_grad():
        model.conv3.weight = nn.Parameter(model.conv3.weight.clone())
    problem = Problem(model, inputs, Budget(macs=0.5), Scope(include=("conv1",)), batches("plain"))
    model.conv2.__class__ = _Own
    with pytest.raises(InputError, match=r"'conv1': _Own \(conv2.weight\) has a forward of its own. Exclude"):
        ThiNet().callback(problem)


class _Own(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(2 * input)


def test_widths_come_from_the_allocator_and_units_from_the_data() -> None:
    model, inputs = build("plain")
    counts = []
    for allocator in ("uniform", "global"):
        outcome = shrink(
            model,
            inputs,
            method="thinet",
            allocator=allocator,
            budget=Budget(macs=0.5),
            data=batches("plain", 2),
            training=FitConfig(steps=2, lr=0.01),
            round_to=1,
        )
        counts.append(outcome.plan.counts)
    share = np.array([counts[0]["conv1"] / 16, counts[0]["conv2"] / 24, counts[0]["conv3"] / 32])
    assert share.max() - share.min() < 0.1
    assert counts[0] != counts[1]
