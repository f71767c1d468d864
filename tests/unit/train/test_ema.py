from __future__ import annotations

import pytest
import torch
from torch import nn

from billhook.train.ema import Ema, average_, warmed_decay


def test_the_decay_grows_to_its_value() -> None:
    assert warmed_decay(0.99, 0) == 0.1
    assert warmed_decay(0.99, 90) == 0.91
    assert warmed_decay(0.99, 10_000) == 0.99


def test_the_average_by_hand_with_integers_copied() -> None:
    average = {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)}
    average_(average, {"w": torch.tensor([3.0, 2.0]), "n": torch.tensor(7)}, decay=0.75)
    assert average["w"].tolist() == [1.5, 2.0]
    assert average["n"].item() == 7


def test_weights_that_stay_are_their_own_average() -> None:
    model = nn.BatchNorm1d(3)
    ema = Ema(model, 0.9)
    for _ in range(20):
        ema.update(model)
    assert torch.equal(ema.weights["weight"], model.weight)


def test_a_saved_average_goes_on_where_it_was() -> None:
    model = nn.Linear(2, 2)
    one, other = Ema(model, 0.9), Ema(nn.Linear(2, 2), 0.9)
    one.update(model)
    other.load_state_dict(one.state_dict())
    with torch.no_grad():
        model.weight.add_(1)
    for ema in (one, other):
        ema.update(model)
    assert other.updates == 2
    assert torch.equal(one.weights["weight"], other.weights["weight"])
    assert one.weights["weight"].mean() != pytest.approx(model.weight.mean().item())
