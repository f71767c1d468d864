from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from billhook import sparsify
from billhook.errors import PenaltyError
from billhook.graph.patterns import parse_pattern
from billhook.graph.structure import Structure
from billhook.methods.sparse.admm import Admm, AdmmCallback, penalty_gradient, rho_at
from billhook.sparse.holding import holds
from billhook.train import CallbackDriver, FitConfig, StepContext, fit
from billhook.train.checkpoint import load_checkpoint
from tests.networks import batches, build
from tests.unit.methods.sparse.problems import SINGLE, problem

UNKNOWNS = 8


def _regression(seed: int) -> tuple[Tensor, Tensor]:
    """Return 40 samples of 8 unknowns, of which three matter; noise of 0.05."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(40, UNKNOWNS, generator=generator, dtype=torch.float64)
    true = torch.zeros(UNKNOWNS, dtype=torch.float64)
    true[[1, 4, 6]] = torch.tensor([2.0, -1.2, 0.5], dtype=torch.float64)
    return x, x @ true + 0.05 * torch.randn(40, generator=generator, dtype=torch.float64)


def _best_subset(x: Tensor, y: Tensor, count: int) -> set[int]:
    def error(subset: tuple[int, ...]) -> float:
        columns = x[:, list(subset)]
        return float((columns @ torch.linalg.lstsq(columns, y[:, None]).solution[:, 0] - y).square().sum())

    return set(min(itertools.combinations(range(UNKNOWNS), count), key=error))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("count", "rho"), [(2, 20.0), (3, 5.0)])
def test_the_best_subset_is_found(count: int, rho: float, seed: int) -> None:
    x, y = _regression(seed)
    pattern = parse_pattern(SINGLE)
    hessian, linear = x.T @ x, x.T @ y

    def projected(values: Tensor) -> Tensor:
        parts = pattern.choose(values.reshape(1, -1, 1), 1 - count / UNKNOWNS)
        return Structure(pattern, (1, UNKNOWNS), parts).project(values[None])[0]

    w = torch.linalg.solve(hessian, linear)
    z, u = projected(w), torch.zeros_like(w)
    for _ in range(100):
        # W: where ∇f + ρ (W - Z + U) = 0.
        w = torch.linalg.solve(hessian + rho * torch.eye(UNKNOWNS).double(), linear + rho * (z - u))
        slope = hessian @ w - linear + penalty_gradient(w, z, u, rho)
        torch.testing.assert_close(slope, torch.zeros_like(w), atol=1e-9, rtol=0)
        z = projected(w + u)
        u = u + w - z
    assert set(z.nonzero()[:, 0].tolist()) == _best_subset(x, y, count)
    if count == 3:
        assert float((w - z).norm()) < 1e-5


@pytest.mark.parametrize("seed", range(3))
def test_groups_of_four_outputs_converge_to_their_projection(seed: int) -> None:
    """JCW's regularity: four neighbouring outputs share a mask bit; half of the groups stay."""
    x, _ = _regression(seed)
    generator = torch.Generator().manual_seed(seed)
    true = torch.randn(8, UNKNOWNS, generator=generator, dtype=torch.float64)
    true[:4, ::2] = true[4:, 1::2] = 0
    y = x @ true.T + 0.05 * torch.randn(40, 8, generator=generator, dtype=torch.float64)
    pattern, rho = parse_pattern("4x1"), 5.0
    hessian, linear = x.T @ x, (x.T @ y).T

    def structure(values: Tensor) -> Structure:
        return Structure(pattern, (8, UNKNOWNS), pattern.choose(values[:, :, None], 0.5))

    w = torch.linalg.solve(hessian, linear.T).T
    z, u = structure(w).project(w), torch.zeros_like(w)
    for _ in range(100):
        w = torch.linalg.solve(hessian + rho * torch.eye(UNKNOWNS).double(), (linear + rho * (z - u)).T).T
        z = structure(w + u).project(w + u)
        u = u + w - z
    assert float((w - z).norm() / w.norm()) < 1e-3
    assert torch.equal(z != 0, structure(w).mask)
    assert torch.equal(z != 0, true != 0)


