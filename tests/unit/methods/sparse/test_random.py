from __future__ import annotations

import pytest
import torch

from billhook.methods.sparse.random_ import Random
from tests.networks import build
from tests.unit.methods.sparse.problems import masks, mlp, problem, same


def test_the_seed_says_what_leaves_and_the_weights_do_not() -> None:
    first = masks(Random().run(problem(mlp(seed=0), 0.5, seed=1)))
    assert same(first, masks(Random().run(problem(mlp(seed=7), 0.5, seed=1, data=None))))
    assert not same(first, masks(Random().run(problem(mlp(seed=0), 0.5, seed=2))))


def test_every_weight_has_the_same_chance() -> None:
    total = sum(masks(Random().run(problem(mlp(), 0.5, seed=s)))["0.weight"].double() for s in range(40))
    assert float((total / 40).mean()) == pytest.approx(0.5, abs=0.03)
    assert float(total.min() / 40) > 0.15
    assert float(total.max() / 40) < 0.85


def test_tensors_lose_about_the_same_fraction() -> None:
    model, inputs = build("plain")
    found = masks(Random().run(problem(model, 0.7, inputs=inputs)))
    assert all(float((~m).double().mean()) == pytest.approx(0.7, abs=0.1) for m in found.values())
    whole = torch.cat([m.reshape(-1) for m in found.values()])
    assert abs(int((~whole).sum()) - 0.7 * len(whole)) < 1


def test_small_layers_stay_denser_with_erk() -> None:
    model, inputs = build("plain")
    found = masks(Random().run(problem(model, 0.7, inputs=inputs, allocation="erk")))
    density = {name: float(m.double().mean()) for name, m in found.items()}
    assert density["conv2.weight"] < density["conv1.weight"]
    assert density["conv2.weight"] < density["head.weight"]


def test_everything_stays_at_sparsity_zero() -> None:
    assert all(mask.all() for mask in masks(Random().run(problem(mlp(), 0.0))).values())
