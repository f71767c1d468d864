from __future__ import annotations

import pytest
import torch

from billhook.train import learning_rate, stages


def rates(schedule: str, warmup: float, total: int = 100) -> list[float]:
    return [learning_rate(s, total, peak=0.2, schedule=schedule, warmup=warmup) for s in range(total)]


def test_one_cycle_is_the_one_of_torch() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.2, total_steps=1001, cycle_momentum=False, final_div_factor=400
    )
    expected = []
    for _ in range(1000):
        expected.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    # torch's peak is one step early and its last step is the end; over 1,000 steps that is little.
    assert rates("one-cycle", 0.3, 1000) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "linear", "constant", "step"])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("total", [1, 2, 7, 100])
def test_rates_stay_between_zero_and_the_peak(schedule: str, warmup: float, total: int) -> None:
    assert all(0 < r <= 0.2 for r in rates(schedule, warmup, total))


def test_rates_rise_during_the_warmup_and_fall_after_it() -> None:
    for schedule in ("one-cycle", "cosine", "linear"):
        lr = rates(schedule, 0.2)
        assert lr[:20] == sorted(lr[:20])
        assert lr[20] == 0.2
        assert lr[20:] == sorted(lr[20:], reverse=True)
        assert lr[-1] < 0.003


def test_worked_by_hand() -> None:
    assert rates("cosine", 0.1)[0] == pytest.approx(0.02)  # one of ten steps of a linear rise to 0.2
    assert rates("cosine", 0.0)[50] == pytest.approx(0.1)  # half way down a half cosine
    assert rates("linear", 0.0) == pytest.approx([0.2 - 0.002 * step for step in range(100)])
    assert rates("one-cycle", 0.3)[0] == pytest.approx(0.2 / 25)
    assert rates("constant", 0.0) == [0.2] * 100
    steps = [0.2] * 50 + [0.02] * 25 + [0.002] * 13 + [0.0002] * 12
    assert rates("step", 0.0) == pytest.approx(steps)


def test_published_stages() -> None:
    assert stages(90, 1e-1) == [(0, 1e-1), (30, 1e-2), (60, 1e-3), (75, 1e-4), (83, 1e-5)]
    assert stages(60, 1e-2) == [(0, 1e-2), (30, 1e-3), (45, 1e-4), (53, 1e-5)]
    assert stages(120, 1e-2, last=1e-4, longest=60) == [(0, 1e-2), (60, 1e-3), (90, 1e-4)]
    assert stages(5, 1e-5) == [(0, 1e-5)]
