from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from billhook.graph.patterns import parse_pattern
from billhook.graph.structure import Structure
from billhook.methods.sparse.reweighted import Reweighted, ReweightedCallback, penalties, shrunk
from billhook.train import CallbackDriver, FitConfig, StepContext, fit
from tests.networks import batches, build
from tests.unit.methods.sparse.problems import problem

GROUPS, SIZE, ACTIVE = 10, 3, 3
PATTERN = parse_pattern("block_punched:rows=1,columns=3")


def _regression(seed: int) -> tuple[Tensor, Tensor, Tensor, set[int]]:
    """Return inputs, targets, true weights and active groups: 80 samples, noise of 0.1."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(80, GROUPS * SIZE, generator=generator, dtype=torch.float64)
    true = torch.zeros(GROUPS, SIZE, dtype=torch.float64)
    active = torch.randperm(GROUPS, generator=generator)[:ACTIVE]
    true[active] = torch.randn(ACTIVE, SIZE, generator=generator, dtype=torch.float64).sign() * (
        0.5 + torch.rand(ACTIVE, SIZE, generator=generator, dtype=torch.float64)
    )
    y = x @ true.reshape(-1) + 0.1 * torch.randn(80, generator=generator, dtype=torch.float64)
    return x, y, true.reshape(-1), set(active.tolist())


def _solved(x: Tensor, y: Tensor, strength: float, rounds: int = 6) -> Tensor:
    """Return the weights after rounds of proximal gradient steps on the mean squared error."""
    weight = torch.linalg.lstsq(x, y[:, None]).solution[:, 0]
    step = 0.5 / float(torch.linalg.eigvalsh(x.T @ x / len(x)).max())
    for _ in range(rounds):
        penalty = penalties(PATTERN, weight.reshape(1, -1, 1), epsilon=1e-3).reshape(-1)
        for _ in range(300):
            weight = shrunk(weight - step * x.T @ (x @ weight - y) / len(x), penalty, step * strength)
    return weight


def test_on_a_regression_the_active_groups_are_found_and_hardly_shrink() -> None:
    exact, errors = 0, []
    for seed in range(6):
        x, y, true, active = _regression(seed)
        weight = _solved(x, y, strength=2e-3)
        norms = weight.reshape(GROUPS, SIZE).norm(dim=1)
        found = set((norms > 0.05).nonzero()[:, 0].tolist())
        exact += found == active
        # With what was found alone, the other groups gone.
        rest = weight.reshape(GROUPS, SIZE).clone()
        rest[[g for g in range(GROUPS) if g not in found]] = 0
        errors.append(float((rest.reshape(-1) - true).norm() / true.norm()))
    assert exact >= 5
    assert max(errors) <= 0.02


def test_without_renewal_the_same_penalty_for_all_shrinks_what_is_active() -> None:
    """What the reweighting is for: one P for all groups that empties the others costs a bias."""
    x, y, true, _ = _regression(0)
    weight, step = torch.zeros_like(true), 0.1
    for _ in range(2000):
        weight = shrunk(weight - step * x.T @ (x @ weight - y) / len(x), torch.ones(()), step * 0.2)
    plain = float((weight - true).norm() / true.norm())
    assert plain > 5 * float((_solved(x, y, strength=2e-3) - true).norm() / true.norm())


def test_a_penalty_is_the_inverse_of_the_mean_square_of_the_group() -> None:
    view = torch.tensor([[1.0, 2.0, 2.0, 0.0, 0.0, 0.0]]).reshape(1, 6, 1)
    found = penalties(PATTERN, view, epsilon=0.5).reshape(-1)
    torch.testing.assert_close(found[:3], torch.full((3,), 1 / (3.0 + 0.5)))
    torch.testing.assert_close(found[3:], torch.full((3,), 2.0))


def test_shrinking_is_the_minimum_of_its_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, generator=generator, dtype=torch.float64)
    penalty = torch.rand(5, generator=generator, dtype=torch.float64)

    def value(v: Tensor) -> float:
        return float(((v - weight).square() / 2 + 0.3 * penalty * v.square()).sum())

    best = shrunk(weight, penalty, 0.3)
    nudges = itertools.product(range(5), (-1e-3, 1e-3))
    assert all(value(best + d * torch.eye(5, dtype=torch.float64)[i]) > value(best) for i, d in nudges)
    assert torch.equal(shrunk(weight, penalty, 0.0), weight)
    assert bool((shrunk(weight, penalty, 1e12).abs() < 1e-10).all())  # stable for any strength


class _Projecting(ReweightedCallback):
    """Notes which part of the squared weights the projection keeps at the end."""

    kept = 0.0

    def settle(self, context: StepContext) -> Mapping[str, Structure]:
        weights = {n: w.detach() for n, w in self.problem.weights(context.model).items()}
        structures = super().settle(context)
        inside = sum(float(structures[n].project(w).square().sum()) for n, w in weights.items())
        self.kept = inside / sum(float(w.square().sum()) for w in weights.values())
        return structures


def _kept(strength: float | str, lr: float) -> float:
    model, inputs = build("residual")
    training = FitConfig(steps=60, lr=lr, schedule="constant", precision="32-true", weight_decay=0.0)
    posed = problem(model, 0.5, "block_punched:rows=4,columns=1", inputs=inputs)
    callback = _Projecting(Reweighted(until=0.999, strength=strength), posed)
    fit(model, batches("residual"), config=training, callbacks=[callback], progress=False)
    return callback.kept


@pytest.mark.parametrize("lr", [0.002, 0.05])
def test_the_groups_that_leave_are_small_when_they_do(lr: float) -> None:
    strength = 1 / (4 * lr * 60)  # in all, 1 of the mean square of a tensor
    assert 1 - _kept(strength, lr) < 0.6 * (1 - _kept(0, lr))


def _pulled(method: Reweighted, lr: float, total: int) -> dict[str, Tensor]:
    """Return by how much mean squares of groups fall in a step, relative to the tensor's."""
    model, inputs = build("plain")
    callback = ReweightedCallback(method, problem(model, 0.5, "4x1", inputs=inputs))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    driver = CallbackDriver([callback], model, optimizer, total_steps=total)
    groups = parse_pattern("4x1")

    def mean_squares() -> dict[str, Tensor]:
        views = callback.problem.views(dict(model.named_parameters()))
        return {n: groups.units(v.square()) / groups.units(torch.ones_like(v)) for n, v in views.items()}

    before = mean_squares()
    driver.before_step(None, None)  # no loss and no gradient: nothing else pulls
    driver.after_backward()
    driver.after_step()
    after = mean_squares()
    return {n: (before[n] - after[n]) / before[n].mean() for n in before}


def test_in_a_step_every_group_loses_the_same_whatever_its_size() -> None:
    lost = _pulled(Reweighted(strength=0.002, epsilon=1e-9), lr=0.1, total=10)
    for name in ("conv1.weight", "conv2.weight", "conv3.weight"):  # the head has smaller blocks at its border
        torch.testing.assert_close(lost[name].median(), torch.tensor(4 * 0.1 * 0.002), rtol=0.05, atol=0)
        assert float(lost[name].quantile(0.9)) < 1.1 * 4 * 0.1 * 0.002


def test_auto_pulls_as_much_in_all_whatever_the_learning_rate_and_the_number_of_steps_are() -> None:
    in_all = [
        total * float(_pulled(Reweighted(), lr, total)["conv2.weight"].median())
        for lr in (0.0, 0.01, 0.1)
        for total in (200, 800)
    ]
    assert in_all == pytest.approx([in_all[0]] * 6, rel=0.05)
    assert in_all[0] > 0
