from __future__ import annotations

import torch
from torch import Tensor, nn

from billhook.criteria import Calibration, score
from billhook.criteria.hrank import Hrank, ranks
from tests.hand_made import group, member


def _maps(*maps: Tensor) -> Tensor:
    return torch.stack(maps)[None]


def test_ranks_of_known_maps() -> None:
    generator = torch.Generator().manual_seed(0)
    outer = torch.outer(torch.randn(5, generator=generator), torch.randn(5, generator=generator))
    two = outer + torch.outer(torch.randn(5, generator=generator), torch.randn(5, generator=generator))
    maps = _maps(outer, torch.full((5, 5), 3.0), torch.zeros(5, 5), torch.eye(5), two)
    assert ranks(maps).tolist() == [[1.0, 1.0, 0.0, 5.0, 2.0]]


def test_a_rank_saturates_at_the_shorter_side() -> None:
    assert ranks(torch.randn(2, 3, 2, 7, generator=torch.Generator().manual_seed(0))).max() == 2
    assert ranks(torch.tensor([[[[4.0]], [[0.0]]]])).tolist() == [[1.0, 0.0]]


def test_without_height_and_width_a_rank_is_zero_or_one() -> None:
    assert ranks(torch.tensor([[[1.0, 2.0], [0.0, 0.0]]])).tolist() == [[1.0, 0.0]]


def test_a_volume_is_a_matrix_of_its_rows() -> None:
    assert ranks(torch.eye(6).reshape(1, 1, 2, 3, 6)).tolist() == [[6.0]]


def test_ranks_are_averaged_over_samples_and_one_sample_may_be_without_rank() -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), nn.Conv2d(2, 1, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2).view(2, 2, 1, 1))
    units = group("0", 2, member("0.weight", 0, "out", 2), member("1.weight", 1, "in", 2))
    data = [(_maps(torch.eye(4), torch.ones(4, 4)), None), (_maps(torch.eye(4), torch.zeros(4, 4)), None)]
    assert score(Hrank(), model, [units], calibration=Calibration(data))["0"].tolist() == [4.0, 0.5]
