from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from billhook.criteria import Calibration, score
from billhook.criteria.obd import Obd
from billhook.errors import InputError
from tests.hand_made import group, member

INPUTS = group("0", 3, member("0.weight", 1, "in", 3))


def _loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().mean() / 2


def _at_the_minimum() -> tuple[nn.Module, Tensor, Tensor]:
    """Return a linear model, inputs along the axes, and targets off by ±1: H is diagonal and equals E[g²]."""
    model = nn.Sequential(nn.Linear(3, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[2.0, -1.0, 0.5]]))
    inputs = torch.diag(torch.tensor([1.0, 2.0, 3.0])).repeat_interleave(2, 0)
    targets = model(inputs).detach() + torch.tensor([1.0, -1.0] * 3)[:, None]
    return model, inputs, targets


def test_it_is_the_change_of_a_quadratic_loss_with_diagonal_hessian() -> None:
    model, inputs, targets = _at_the_minimum()
    found = score(Obd(), model, [INPUTS], calibration=Calibration([(inputs, targets)], _loss))["0"]
    before = _loss(model(inputs), targets).detach()
    for unit in range(3):
        weight = model[0].weight.detach().clone()
        weight[:, unit] = 0
        torch.testing.assert_close(found[unit], _loss(inputs @ weight.T, targets) - before)


def test_batches_do_not_change_what_single_samples_say() -> None:
    model, inputs, targets = _at_the_minimum()
    parts = [(inputs[:1], targets[:1]), (inputs[1:], targets[1:])]
    whole = score(Obd(), model, [INPUTS], calibration=Calibration([(inputs, targets)], _loss))["0"]
    torch.testing.assert_close(
        score(Obd(), model, [INPUTS], calibration=Calibration(parts, _loss))["0"], whole
    )


def test_gradients_of_batches_of_one_are_those_of_samples() -> None:
    model, inputs, targets = _at_the_minimum()
    singles = Calibration([(inputs[i : i + 1], targets[i : i + 1]) for i in range(6)], _loss)
    by_batch = score(Obd(gradients="batch"), model, [INPUTS], calibration=singles)["0"]
    torch.testing.assert_close(by_batch, score(Obd(), model, [INPUTS], calibration=singles)["0"])


def test_at_a_minimum_the_gradient_of_all_samples_says_nothing() -> None:
    model, inputs, targets = _at_the_minimum()
    data = Calibration([(inputs, targets)], _loss)
    assert score(Obd(gradients="batch"), model, [INPUTS], calibration=data)["0"].max() < 1e-10


def test_it_needs_data() -> None:
    with pytest.raises(InputError, match="'obd' learns from data"):
        score(Obd(), _at_the_minimum()[0], [INPUTS])
