from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from billhook.criteria import Calibration, ScoreContext, score
from billhook.criteria._weight_sums import WeightSums, share
from billhook.errors import InputError
from tests.hand_made import group, member


@dataclass(frozen=True)
class Values(WeightSums):
    """The weights themselves."""

    def importance(
        self,
        model: nn.Module,
        names: Sequence[str],
        context: ScoreContext,
        calibration: Calibration | None,
    ) -> Mapping[str, Tensor]:
        return {name: context.tensors[name] for name in names}


def _model() -> nn.Module:
    model = nn.Sequential(nn.Linear(1, 4), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [2.0], [3.0], [4.0]]))
        model[1].weight.copy_(torch.tensor([[10.0, 20.0, 30.0, 40.0], [0.0, 0.0, 0.0, 100.0]]))
    return model


def test_what_makes_and_what_reads_a_unit_is_added_up_without_biases() -> None:
    units = group(
        "0",
        2,
        member("0.weight", 0, "out", 2, width=2),
        member("0.bias", 0, "out", 2, width=2),
        member("1.weight", 1, "in", 2, width=2),
    )
    assert score(Values(), _model(), [units])["0"].tolist() == [1 + 2 + 30, 3 + 4 + 170]


def test_a_group_of_vectors_is_judged_by_them() -> None:
    scales = group("0", 4, member("0.bias", 0, "through", 4))
    model = _model()
    assert torch.equal(score(Values(), model, [scales])["0"], model[0].bias.detach())


def test_a_group_without_weights_is_named() -> None:
    with pytest.raises(InputError, match="group '0': it has no weights"):
        score(Values(), _model(), [group("0", 4)])


def test_shares_add_up_to_one_in_size_and_keep_their_signs() -> None:
    found = share({"a": torch.tensor([1.0, -2.0]), "b": torch.tensor([-3.0])})
    assert found["a"].tolist() == [0.25, -0.5]
    assert found["b"].tolist() == [-0.75]
    assert share({"a": torch.zeros(2)})["a"].tolist() == [0.0, 0.0]