def test_the_gradient_is_that_of_a_term_of_the_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    w, z, u = (torch.randn(4, 5, generator=generator, dtype=torch.float64) for _ in range(3))
    w.requires_grad_()
    (by_loss,) = torch.autograd.grad(0.7 / 2 * (w - z + u).square().sum(), w)
    torch.testing.assert_close(penalty_gradient(w.detach(), z, u, 0.7), by_loss, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["plain", "transposed"])
def test_a_step_of_the_callback_is_a_step_with_the_term_in_the_loss(name: str) -> None:
    inputs, targets = batches(name)[0]
    method, rho = Admm(rho_start=0.4), 0.4

    def net() -> tuple[nn.Module, Any, torch.optim.Optimizer]:
        model, example = build(name)
        posed = problem(model, 0.6, inputs=example)
        return model, posed, torch.optim.SGD(model.parameters(), lr=0.1)

    ours, posed, optimizer = net()
    driver = CallbackDriver([AdmmCallback(method, posed)], ours, optimizer, total_steps=10)
    with driver.attached():
        driver.before_step(inputs, targets)
        nn.functional.cross_entropy(ours(inputs), targets).backward()
        optimizer.step()

    theirs, posed, optimizer = net()
    weights = posed.weights(theirs)
    z = {n: s.project(weights[n].detach()) for n, s in posed.by_magnitude(weights).items()}
    term = sum((w - z[n]).square().sum() for n, w in weights.items())  # U = 0
    (nn.functional.cross_entropy(theirs(inputs), targets) + rho / 2 * term).backward()
    optimizer.step()
    for (n, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-7, rtol=0, msg=n)


