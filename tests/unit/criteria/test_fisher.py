from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from billhook.criteria import Calibration, score
from billhook.criteria.fisher import Fisher
from tests.hand_made import group, member


class Toy(nn.Module):
    """Two layers read what the first makes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x: Tensor, gate: Tensor | float = 1.0) -> Tensor:
        x = self.a(x).relu() * gate
        return self.b(x).tanh() + self.c(x)


READERS = (member("b.weight", 1, "in", 4), member("c.weight", 1, "in", 4))


def _loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().sum((1, 2, 3)).mean()


@pytest.mark.parametrize("width", [1, 2])
def test_half_the_mean_square_of_each_samples_derivative_with_respect_to_one_gate(width: int) -> None:
    torch.manual_seed(0)
    model = Toy()
    inputs, targets = torch.randn(5, 1, 3, 3), torch.randn(5, 2, 3, 3)
    squares = torch.zeros(4 // width)
    for n in range(5):
        gate = torch.ones(4 // width, requires_grad=True)
        spread = gate.repeat_interleave(width).view(1, 4, 1, 1)
        loss = _loss(model(inputs[n : n + 1], spread), targets[n : n + 1])
        squares += torch.autograd.grad(loss, gate)[0].square()
    members = [
        member(name, axis, role, 4 // width, width)
        for name, axis, role in [("a.weight", 0, "out"), ("b.weight", 1, "in"), ("c.weight", 1, "in")]
    ]
    data = [(inputs[:3], targets[:3]), (inputs[3:], targets[3:])]
    units = group("a", 4 // width, *members)
    found = score(Fisher(), model, [units], calibration=Calibration(data, _loss))["a"]
    torch.testing.assert_close(found, squares / 5 / 2)


def test_it_is_the_change_of_a_quadratic_loss_at_its_minimum() -> None:
    # A linear unit per input, inputs ±√n e_j, errors of size 1: the curvature is the identity.
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2))
        model[1].weight.copy_(torch.tensor([[3.0, 0.5]]))
    inputs = 2**0.5 * torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    targets = model(inputs).detach() + torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().mean() / 2

    units = group("0", 2, member("0.weight", 0, "out", 2), member("1.weight", 1, "in", 2))
    found = score(Fisher(), model, [units], calibration=Calibration([(inputs, targets)], loss))["0"]
    before = loss(model(inputs), targets)
    for unit in range(2):
        without = model[1].weight.detach().clone()
        without[:, unit] = 0
        after = loss(inputs @ without.T, targets)
        torch.testing.assert_close(found[unit], (after - before).detach())
