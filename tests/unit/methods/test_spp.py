from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from billhook.allocate.budget import Budget
from billhook.graph import verify
from billhook.methods import Problem
from billhook.methods.spp import Spp, SppCallback, drawn, increments, renewed, rounded, rounds_needed
from billhook.train import CallbackDriver, FitConfig
from tests.networks import batches, build

A, U = 0.05, 0.25


def test_published_values() -> None:
    """A = 0.05, u = 0.25, n = 50."""
    found = increments(torch.tensor([0, 10, 33, 50, 66]), 50)
    expected = torch.tensor([0.05, 0.03299, 0.01267, 0.0, -0.0236], dtype=torch.float64)
    torch.testing.assert_close(found, expected, atol=5e-5, rtol=0)
    everywhere = increments(torch.arange(100), 50)
    assert (everywhere.diff() < 0).all()


def test_by_hand() -> None:
    """n = 1, u = ½: α = ln 4, N = ½; Δ(0) = A, Δ(1) = A − A e⁰ = 0, Δ(2) = A − A e^(ln 4) = −3A."""
    found = increments(torch.arange(3), 1, amount=0.1, flatness=0.5)
    assert found.tolist() == pytest.approx([0.1, 0.0, -0.3])


@pytest.mark.parametrize(("size", "leaving"), [(100, 50), (8, 1), (8, 7), (16, 5), (24, 12)])
@pytest.mark.parametrize("amount", [A, 0.7, 1.0])
def test_with_frozen_weights_exactly_the_weakest_leave(size: int, leaving: int, amount: float) -> None:
    scores = torch.randperm(size, generator=torch.Generator().manual_seed(0)).float()
    chances = torch.zeros(size, dtype=torch.float64)
    for _ in range(rounds_needed(size, leaving, amount, U)):
        chances = renewed(chances, scores, leaving, amount, U)
    chances = renewed(chances, scores, leaving, amount, U)
    assert sorted(chances.tolist()) == [0.0] * (size - leaving) + [1.0] * leaving
    assert scores[chances == 1].max() < leaving


def test_the_weakest_needs_twenty_updates() -> None:
    assert rounds_needed(8, 1, A, U) == 20


def test_a_unit_that_was_weak_for_a_while_recovers() -> None:
    scores = torch.arange(8).float()
    chances = torch.zeros(8, dtype=torch.float64)
    for _ in range(10):
        chances = renewed(chances, scores, 4, A, U)
    assert chances[0] == pytest.approx(0.5)
    scores[[0, 7]] = scores[[7, 0]]
    for _ in range(20):
        chances = renewed(chances, scores, 4, A, U)
    assert chances[0] == 0
    assert chances[7] > 0.9


def test_masks_come_as_often_as_they_should() -> None:
    chances = torch.tensor([0.0, 0.1, 0.5, 0.95, 1.0], dtype=torch.float64)
    masks = torch.stack([drawn(chances, 0, step, "g") for step in range(10_000)])
    expected = 1 - chances
    bound = 4 * (expected * chances / 10_000).sqrt()
    assert ((masks.double().mean(0) - expected).abs() <= bound).all()


def test_masks_differ_by_step_and_group_and_repeat() -> None:
    half = torch.full((64,), 0.5, dtype=torch.float64)
    assert torch.equal(drawn(half, 0, 3, "a"), drawn(half, 0, 3, "a"))
    for other in (drawn(half, 1, 3, "a"), drawn(half, 0, 4, "a"), drawn(half, 0, 3, "b")):
        assert not torch.equal(drawn(half, 0, 3, "a"), other)


