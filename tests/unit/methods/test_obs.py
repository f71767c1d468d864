"""Optimal brain surgeon: exact on quadratic losses, so everything can be compared with least squares."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import billhook
from billhook import Budget, Scope, shrink
from billhook.errors import InputError
from billhook.methods import Problem
from billhook.methods.obs import (
    Obs,
    damped,
    inverted,
    refitted,
    remove_,
    saliencies,
    surgery,
)
from tests.networks import NETWORKS, batches, build

WIDTH, UNITS, OUTPUTS = 2, 5, 3
COLUMNS = torch.arange(UNITS * WIDTH).view(UNITS, WIDTH)


def _layer(seed: int = 0, blocks: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Return W, inputs x with correlations, and H = E[x xᵀ]."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(blocks, OUTPUTS, UNITS * WIDTH, generator=generator, dtype=torch.float64)
    mix = torch.randn(blocks, UNITS * WIDTH, UNITS * WIDTH, generator=generator, dtype=torch.float64)
    x = torch.randn(blocks, 400, UNITS * WIDTH, generator=generator, dtype=torch.float64) @ mix
    return matrix, x, x.mT @ x / 400


def _loss(matrix: Tensor, new: Tensor, x: Tensor) -> float:
    """Return ½ E‖Wx − W'x‖²."""
    return float(0.5 * (x @ (matrix - new).mT).square().sum() / 400)


def _best(matrix: Tensor, x: Tensor, columns: Tensor) -> Tensor:
    """Return the least-squares W' that reads only `columns`."""
    result = torch.zeros_like(matrix)
    for w, rows, out in zip(matrix, x, result, strict=True):
        out[:, columns] = torch.linalg.lstsq(rows[:, columns], rows @ w.T).solution.T
    return result


@pytest.mark.parametrize("blocks", [1, 2])
def test_saliency_is_the_loss_of_removal_with_compensation(blocks: int) -> None:
    matrix, x, hessian = _layer(blocks=blocks)
    found = saliencies(matrix, inverted(hessian), COLUMNS)
    for unit in range(UNITS):
        new, inverse = matrix.clone(), inverted(hessian)
        remove_(new, inverse, COLUMNS[unit])
        assert (new[:, :, COLUMNS[unit]] == 0).all()
        others = COLUMNS[torch.arange(UNITS) != unit].flatten()
        torch.testing.assert_close(new, _best(matrix, x, others))
        assert float(found[unit]) == pytest.approx(_loss(matrix, new, x))
        kept = inverse[:, others][:, :, others]
        torch.testing.assert_close(kept, inverted(hessian[:, others][:, :, others]))


def test_single_weights_have_the_saliency_of_the_first_paper() -> None:
    matrix, _, hessian = _layer()
    inverse = inverted(hessian)
    expected = (matrix[0].square() / (2 * inverse[0].diagonal())).sum(0)
    torch.testing.assert_close(saliencies(matrix, inverse, torch.arange(10)[:, None]), expected)
    row = matrix[:, :1].clone()  # δw = −(w_q / [H⁻¹]_qq) H⁻¹ e_q
    step = -row[0, 0, 4] / inverse[0, 4, 4] * inverse[0, :, 4]
    new = row.clone()
    remove_(new, inverse.clone(), torch.tensor([4]))
    torch.testing.assert_close(new[0, 0], row[0, 0] + step)


def test_surgery_ends_in_least_squares_on_what_stays() -> None:
    matrix, x, hessian = _layer()
    new = matrix.clone()
    stays = surgery([(new, inverted(hessian), COLUMNS)], 3)
    assert stays.sum() == 2
    best = _best(matrix, x, COLUMNS[stays].flatten())
    torch.testing.assert_close(new, best)
    gone = torch.zeros(10, dtype=torch.bool)
    gone[COLUMNS[~stays].flatten()] = True
    again = refitted(matrix, matrix @ hessian, hessian, gone, 1e-12)
    torch.testing.assert_close(again, best)


@pytest.mark.parametrize("seed", range(4))
def test_each_time_the_unit_leaves_without_which_least_squares_does_best(seed: int) -> None:
    matrix, x, hessian = _layer(seed)
    gone: tuple[int, ...] = ()
    for number in (1, 2, 3):
        stays = surgery([(matrix.clone(), inverted(hessian), COLUMNS)], number)
        left = [u for u in range(UNITS) if u not in gone]
        losses = {
            u: _loss(matrix, _best(matrix, x, COLUMNS[_without((*gone, u))].flatten()), x) for u in left
        }
        gone = (*gone, min(left, key=lambda u: losses[u]))
        assert set((~stays).nonzero().flatten().tolist()) == set(gone)


def _without(units: tuple[int, ...]) -> Tensor:
    return ~torch.isin(torch.arange(UNITS), torch.tensor(units))


