from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from billhook.criteria import Calibration, score
from billhook.criteria.snip import Snip
from billhook.errors import InputError
from billhook.graph import capture
from tests.hand_made import group, member
from tests.networks import batches, build

HIDDEN = group("0", 4, member("0.weight", 0, "out", 4), member("2.weight", 1, "in", 4))


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


DATA = [(torch.randn(6, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 1, 0, 1, 0]))]


def test_the_score_is_the_derivative_with_respect_to_a_factor_on_each_weight() -> None:
    model = _model().double()
    inputs, targets = DATA[0][0].double(), DATA[0][1]

    def loss(layer: int, row: int, column: int, factor: float) -> float:
        twin = copy.deepcopy(model)
        with torch.no_grad():
            twin[layer].weight[row, column] *= factor
            return float(nn.functional.cross_entropy(twin(inputs), targets))

    step = 1e-5
    derivatives = {
        layer: torch.tensor(
            [
                [
                    (loss(layer, i, j, 1 + step) - loss(layer, i, j, 1 - step)) / (2 * step)
                    for j in range(model[layer].in_features)
                ]
                for i in range(model[layer].out_features)
            ]
        ).abs()
        for layer in (0, 2)
    }
    total = derivatives[0].sum() + derivatives[2].sum()
    expected = (derivatives[0].sum(1) + derivatives[2].sum(0)) / total
    found = score(Snip(), model, [HIDDEN], calibration=Calibration([(inputs, targets)]))["0"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_scores_are_shares_of_the_whole() -> None:
    # Every weight of the two layers belongs to one unit of the only group.
    found = score(Snip(), _model(), [HIDDEN], calibration=Calibration(DATA))["0"]
    torch.testing.assert_close(found.sum(), torch.tensor(1.0))


def test_one_batch_is_the_default() -> None:
    model, inputs = build("plain")
    prunable = capture(model, inputs).groups.prunable
    data = batches("plain", count=3)
    one = score(Snip(), model, prunable, calibration=Calibration(data))
    all_of_them = score(Snip(batches=3), model, prunable, calibration=Calibration(data))
    first = score(Snip(batches=3), model, prunable, calibration=Calibration(data[:1]))
    assert torch.equal(one["conv1"], first["conv1"])
    assert not torch.equal(one["conv1"], all_of_them["conv1"])


def test_it_needs_data() -> None:
    with pytest.raises(InputError, match="'snip' learns from data"):
        score(Snip(), _model(), [HIDDEN])