def test_rounding_takes_the_likeliest_and_among_equals_the_weakest() -> None:
    chances = torch.tensor([0.2, 1.0, 0.6, 0.6, 0.0], dtype=torch.float64)
    scores = torch.tensor([1.0, 9.0, 5.0, 4.0, 0.1])
    assert rounded(chances, scores, 2).tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_what_is_masked_does_not_move(decay: float) -> None:
    """Not even by momentum and weight decay."""
    model, x = build("residual")
    model.train()
    problem = Problem(model, x, Budget(macs=0.5), round_to=1)
    callback = Spp(interval=1).callback(problem)
    assert isinstance(callback, SppCallback)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=decay)
    driver = CallbackDriver([callback], model, optimizer, total_steps=40)
    seen = 0
    for step in range(12):
        if step:
            callback.memory["chances"] = {
                g.id: torch.full((g.size,), 0.5, dtype=torch.float64) for g in problem.groups
            }
        optimizer.zero_grad()
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        driver.before_step(x, None)
        masks = {g: m.clone() for g, m in callback._masked.items()}
        model(x).square().mean().backward()
        driver.after_backward()
        optimizer.step()
        driver.after_step()
        for group in problem.groups:
            for m in group.members:
                if m.tensor not in before:
                    continue
                parameter = model.get_parameter(m.tensor)
                for unit in (masks[group.id] == 0).nonzero().flatten().tolist():
                    rows = torch.from_numpy(m.index[unit].copy())
                    now, then = (t.detach().index_select(m.axis, rows) for t in (parameter, before[m.tensor]))
                    assert torch.equal(now, then)
                    seen += 1
        assert not torch.equal(model.get_parameter("head.bias"), before["head.bias"])
    assert seen > 100


def test_masked_units_are_not_read() -> None:
    model, x = build("plain")
    problem = Problem(model, x, Budget(macs=0.5), round_to=1)
    callback = Spp(interval=100).callback(problem)
    assert isinstance(callback, SppCallback)
    driver = CallbackDriver([callback], model, torch.optim.SGD(model.parameters(), lr=0.1), total_steps=40)
    driver.before_step(x, None)
    driver.after_backward()
    whole = model(x)
    for chances in callback.memory["chances"].values():
        chances.zero_()
    callback.memory["chances"]["conv1"][3] = 1.0
    driver.before_step(x, None)
    masked = model(x)
    driver.after_backward()
    with torch.no_grad():
        model.bn1.weight[3] = model.bn1.bias[3] = 0.0  # type: ignore[index, union-attr, operator]
    torch.testing.assert_close(model(x), masked)
    assert not torch.allclose(whole, masked)


@pytest.mark.parametrize("epochs", [1, 30])
def test_a_run_of_any_length_ends_with_the_widths_of_the_budget(epochs: int) -> None:
    model, x = build("residual")
    training = FitConfig(epochs=epochs, lr=0.05, schedule="cosine", precision="32-true")
    problem = Problem(model, x, Budget(macs=0.5), data=batches("residual", 4), training=training, round_to=1)
    outcome = Spp().run(problem)
    assert problem.graph.costs.cost(outcome.plan).macs <= 0.5 * problem.graph.costs.cost(None).macs
    assert verify(outcome.model, outcome.plan, x).exact
    with torch.no_grad():  # what leaves is not read any more
        torch.testing.assert_close(outcome.model.eval()(x), outcome.small().eval()(x))


def test_updates_are_stretched_over_the_run_or_made_larger() -> None:
    long = Spp().pace([(32, 16)], 100_000)
    assert long == (100_000 // -(-3 * rounds_needed(32, 16, A, U) // 2), A)
    interval, amount = Spp().pace([(32, 16)], 20)
    assert interval == 1
    assert A < amount <= 1
    assert Spp(interval=180, amount=A).pace([(32, 16)], 20) == (180, A)


def test_the_unit_nobody_needs_leaves() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    with torch.no_grad():
        model[0].weight[2] *= 0.01
        model[2].weight[:, 2] *= 0.01
    x = torch.randn(16, 4)
    data: list[tuple[Tensor, Tensor]] = [(x, torch.randint(3, (16,)))] * 4
    training = FitConfig(epochs=20, lr=1e-3, schedule="constant", precision="32-true")
    problem = Problem(model, x[:1], Budget(macs=0.9), data=data, training=training, round_to=1)
    assert Spp().run(problem).plan.keep["0"].tolist() == [True, True, False, True, True, True]