def test_at_a_solution_nothing_moves() -> None:
    """W has the structure and the loss is flat: W, Z and U stay as they are through whole rounds."""
    model, inputs = build("plain")
    posed = problem(model, 0.6, inputs=inputs)
    weights = posed.weights(model)
    with torch.no_grad():
        for name, structure in posed.by_magnitude(weights).items():
            weights[name].copy_(structure.project(weights[name]))
    before = {n: w.detach().clone() for n, w in weights.items()}
    callback = AdmmCallback(Admm(rounds=4, tolerance=0, until=1.0, rho_start=0.3, rho_end=3.0), posed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    driver = CallbackDriver([callback], model, optimizer, total_steps=100)
    with driver.attached():
        for _ in range(12):
            optimizer.zero_grad()
            driver.before_step(None, None)
            for parameter in model.parameters():
                parameter.grad = torch.zeros_like(parameter)
            optimizer.step()
        for number in (2, 3, 4):
            callback._renew(StepContext(model, optimizer, 10 * number, 0, 100), number)
    assert callback.memory["log"][-1]["primal"] == 0
    for name, weight in posed.weights(model).items():
        assert torch.equal(weight, before[name])
        assert torch.equal(callback.memory["Z"][name], before[name])
        assert bool((callback.memory["U"][name] == 0).all())


def test_rho_grows_geometrically_from_start_to_end() -> None:
    found = [rho_at(r, 5, 1e-3, 10.0) for r in range(1, 6)]
    assert found == pytest.approx([1e-3, 1e-2, 1e-1, 1.0, 10.0])
    assert rho_at(1, 1, 1e-3, 10.0) == 10.0


class _Recorder(AdmmCallback):
    """Keeps Z, U and ρ around every renewal, and how far the weights are from their projection."""

    def _renew(self, context: StepContext, number: int) -> None:
        before = {k: _copied(self.memory[k]) for k in ("Z", "U", "rho")}
        weights = {n: w.clone() for n, w in self._weights(context).items()}
        super()._renew(context, number)
        after = {k: _copied(self.memory[k]) for k in ("Z", "U", "rho")}
        self.seen = [*getattr(self, "seen", []), (weights, before, after)]


def _copied(value: Any) -> Any:
    return {n: t.clone() for n, t in value.items()} if isinstance(value, dict) else value


def _trained(method: Admm, **changes: Any) -> tuple[_Recorder, nn.Module, Any]:
    model, inputs = build("plain")
    posed = problem(model, 0.6, inputs=inputs)
    callback = _Recorder(method, posed)
    training = FitConfig(
        **({"steps": 80, "lr": 0.02, "precision": "32-true", "schedule": "constant"} | changes)
    )
    result = fit(model, batches("plain"), config=training, callbacks=[callback], progress=False)
    return callback, model, result


def test_every_round_renews_z_and_u_as_the_algorithm_says() -> None:
    callback, _, _ = _trained(Admm(rounds=4, until=0.5, tolerance=0, rho_start=3e-3, rho_end=0.3))
    assert len(callback.seen) == 3  # at the beginning of rounds 2, 3 and 4
    shares = callback.memory["shares"]
    for weights, before, after in callback.seen:
        target = {n: w + before["U"][n] for n, w in weights.items()}
        structures = callback.problem.by_magnitude(target, shares)
        for name in weights:
            z = structures[name].project(target[name])
            assert torch.equal(after["Z"][name], z)
            # U is the multiplier divided by ρ: it shrinks as ρ grows.
            u = (target[name] - z) * (before["rho"] / after["rho"])
            torch.testing.assert_close(after["U"][name], u, atol=1e-7, rtol=1e-5)
    assert [a["rho"] for _, _, a in callback.seen] == pytest.approx(
        [rho_at(r, 4, 3e-3, 0.3) for r in (2, 3, 4)]
    )


STRONG = Admm(until=0.9, tolerance=0, rho_start=0.1, rho_end=10.0)


def test_weights_come_close_to_their_projection() -> None:
    _, _, result = _trained(STRONG, steps=200)
    log = result.plan.made_by["log"]
    assert log[-1]["primal"] < 0.02
    assert log[0]["primal"] > 0.3
    assert log[-1]["dual"] < log[0]["dual"]
    assert [entry["step"] for entry in log] == [r * 180 // 12 for r in range(1, 12)]


def test_it_ends_early_when_weights_are_within_the_tolerance() -> None:
    callback, model, result = _trained(replace(STRONG, tolerance=0.1), steps=200)
    log = result.plan.made_by["log"]
    assert log[-1]["primal"] <= 0.1 < log[-2]["primal"]
    assert len(callback.seen) == len(log) < 11
    assert holds(model, result.plan.patterns) is None


def test_a_penalty_that_is_too_strong_is_named_and_the_last_checkpoint_is_kept(tmp_path: Path) -> None:
    model, inputs = build("plain")
    training = FitConfig(steps=40, lr=0.05, schedule="constant", precision="32-true", checkpoint_steps=1)
    with pytest.raises(PenaltyError, match=r"'\w+.weight' runs away .* option 'rho_end'") as caught:
        sparsify(
            model,
            inputs,
            sparsity=0.6,
            pattern=SINGLE,
            method="admm",
            options={"rho_start": 100.0, "rho_end": 100.0, "rounds": 10},
            data=batches("plain"),
            training=training,
            checkpoint_dir=tmp_path,
        )
    assert caught.value.tensor in dict(model.named_parameters())
    state = load_checkpoint(tmp_path)
    assert state is not None
    assert 0 < state["step"] <= caught.value.step
    assert all(torch.isfinite(t).all() for t in state["stepper"]["model"].values())


def test_zeros_are_shared_out_once() -> None:
    _, _, result = _trained(Admm(rounds=6))
    start, inputs = build("plain")
    posed = problem(start, 0.6, inputs=inputs)
    shares = posed.share_out(posed.views({n: w.square() for n, w in posed.weights(start).items()}))
    for name, structure in result.plan.patterns.items():
        assert structure.sparsity == pytest.approx(shares[name], abs=1 / structure.mask.numel())