def test_several_readers_decide_together() -> None:
    (first, _, h1), (second, _, h2) = _layer(1), _layer(2)
    together = surgery([(first.clone(), inverted(h1), COLUMNS), (second.clone(), inverted(h2), COLUMNS)], 1)
    total = saliencies(first, inverted(h1), COLUMNS) + saliencies(second, inverted(h2), COLUMNS)
    assert int((~together).nonzero()) == int(total.argmin())


def test_refitting_makes_up_for_changed_inputs_and_is_pulled_to_the_given_weights() -> None:
    matrix, x, _ = _layer()
    changed = x + 0.3 * torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    nothing = torch.zeros(10, dtype=torch.bool)
    second, cross = changed.mT @ changed / 400, matrix @ x.mT @ changed / 400
    new = refitted(matrix, cross, second, nothing, 1e-10)
    expected = torch.linalg.lstsq(changed[0], x[0] @ matrix[0].T).solution.T
    torch.testing.assert_close(new[0], expected)
    torch.testing.assert_close(refitted(matrix, cross, second, nothing, 1e8), matrix, rtol=0, atol=1e-5)


def test_dead_inputs_do_not_make_the_hessian_singular() -> None:
    matrix, _, hessian = _layer()
    hessian[:, 3] = hessian[:, :, 3] = 0
    for h in (hessian, torch.zeros_like(hessian)):
        assert torch.isfinite(saliencies(matrix, inverted(damped(h, 0.01)), COLUMNS)).all()


def _run(name: str, **settings: Any) -> tuple[nn.Module, Tensor, billhook.Outcome]:
    model, inputs = build(name)
    given = {"budget": Budget(macs=0.6), "data": batches(name, 4), "round_to": 1} | settings
    return model, inputs, shrink(model, inputs, method="obs", **given)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_comes_out_ready_for_removal(name: str) -> None:
    model, inputs, outcome = _run(name)
    assert billhook.cost(model, inputs, outcome.plan).macs <= 0.6 * billhook.cost(model, inputs).macs
    torch.testing.assert_close(outcome.small()(inputs), outcome.model(inputs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sequential", [True, False])
def test_copies_leave_without_any_loss(sequential: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3),
        nn.ReLU(),
        nn.Conv2d(6, 4, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(144, 3),
    )
    with torch.no_grad():
        for t in (model[0].weight, model[0].bias):
            t[3:] = t[:3] * torch.tensor([1.0, 2.0, 0.5]).view(-1, *[1] * (t.dim() - 1))
    x, unseen = torch.randn(32, 2, 8, 8), torch.randn(4, 2, 8, 8)
    outcome = shrink(
        model,
        x[:1],
        method="obs",
        options={"damping": 1e-6, "sequential": sequential},
        budget=Budget(macs=0.55),
        scope=Scope(include=("0",)),
        data=[(x, torch.zeros(32).long())],
        round_to=1,
    )
    keep = outcome.plan.keep["0"]
    assert keep.sum() == 3
    assert (keep[:3] ^ keep[3:]).all(), "one of each pair stays"
    torch.testing.assert_close(outcome.small()(unseen), model(unseen), rtol=1e-3, atol=1e-3)


def _distance(one: nn.Module, other: nn.Module, data: list[Any]) -> float:
    with torch.no_grad():
        return sum(float((one(x) - other(x)).square().sum()) for x, _ in data)


def test_compensation_brings_outputs_nearer_and_going_in_sequence_nearer_still() -> None:
    data = batches("residual", 8)
    model, _, once = _run("residual", data=data, options={"sequential": False, "recalibrate": False})
    _, _, twice = _run("residual", data=data, options={"sequential": True, "recalibrate": False})
    assert once.plan.counts == twice.plan.counts
    plain = billhook.apply(model, once.plan)
    assert _distance(once.small(), model, data) < 0.5 * _distance(plain, model, data)
    assert _distance(twice.small(), model, data) < _distance(once.small(), model, data)


def test_only_readers_of_what_leaves_and_batch_norm_statistics_change() -> None:
    model, _, outcome = _run(
        "residual", scope=Scope(include=("inner1",)), budget=Budget(macs=0.9), options={"sequential": False}
    )
    after = outcome.model.state_dict()
    changed = {name for name, t in model.state_dict().items() if not torch.equal(t, after[name])}
    assert {n for n in changed if "running" not in n and "tracked" not in n} == {"outer1.weight"}
    assert any("running_mean" in n for n in changed)
    gone = ~torch.from_numpy(outcome.plan.keep["inner1"])
    assert (after["outer1.weight"][:, gone] == 0).all()


def test_it_needs_data() -> None:
    model, inputs = build("plain")
    with pytest.raises(InputError, match="method 'obs' learns from data; give data="):
        Obs().run(Problem(model, inputs, Budget(macs=0.5)))
