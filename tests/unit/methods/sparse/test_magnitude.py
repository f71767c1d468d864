from __future__ import annotations

import pytest
import torch
from torch import nn

from billhook.methods.sparse.magnitude import Magnitude
from tests.unit.methods.sparse.problems import masks, mlp, problem


def _by_hand() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 2, bias=False), nn.ReLU(), nn.Linear(2, 4, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -8.0, 2.0, 7.0], [-3.0, 5.0, -4.0, 6.0]]))
        model[2].weight.copy_(torch.tensor([[0.1, 0.2], [-0.4, 0.3], [0.5, -0.6], [0.8, -0.7]]))
    return model


@pytest.mark.parametrize(
    ("allocation", "expected"),
    [
        ("uniform", ([[0, -8, 0, 7], [0, 5, 0, 6]], [[0, 0], [0, 0], [0.5, -0.6], [0.8, -0.7]])),
        ("global", ([[0, -8, 2, 7], [-3, 5, -4, 6]], [[0, 0], [0, 0], [0, 0], [0.8, 0]])),
        # Both tensors have the same weights but for a factor, which LAMP does not see.
        ("lamp", ([[0, -8, 0, 7], [0, 5, 0, 6]], [[0, 0], [0, 0], [0.5, -0.6], [0.8, -0.7]])),
    ],
)
def test_the_smallest_weights_leave(allocation: str, expected: tuple) -> None:
    model = _by_hand()
    outcome = Magnitude().run(problem(model, 0.5, inputs=torch.zeros(1, 4), allocation=allocation))
    for name, values in zip(("0.weight", "2.weight"), expected, strict=True):
        assert torch.equal(outcome.model.get_parameter(name), torch.tensor(values, dtype=torch.float32))
        assert torch.equal(outcome.structures[name].mask, torch.tensor(values) != 0)
    assert bool((model[0].weight != 0).all())


def test_the_smallest_blocks_leave_whatever_is_in_them() -> None:
    model = _by_hand()
    outcome = Magnitude().run(
        problem(model, 0.5, "block_punched:rows=2,columns=1", inputs=torch.zeros(1, 4), allocation="uniform")
    )
    # Norms² of the columns of the first weight: 10, 89, 20, 85.
    assert masks(outcome)["0.weight"].tolist() == [[False, True, False, True]] * 2
    # Of rows 0–1 and 2–3 of each column of the second: 0.17, 0.13, 0.89, 0.85.
    assert masks(outcome)["2.weight"].tolist() == [[False, False]] * 2 + [[True, True]] * 2


def test_no_data_is_looked_at() -> None:
    assert Magnitude().run(problem(mlp(), 0.5, data=None)).history == ()
