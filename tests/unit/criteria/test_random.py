from __future__ import annotations

import torch

from billhook.criteria import ScoreContext
from billhook.criteria.random import Random
from tests.hand_made import group, member

CONV = group("conv", 50, member("w", 0, "out", 50))
TWIN = group("twin", 50, member("w", 0, "out", 50))


def test_seed_and_group_decide_the_draw() -> None:
    def draw(name: str, seed: int) -> torch.Tensor:
        return Random().score({"conv": CONV, "twin": TWIN}[name], ScoreContext({}, seed))

    assert torch.equal(draw("conv", 1), draw("conv", 1))
    assert not torch.equal(draw("conv", 1), draw("conv", 2))
    assert not torch.equal(draw("conv", 1), draw("twin", 1))


def test_scores_are_uniform_between_zero_and_one() -> None:
    scores = Random().score(CONV, ScoreContext({}))
    assert 0 <= scores.min() < 0.2
    assert 0.8 < scores.max() <= 1
