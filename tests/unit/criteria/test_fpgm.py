from __future__ import annotations

import torch

from billhook.criteria import ScoreContext
from billhook.criteria.fpgm import Fpgm, summed_distances
from tests.hand_made import group, member


def _filters(count: int = 12) -> torch.Tensor:
    return torch.randn(count, 3, 3, 3, generator=torch.Generator().manual_seed(0))


def _score(weight: torch.Tensor) -> torch.Tensor:
    alone = group("conv", len(weight), member("w", 0, "out", len(weight)))
    return Fpgm().score(alone, ScoreContext({"w": weight}))


def test_distances_of_three_points_on_a_line() -> None:
    torch.testing.assert_close(
        summed_distances([torch.tensor([[0.0], [1.0], [5.0]])]), torch.tensor([6.0, 5.0, 9.0])
    )


def test_coupled_layers_count_as_one_long_filter() -> None:
    side_by_side = summed_distances([torch.tensor([[0.0], [3.0]]), torch.tensor([[0.0], [4.0]])])
    assert side_by_side.tolist() == [5.0, 5.0]


def test_distances_equal_the_plain_formula() -> None:
    rows = _filters().flatten(1)
    torch.testing.assert_close(summed_distances([rows]), torch.cdist(rows, rows).sum(1))


def test_the_mean_of_the_others_is_removed_first() -> None:
    weight = _filters()
    weight[7] = torch.cat([weight[:7], weight[8:]]).mean(0)
    assert _score(weight).argmin() == 7


def test_a_constant_added_to_all_filters_changes_nothing() -> None:
    weight = _filters()
    torch.testing.assert_close(_score(weight + 100), _score(weight), rtol=1e-4, atol=0)


def test_identical_filters_have_no_distance() -> None:
    assert _score(_filters(1).repeat(4, 1, 1, 1)).max() < 1e-5
