from __future__ import annotations

import pytest
import torch

from billhook.allocate.budget import Budget
from billhook.methods import Problem
from billhook.methods._base import Outcome
from billhook.methods._training import TrainingMethod
from billhook.methods.greg1 import Greg1
from billhook.methods.tpp import Tpp, decorrelation
from billhook.train import FitConfig
from tests.networks import batches, build

LEAVES = torch.tensor([True, False, False, True])


def test_by_hand() -> None:
    """The Gram matrix is [[1, 1, 0], [1, 2, 2], [0, 2, 4]]: three ones in row and column 0."""
    rows = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
    assert decorrelation(rows, torch.tensor([True, False, False])).item() == pytest.approx(3 / 9)


def test_nothing_is_left_to_do_when_the_filters_that_leave_are_zero() -> None:
    rows = torch.randn(4, 9) * ~LEAVES[:, None]
    assert decorrelation(rows, LEAVES).item() == 0


def test_filters_that_stay_are_pulled_away_from_those_that_leave_only() -> None:
    rows = torch.eye(4, 9)
    rows[1, 2] = 1.0  # filters 1 and 2 both stay and overlap
    rows[2, 0] = 1.0  # filter 2 overlaps with filter 0, which leaves
    rows.requires_grad_()
    (slope,) = torch.autograd.grad(decorrelation(rows, LEAVES), rows)
    assert slope[1].abs().max() == 0
    assert slope[2, 0] > 0
    assert slope[2, 1:].abs().max() == 0


def _run(method: TrainingMethod, network: str, epochs: int = 6) -> Outcome:
    model, x = build(network)
    training = FitConfig(epochs=epochs, lr=0.05, schedule="cosine", precision="32-true")
    problem = Problem(model, x, Budget(macs=0.5), data=batches(network, 4), training=training, round_to=1)
    return method.run(problem)


@pytest.mark.parametrize("network", ["plain", "residual", "depthwise_squeeze"])
def test_norms_go_to_zero_with_their_units(network: str) -> None:
    ours, plain = _run(Tpp(), network), _run(Greg1(), network)
    assert ours.plan.made_by["remaining"] < 0.2 * plain.plan.made_by["remaining"]
    norm, group = {"plain": ("bn1", "conv1"), "residual": ("bn1", "inner1")}.get(network, ("bn2", "expand"))
    leaves = torch.from_numpy(~ours.plan.keep[group])
    for vector in ("weight", "bias"):
        values = ours.model.get_parameter(f"{norm}.{vector}").detach().abs()
        assert values[leaves].max() < 0.02
        assert values[~leaves].mean() > 0.1


@pytest.mark.parametrize("lr", [1e-3, 0.2])
def test_the_decorrelation_is_bounded_at_any_learning_rate(lr: float) -> None:
    model, x = build("residual")
    training = FitConfig(epochs=2, lr=lr, precision="32-true")
    problem = Problem(model, x, Budget(macs=0.5), data=batches("residual", 4), training=training)
    outcome = Tpp().run(problem)  # no DivergedError
    assert all(torch.isfinite(p).all() for p in outcome.model.parameters())


def test_what_a_group_has_besides_its_weights() -> None:
    model, x = build("plain")
    problem = Problem(model, x, Budget(macs=0.5))
    penalised = {g: {m.tensor for m in ms} for g, ms in Tpp().callback(problem).penalised.items()}
    assert penalised["conv1"] == {"conv1.weight", "bn1.weight", "bn1.bias"}
    assert penalised["conv3"] == {"conv3.weight", "conv3.bias"}
