from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from billhook.train import DivergedError, FitConfig, fit
from billhook.train.divergence import GoodWeights, LossWindow, first_bad
from billhook.train.weights import all_finite
from tests.unit.train.tiny import EXACT, TinyBatches, assert_same_weights, tiny_net

STEADY = replace(EXACT, epochs=2, schedule="constant", log_every=3)


class OnePoisoned(TinyBatches):
    """The second batch of the second epoch holds NaN."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for i, (inputs, targets) in enumerate(super().epoch(epoch, start), start):
            yield inputs * (float("nan") if (epoch, i) == (1, 1) else 1), targets


def test_nan_names_step_and_rate_and_the_last_good_weights_are_back() -> None:
    model, good = tiny_net(), tiny_net()
    with pytest.raises(DivergedError, match=r"the loss is nan at step 6 \(learning rate 0\.1\)") as caught:
        fit(model, OnePoisoned(), config=STEADY)
    assert (caught.value.step, caught.value.good_step) == (6, 5)  # seen at step 3, end of the epoch at 5
    assert "Try a lower lr" in str(caught.value)
    fit(good, TinyBatches(), config=replace(STEADY, epochs=1))
    assert_same_weights(model, good)


def test_a_rate_that_is_far_too_high_leaves_finite_weights() -> None:
    model = tiny_net()
    config = FitConfig(epochs=5, lr=1e30, schedule="constant", precision="32-true")
    with pytest.raises(DivergedError):
        fit(model, TinyBatches(), config=config)
    assert all_finite(model)


def test_good_weights_never_hold_nan() -> None:
    model = tiny_net()
    good = GoodWeights(model, 0)
    with torch.no_grad():
        model[0].weight.add_(1)
    good.keep(model, 3)
    with torch.no_grad():
        model[0].weight[0] = float("nan")
    good.keep(model, 6)
    assert good.step == 3
    good.restore(model)
    torch.testing.assert_close(model[0].weight, tiny_net()[0].weight + 1)


def test_losses_wait_in_order() -> None:
    window = LossWindow(2, torch.device("cpu"))
    window.add(torch.tensor(1.0))
    assert not window.full
    window.add(torch.tensor(2.0))
    assert window.full
    assert window.read() == [1.0, 2.0]
    assert window.read() == []


def test_the_first_bad_loss() -> None:
    assert first_bad([1.0, 2.0]) is None
    assert first_bad([1.0, float("inf"), float("nan")]) == 1
