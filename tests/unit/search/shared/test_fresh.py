"""Untrained twins."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from billhook.search.shared.fresh import fresh
from tests.networks import NETWORKS, build


@pytest.mark.parametrize("name", NETWORKS)
def test_a_twin_has_other_weights_and_the_network_keeps_its_own(name: str) -> None:
    model, inputs = build(name)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    twin = fresh(model, 0)
    assert twin(inputs).shape == model(inputs).shape
    for module_name, module in twin.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            mine = before[f"{module_name}.weight"]
            alike = torch.corrcoef(torch.stack([mine.flatten(), module.weight.detach().flatten()]))[0, 1]
            assert abs(float(alike)) < 0.4, module_name
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_statistics_are_reset_and_draws_are_those_of_a_new_network() -> None:
    model, _ = build("residual")
    model.bn.running_mean.fill_(7.0)  # type: ignore[operator, union-attr]
    twin = fresh(model, 3)
    assert not twin.bn.running_mean.any()  # type: ignore[operator, union-attr]
    assert (twin.bn.weight == 1).all()  # type: ignore[union-attr]
    bound = 1 / (3 * 9) ** 0.5  # of PyTorch's draw for 3 inputs and 9 positions
    spread = twin.stem.weight.detach().abs().max()  # type: ignore[operator, union-attr]
    assert 0.9 * bound < float(spread) <= bound


def test_the_seed_decides_and_the_caller_draws_on_undisturbed() -> None:
    model, _ = build("plain")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, third = fresh(model, 1), fresh(model, 1), fresh(model, 2)
    assert torch.equal(torch.rand(3), expected)
    weights = [m.conv1.weight for m in (first, second, third)]  # type: ignore[union-attr]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


class _Positions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(3 + 0.5 * torch.randn(40, 50))
        self.scale = nn.Parameter(torch.ones(1))


def test_weights_that_no_module_can_draw_keep_their_mean_and_spread_only() -> None:
    model = _Positions()
    twin = fresh(model, 0)
    assert not torch.allclose(twin.position, model.position, atol=0.1)
    assert float(twin.position.detach().mean()) == pytest.approx(3, abs=0.05)
    assert float(twin.position.detach().std()) == pytest.approx(0.5, abs=0.05)
    assert torch.equal(twin.scale, model.scale)
