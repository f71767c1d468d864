from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from billhook.errors import InputError
from billhook.train import JacobianSingularValues, isometric_lr, mean_jsv
from tests.unit.train.tiny import tiny_net


def _linear(matrix: Tensor) -> nn.Module:
    layer = nn.Linear(matrix.shape[1], matrix.shape[0])
    with torch.no_grad():
        layer.weight.copy_(matrix)
    return layer


def test_by_hand() -> None:
    """diag(1, 3) stretches by 1 and 3, whatever the sample."""
    found = mean_jsv(_linear(torch.diag(torch.tensor([1.0, 3.0]))), torch.randn(5, 2))
    assert found.mean == pytest.approx(2.0)
    assert found.std == pytest.approx(1.0)
    assert (found.minimum, found.maximum, found.condition) == pytest.approx((1.0, 3.0, 3.0))


def test_every_sample_has_its_own_jacobian() -> None:
    """relu(x) in one dimension: slope 1 for one sample and 0 for the other."""
    found = mean_jsv(nn.Sequential(nn.Identity(), nn.ReLU()), torch.tensor([[2.0], [-2.0]]))
    assert (found.mean, found.minimum, found.maximum) == (0.5, 0.0, 1.0)
    assert found.condition == math.inf
    assert found.to_dict()["condition"] is None


def test_square_orthogonal_layers_are_an_isometry() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(6, 6) for _ in range(4)))
    for layer in model:
        nn.init.orthogonal_(layer.weight)
    found = mean_jsv(model, torch.randn(3, 6))
    assert (found.minimum, found.maximum) == pytest.approx((1.0, 1.0), abs=1e-5)


def test_it_agrees_with_torch_and_leaves_everything_as_it_was() -> None:
    model = tiny_net(dropout=0.5).train()
    x = torch.randn(3, 2, 6, 6)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    with torch.no_grad():  # whatever the caller does
        found = mean_jsv(model, x)
    assert model.training
    assert not x.requires_grad
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    model.eval()
    theirs = [torch.autograd.functional.jacobian(lambda v: model(v[None])[0], row) for row in x]
    values = torch.stack([torch.linalg.svdvals(j.flatten(1)) for j in theirs])
    assert found.mean == pytest.approx(values.mean().item(), rel=1e-4)
    assert found.condition == pytest.approx((values[:, 0] / values[:, -1]).mean().item(), rel=1e-3)


def test_a_network_that_writes_to_its_inputs_and_takes_several() -> None:
    class Two(nn.Module):
        def forward(self, a: Tensor, index: Tensor, scale: Tensor) -> Tensor:
            a.mul_(2)
            return a + index + 3 * scale

    found = mean_jsv(
        Two(), {"a": torch.zeros(2, 1), "index": torch.zeros(2, 1).long(), "scale": torch.zeros(2, 1)}
    )
    assert found.mean == pytest.approx(math.sqrt(2**2 + 3**2))


def test_what_has_no_jacobian_is_refused() -> None:
    with pytest.raises(InputError, match="no input is a tensor of floating point numbers"):
        mean_jsv(nn.Embedding(4, 2), torch.tensor([1, 2]))
    with pytest.raises(InputError, match=r"\[batch, classes\] to take a Jacobian, not \[1, 3, 4, 4\]"):
        mean_jsv(nn.Conv2d(2, 3, 1), torch.randn(1, 2, 4, 4))


def _values(mean: float) -> JacobianSingularValues:
    return JacobianSingularValues(mean, 0.1, 0.1, 2.0, 20.0)


@pytest.mark.parametrize(
    ("after", "lr"),
    [(1.0, 0.02), (1.3, 0.02), (0.5, 0.063), (0.0, 0.2)],  # 0.02 · 10^d with d = 0, 0, ½, 1
)
def test_the_rate_follows_the_damage(after: float, lr: float) -> None:
    assert isometric_lr(_values(1.0), _values(after), low=0.02, high=0.2) == lr


def test_a_network_that_was_dead_before_cannot_be_damaged() -> None:
    assert isometric_lr(_values(0.0), _values(0.0), low=0.02, high=0.2) == 0.02
