from __future__ import annotations

import pytest
import torch
from torch import nn

from billhook.errors import InputError
from billhook.train import recalibrate_batchnorm
from tests.unit.train.tiny import TinyBatches, tiny_net


def test_statistics_are_plain_averages_over_the_batches() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2, momentum=0.3))
    model[0].running_mean.fill_(100)
    batches = [(torch.randn(4, 2) + i, None) for i in range(4)]
    assert recalibrate_batchnorm(model, batches, 3) == 3
    means = torch.stack([b.mean(0) for b, _ in batches[:3]])
    variances = torch.stack([b.var(0) for b, _ in batches[:3]])
    torch.testing.assert_close(model[0].running_mean, means.mean(0))
    torch.testing.assert_close(model[0].running_var, variances.mean(0))
    assert model[0].momentum == 0.3


def test_only_batch_norm_changes_and_dropout_stays_off() -> None:
    model, twin = tiny_net(dropout=0.9).eval(), tiny_net(dropout=0.0)
    model[7].train()
    weights = {name: p.clone() for name, p in model.named_parameters()}
    recalibrate_batchnorm(model, TinyBatches(), 100)
    recalibrate_batchnorm(twin, TinyBatches(), 100)
    assert torch.equal(model[1].running_mean, twin[1].running_mean)
    assert all(torch.equal(weights[name], p) for name, p in model.named_parameters())
    assert [m.training for m in model] == [False] * 7 + [True]


def test_a_layer_that_is_not_reached_keeps_its_statistics() -> None:
    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.BatchNorm1d(2), nn.BatchNorm1d(2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    model = Aside()
    model.unused.running_mean.fill_(5)
    recalibrate_batchnorm(model, [(torch.randn(4, 2), None)], 1)
    assert model.unused.running_mean.tolist() == [5, 5]
    assert model.used.running_mean.abs().sum() > 0


def test_everything_is_put_back_if_a_pass_fails() -> None:
    model = tiny_net().eval()
    model[1].running_mean.fill_(2)
    batches = [(torch.randn(2, 2, 6, 6), None), (torch.randn(2, 9, 6, 6), None)]
    with pytest.raises(RuntimeError, match="channels"):
        recalibrate_batchnorm(model, batches, 2)
    assert model[1].running_mean.tolist() == [2] * 4
    assert model[1].momentum == 0.1
    assert not model[1].training


def test_a_network_without_batch_norm_reads_nothing() -> None:
    assert recalibrate_batchnorm(nn.Linear(2, 2), [(torch.zeros(1, 2), None)], 1) == 0


def test_wrong_arguments_are_explained() -> None:
    with pytest.raises(InputError, match="steps=0 must be at least 1"):
        recalibrate_batchnorm(tiny_net(), TinyBatches(), 0)
    with pytest.raises(InputError, match="no batches"):
        recalibrate_batchnorm(tiny_net(), TinyBatches(count=0), 1)


def test_statistics_of_one_batch_are_those_of_all_values_that_a_layer_reads() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)
    )
    images = torch.randn(64, 2, 6, 6) * 3 + 1
    recalibrate_batchnorm(model, [(images, None)], 1)
    model.train()  # as in the pass that measured
    with torch.no_grad():
        for number in (1, 4):
            values = model[:number](images).transpose(0, 1).flatten(1).double()
            mean, variance = model[number].running_mean.double(), model[number].running_var.double()
            torch.testing.assert_close(mean, values.mean(1), rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(variance, values.var(1), rtol=1e-5, atol=1e-5)
