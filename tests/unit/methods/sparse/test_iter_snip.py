from __future__ import annotations

import pytest
import torch

from billhook.errors import InputError
from billhook.methods.sparse._sensitivity import sensitivity
from billhook.methods.sparse.iter_snip import IterSnip
from billhook.methods.sparse.snip import Snip
from tests.unit.methods.sparse.problems import data, largest, masks, mlp, problem, same


def test_one_round_is_snip() -> None:
    for sparsity in (0.0, 0.5, 0.9):
        one = masks(IterSnip(rounds=1).run(problem(mlp(), sparsity)))
        assert same(one, masks(Snip().run(problem(mlp(), sparsity))))


def test_the_second_round_scores_the_network_without_what_has_left() -> None:
    model = mlp()
    found = masks(IterSnip(rounds=2).run(problem(model, 0.75)))
    first = masks(Snip().run(problem(model, 0.5)))  # 0.25^(1/2) stays
    sparse = mlp()
    with torch.no_grad():
        for name, mask in first.items():
            sparse.get_parameter(name).mul_(mask)
    again = sensitivity(problem(sparse, 0.75), 1, batches=1, name="iter_snip")
    expected = largest({name: score * first[name] for name, score in again.items()}, 0.75)
    assert same(found, expected)
    assert not same(found, masks(Snip().run(problem(model, 0.75))))


def test_what_has_left_stays_away() -> None:
    model = mlp()
    with torch.no_grad():
        model[0].weight[:3] = 0.0  # scores of zero, as many as there are weights that leave early
    before: dict[str, torch.Tensor] = {}
    for sparsity, rounds in ((1 - 0.1 ** (t / 5), t) for t in range(1, 6)):
        # The first t of 5 rounds to 90%.
        now = masks(IterSnip(rounds=rounds).run(problem(model, sparsity)))
        assert not before or all(bool((before[n] | ~now[n]).all()) for n in now)
        before = now
    assert sum(int(m.sum()) for m in before.values()) == 4  # 0.1 · 48 = 4.8


def test_given_sparsities_are_reached_in_rounds() -> None:
    outcome = IterSnip(rounds=4).run(problem(mlp(), 0.0, sparsities={"0.weight": 0.9, "2.weight": 0.5}))
    assert {n: int(m.sum()) for n, m in masks(outcome).items()} == {"0.weight": 3, "2.weight": 9}
    left = [1 - entry["sparsity"] for entry in outcome.log]
    keep = 12 / 48
    assert left == pytest.approx([keep ** (t / 4) for t in range(1, 5)], abs=2 / 48)


def test_it_asks_for_data() -> None:
    with pytest.raises(InputError, match="sparse method 'iter_snip' learns from data; give data="):
        IterSnip().run(problem(mlp(), 0.5, data=None))


def test_more_batches_count_if_asked_for() -> None:
    one, three = (IterSnip(rounds=3, batches=n).run(problem(mlp(), 0.5, data=data(3))) for n in (1, 3))
    assert not same(masks(one), masks(three))
