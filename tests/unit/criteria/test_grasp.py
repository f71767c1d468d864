from __future__ import annotations

import torch
from torch import Tensor, nn

from billhook.criteria import Calibration, score
from billhook.criteria.grasp import Grasp
from tests.hand_made import group, member

SIZE = 5
WEIGHTS = group("0", SIZE, member("0.weight", 1, "in", SIZE))


def _quadratic(scale: float = 1.0) -> tuple[nn.Module, Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
    """Return a model whose loss is ½ θᵀHθ − bᵀθ, with θ, H and the data, of which the loss takes all."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(SIZE, 1, bias=False)).double()
    with torch.no_grad():
        model[0].weight.copy_(scale * torch.randn(1, SIZE, generator=generator))
    inputs = torch.randn(12, SIZE, generator=generator, dtype=torch.float64)
    targets = torch.randn(12, 1, generator=generator, dtype=torch.float64)
    return model, model[0].weight.detach()[0], inputs, [(inputs, targets)]


def _loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().sum() / 2


def _scores(model: nn.Module, data: list[tuple[Tensor, Tensor]]) -> Tensor:
    found = score(Grasp(temperature=1), model, [WEIGHTS], calibration=Calibration(data, _loss))
    return found["0"].double()


def test_on_a_quadratic_loss_the_closed_form_comes_out() -> None:
    model, theta, inputs, data = _quadratic()
    hessian, linear = inputs.T @ inputs, inputs.T @ data[0][1][:, 0]
    spec = -theta * (hessian @ (hessian @ theta - linear))  # S: the largest leaves
    torch.testing.assert_close(
        _scores(model, data), -spec / spec.sum().abs(), rtol=1e-5, atol=1e-6, check_dtype=False
    )


def test_without_the_lowest_unit_the_gradient_is_largest() -> None:
    model, theta, inputs, data = _quadratic(scale=1e-4)
    hessian, linear = inputs.T @ inputs, inputs.T @ data[0][1][:, 0]

    def squared_norm(without: int | None = None) -> float:
        rest = theta.clone()
        if without is not None:
            rest[without] = 0
        return float((hessian @ rest - linear).square().sum())

    changes = torch.tensor([squared_norm(u) - squared_norm() for u in range(SIZE)])
    scores = _scores(model, data)
    assert torch.equal(scores.argsort(), changes.argsort(descending=True))
    # Δ‖g‖² ≈ −2 θ · (H g), for weights so small that second-order terms vanish.
    torch.testing.assert_close(
        scores / scores.norm(), -changes.double() / changes.double().norm(), rtol=1e-2, atol=1e-3
    )
    assert changes.max() > 0 > scores.min()


def test_the_temperature_matters_for_cross_entropy() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(SIZE, 8), nn.Tanh(), nn.Linear(8, 3))
    hidden = group("0", 8, member("0.weight", 0, "out", 8), member("2.weight", 1, "in", 8))
    data = Calibration([(torch.randn(6, SIZE), torch.tensor([0, 1, 2, 0, 1, 2]))])
    hot, cold = (score(Grasp(temperature=t), model, [hidden], calibration=data)["0"] for t in (200.0, 1.0))
    assert torch.isfinite(hot).all()
    assert not torch.allclose(hot, cold, rtol=0.1)
