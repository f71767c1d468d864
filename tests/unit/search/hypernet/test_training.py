"""A PruningNet is trained in all widths; a run that is killed goes on; what it says of widths is right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import spearmanr
from torch import nn

from billhook.graph.slicing import named_tensors
from billhook.search.hypernet.network import PruningNet
from billhook.search.hypernet.objective import GeneratedWeights
from billhook.search.hypernet.training import FILE, train_widths
from billhook.search.problem import SearchProblem
from billhook.search.shared.fresh import fresh
from billhook.train import FitConfig, evaluate, fit
from tests.networks import build
from tests.search import batches, problem_of

CONFIG = FitConfig(steps=10, lr=0.05, schedule="linear", precision="32-true", checkpoint_steps=2)


def _untrained(problem: SearchProblem) -> PruningNet:
    torch.manual_seed(0)
    tensors = dict(named_tensors(fresh(problem.model, 0)))
    return PruningNet(problem.space, tensors, hidden=32, limit=2**22, spread=0.5)


class Killed(Exception):
    pass


class Until:
    """Batches whose reader is killed after some of them."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __len__(self) -> int:
        return len(batches())

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        for batch in batches()[start:]:
            if not self.left:
                raise Killed
            self.left -= 1
            yield batch


def test_a_run_that_was_killed_ends_like_one_that_was_not(tmp_path: Path) -> None:
    problem = problem_of(*build("residual"))
    whole, killed, resumed = (_untrained(problem) for _ in range(3))
    train_widths(whole, Until(100), CONFIG, tmp_path / "whole")
    with pytest.raises(Killed):
        train_widths(killed, Until(7), CONFIG, tmp_path / "killed")
    train_widths(resumed, Until(4), CONFIG, tmp_path / "killed")  # from step 6 on
    expected = whole.state_dict()
    assert all(torch.equal(expected[n], t) for n, t in resumed.state_dict().items())
    assert [p.name for p in (tmp_path / "killed").iterdir()] == [FILE]


def test_what_is_trained_is_not_trained_again(tmp_path: Path) -> None:
    problem = problem_of(*build("plain"))
    first, second = _untrained(problem), _untrained(problem)
    train_widths(first, Until(10), CONFIG, tmp_path)
    train_widths(second, Until(0), CONFIG, tmp_path)
    assert all(torch.equal(first.state_dict()[n], t) for n, t in second.state_dict().items())
    assert load_file(tmp_path / FILE).keys() == first.state_dict().keys()


def test_every_step_has_other_widths_which_follow_from_the_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, rows = problem_of(*build("plain")), []
    forward = PruningNet.forward

    def watched(network: PruningNet, *args: Any) -> Any:
        rows.append(tuple(network.row.tolist()))
        return forward(network, *args)

    monkeypatch.setattr(PruningNet, "forward", watched)
    for seed in (0, 0, 1):
        config = FitConfig(steps=40, seed=seed, precision="32-true")
        train_widths(_untrained(problem), list(batches()), config, tmp_path / f"{len(rows)}")
    assert rows[:40] == rows[40:80] != rows[80:]
    for column, size in zip(np.array(rows).T, problem.space.sizes, strict=True):
        assert (np.bincount(column, minlength=size) >= 4).all(), "some value of a gene is hardly ever drawn"


def _spirals(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return points of two spirals that wind around each other, and which one each is of."""
    generator = torch.Generator().manual_seed(seed)
    turn, noise = torch.rand(count, generator=generator), torch.randn(count, 2, generator=generator)
    label = torch.randint(2, (count,), generator=generator)
    angle = 1.3 * 2 * torch.pi * turn.sqrt() + torch.pi * label
    points = turn.sqrt()[:, None] * torch.stack([angle.cos(), angle.sin()], 1) + 0.03 * noise
    return 2 * points, label


@pytest.mark.slow
def test_it_ranks_widths_like_training_each_of_them_from_scratch(tmp_path: Path) -> None:
    model = _mlp(24, 24)
    data = [_spirals(128, seed) for seed in range(8)]
    given = {"data": data, "validation": [_spirals(2000, 99)], "images": 2000, "lowest": 0.04, "round_to": 1}
    problem = problem_of(model, torch.zeros(1, 2), criterion="first", **given)
    shared = FitConfig(optimizer="adamw", lr=0.01, schedule="linear", weight_decay=0, precision="32-true")
    network = _untrained(problem)
    train_widths(network, data, replace(shared, steps=800), tmp_path)
    judge = GeneratedWeights(problem, network, "learned")
    rows = problem.space.random(np.random.default_rng(0), 20)
    judged = [judge.evaluate(row).accuracy for row in rows]
    scratch = []
    for widths in problem.space.values(rows).astype(int):
        small = _mlp(*widths)
        fit(small, data, config=replace(shared, steps=200), progress=False)
        scratch.append(evaluate(small, problem.validation).accuracy)
    assert max(judged) > 0.9
    assert spearmanr(judged, scratch).statistic > 0.6


def _mlp(first: int, second: int) -> nn.Module:
    torch.manual_seed(0)
    hidden = [nn.Linear(2, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Linear(second, 2))
