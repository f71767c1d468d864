"""On y = Σ b·relu(a·x) with a squared loss, everything can be computed by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from billhook.criteria import Calibration, score
from billhook.criteria.taylor_activation import TaylorActivation
from tests.hand_made import group, member

HIDDEN = group("0", 3, member("0.weight", 0, "out", 3), member("2.weight", 1, "in", 3))


def _loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().flatten(1).sum(1).mean()


def test_absolute_changes_of_samples_are_averaged_and_normalised() -> None:
    model = nn.Sequential(nn.Linear(1, 3, bias=False), nn.ReLU(), nn.Linear(3, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [2.0], [-1.0]]))
        model[2].weight.copy_(torch.tensor([[1.0, 1.0, 5.0]]))
    # Outputs 3 and 6, errors 2 and −4: activations times gradients are ±(a · b · 2 · error), per sample.
    data = [(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [10.0]]))]
    changes = torch.tensor([(4.0 + 16.0) / 2, (8.0 + 32.0) / 2, 0.0])
    found = score(TaylorActivation(), model, [HIDDEN], calibration=Calibration(data, _loss))["0"]
    torch.testing.assert_close(found, changes / changes.norm())


def test_positions_are_averaged_before_the_absolute_value() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Conv2d(3, 2, 1), nn.Tanh())
    inputs, targets = torch.randn(4, 1, 3, 3), torch.randn(4, 2, 3, 3)
    hidden = model[:2](inputs).detach().requires_grad_()
    gradient = torch.autograd.grad(4 * _loss(model[2:](hidden), targets), hidden)[0]
    expected = (hidden * gradient).mean((2, 3)).abs().mean(0).detach()
    data = [(inputs, targets)]
    found = score(TaylorActivation(), model, [HIDDEN], calibration=Calibration(data, _loss))["0"]
    torch.testing.assert_close(found, expected / expected.norm())


def test_a_group_without_any_effect_scores_zero() -> None:
    model = nn.Sequential(nn.Linear(1, 3), nn.ReLU(), nn.Linear(3, 1))
    nn.init.zeros_(model[2].weight)
    data = [(torch.randn(4, 1), torch.randn(4, 1))]
    found = score(TaylorActivation(), model, [HIDDEN], calibration=Calibration(data, _loss))["0"]
    assert found.tolist() == [0.0, 0.0, 0.0]
