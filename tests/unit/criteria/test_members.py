from __future__ import annotations

import numpy as np
import torch

from billhook.criteria._members import per_unit, unit_rows, weights
from billhook.graph.groups import Member
from tests.hand_made import group, member


def test_per_unit_sums_over_the_indices_of_each_unit() -> None:
    m = Member("w", 0, "out", np.array([[0, 3], [4, 1]]))
    assert per_unit(torch.tensor([1.0, 10.0, 100.0, 1000.0, 10000.0]), m).tolist() == [1001.0, 10010.0]


def test_per_unit_keeps_leading_axes() -> None:
    m = member("w", 0, "out", size=2, width=2)
    assert per_unit(torch.arange(8.0).reshape(2, 4), m).tolist() == [[1.0, 5.0], [9.0, 13.0]]


def test_unit_rows_gathers_everything_a_unit_owns() -> None:
    weight = torch.arange(12.0).reshape(2, 6)
    rows = unit_rows(weight, member("w", 1, "in", size=3, width=2))
    assert rows[1].tolist() == [2.0, 8.0, 3.0, 9.0]


def test_weights_leave_out_biases_norms_and_integers() -> None:
    tensors = {
        "a.weight": torch.ones(3, 2),
        "a.bias": torch.ones(3),
        "bn.weight": torch.ones(3),
        "table": torch.ones(3, 2, dtype=torch.int64),
        "b.weight": torch.ones(4, 3),
    }
    g = group(
        "a",
        3,
        member("a.weight", 0, "out", 3),
        member("a.bias", 0, "out", 3),
        member("bn.weight", 0, "through", 3),
        member("table", 0, "through", 3),
        member("b.weight", 1, "in", 3),
    )
    assert [m.tensor for m in weights(g, tensors)] == ["a.weight", "b.weight"]
    assert [m.tensor for m in weights(g, tensors, "out")] == ["a.weight"]


def test_a_group_without_matrices_is_judged_by_its_vectors() -> None:
    g = group("scale", 3, member("scale", 0, "out", 3))
    assert [m.tensor for m in weights(g, {"scale": torch.ones(3)})] == ["scale"]
