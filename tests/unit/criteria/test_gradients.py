"""Gradients, their squares and Hessian products against what `torch.func` says in double precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from billhook.criteria import Calibration
from billhook.criteria._gradients import hessian_times_gradient, mean_gradients, mean_squared_gradients
from billhook.errors import InputError

NAMES = ["0.weight", "2.weight"]


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def _data(*sizes: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(n, 3, generator=generator), torch.arange(n) % 2) for n in sizes]


def _loss_at(model: nn.Module, weights: dict[str, Tensor], batch: tuple[Tensor, Tensor], t: float) -> Tensor:
    return functional.cross_entropy(torch.func.functional_call(model, weights, batch[0]) / t, batch[1])


def _gradient(model: nn.Module, batch: tuple[Tensor, Tensor], t: float = 1.0) -> dict[str, Tensor]:
    weights = {n: p.detach() for n, p in model.named_parameters() if n in NAMES}
    return torch.func.grad(lambda w: _loss_at(model, w, batch, t))(weights)


def test_the_mean_gradient_is_that_of_all_samples() -> None:
    model, data = _model(), _data(5, 2)
    found = mean_gradients(model, NAMES, Calibration(data), batches=9)
    together = (torch.cat([x for x, _ in data]), torch.cat([y for _, y in data]))
    expected = _gradient(model, together)
    for name in NAMES:
        torch.testing.assert_close(found[name], expected[name])


def test_squares_are_of_the_gradients_of_single_samples() -> None:
    model, data = _model(), _data(5, 2)
    found = mean_squared_gradients(model, NAMES, Calibration(data), batches=9)
    single = [_gradient(model, (x[i : i + 1], y[i : i + 1])) for x, y in data for i in range(len(x))]
    for name in NAMES:
        torch.testing.assert_close(found[name], torch.stack([g[name] for g in single]).square().mean(0))


def test_squares_of_batches_count_for_their_samples() -> None:
    model, data = _model(), _data(5, 2)
    found = mean_squared_gradients(model, NAMES, Calibration(data), batches=9, by_sample=False)
    for name in NAMES:
        squares = [len(x) * _gradient(model, (x, y))[name].square() for x, y in data]
        torch.testing.assert_close(found[name], (5 * squares[0] + 2 * squares[1]) / 7)


@pytest.mark.parametrize(("sizes", "temperature"), [((6,), 1.0), ((6,), 200.0), ((5, 2), 1.0), ((1,), 1.0)])
def test_the_hessian_product_sums_over_halves(sizes: tuple[int, ...], temperature: float) -> None:
    model, data = _model(), _data(*sizes)
    halves = [
        (x[part], y[part])
        for x, y in data
        for part in (slice(0, len(x) // 2), slice(len(x) // 2, None))
        if len(x[part])
    ]
    weights = {n: p.detach() for n, p in model.named_parameters() if n in NAMES}

    def total(w: dict[str, Tensor]) -> Tensor:
        return sum((_loss_at(model, w, half, temperature) for half in halves), torch.zeros(()))

    gradient = torch.func.grad(total)(weights)

    def along(w: dict[str, Tensor]) -> Tensor:
        return sum(((g * gradient[n]).sum() for n, g in torch.func.grad(total)(w).items()), torch.zeros(()))

    expected = torch.func.grad(along)(weights)
    found = hessian_times_gradient(model, NAMES, Calibration(data), batches=9, temperature=temperature)
    for name in NAMES:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-9)


def test_a_loader_that_shuffles_is_asked_once() -> None:
    class Once:
        asked = 0

        def __iter__(self) -> Any:
            self.asked += 1
            return iter(_data(4))

    once = Once()
    hessian_times_gradient(_model(), NAMES, Calibration(once), batches=1)
    assert once.asked == 1


def test_a_loss_without_curvature_has_no_product() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    data = Calibration(_data(4), lambda outputs, targets: outputs.sum())
    assert hessian_times_gradient(model, ["0.weight"], data, batches=1)["0.weight"].abs().sum() == 0


def test_attention_of_torch_has_a_second_derivative() -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.out = nn.Linear(4, 12), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.inner(x).chunk(3, -1)
            return self.out(functional.scaled_dot_product_attention(q, k, v).mean(1))

    data = [(torch.randn(4, 5, 4), torch.tensor([0, 1, 1, 0]))]
    found = hessian_times_gradient(Attends(), ["inner.weight"], Calibration(data), batches=1)
    assert found["inner.weight"].abs().sum() > 0


def test_functions_of_mobile_networks_have_a_second_derivative() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(3, 4), nn.Hardsigmoid(), nn.Linear(4, 4), nn.Hardswish(), nn.Linear(4, 4), nn.SiLU()
    )
    found = hessian_times_gradient(model, ["0.weight"], Calibration(_data(4)), batches=1)
    assert found["0.weight"].abs().sum() > 0


def test_an_operator_without_a_second_derivative_is_named() -> None:
    class Distances(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cdist(super().forward(x), torch.eye(2))

    with pytest.raises(InputError, match=r"cannot be differentiated twice .*choose a criterion"):
        hessian_times_gradient(Distances(3, 2), ["weight"], Calibration(_data(4)), batches=1)


def test_outputs_without_a_temperature_are_refused() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": self.layer(x)}

    data = Calibration(
        _data(4), lambda outputs, targets: functional.cross_entropy(outputs["logits"], targets)
    )
    with pytest.raises(InputError, match="not a dict; set temperature=1"):
        hessian_times_gradient(Named(), ["layer.weight"], data, batches=1, temperature=200)
    hessian_times_gradient(Named(), ["layer.weight"], data, batches=1, temperature=1)
