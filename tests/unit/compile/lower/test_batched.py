"""The batch may be at any place for a while."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from billhook.compile.lower import lower
from billhook.errors import UnsupportedError
from tests.unit.compile.exactness import Function, image, lowered

BACK: dict[str, Callable[[Tensor], Tensor]] = {
    "second": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "last": lambda x: x.permute(1, 2, 3, 0).permute(3, 0, 1, 2),
    "with the dimension behind it": lambda x: (
        x.permute(2, 0, 1, 3).reshape(6, -1, 5).unflatten(1, (-1, 4)).permute(1, 2, 0, 3)
    ),
    "with the dimension before it": lambda x: (
        x.transpose(0, 1).reshape(-1, 6, 5).view(4, -1, 6, 5).transpose(0, 1)
    ),
    "between two": lambda x: (
        x.transpose(0, 1).flatten(0, 2).view(2, 2, -1, 6, 5).permute(2, 0, 1, 3, 4).reshape(-1, 4, 6, 5)
    ),
    "chosen": lambda x: x.transpose(0, 1)[2],
    "chosen row": lambda x: x.transpose(0, 1).select(2, 3).transpose(0, 1),
    "unbound": lambda x: torch.cat(x.permute(2, 0, 1, 3).unbind(0)[2:4], 1),
    "split": lambda x: x.transpose(0, 1).chunk(2, 0)[1].transpose(0, 1),
}


@pytest.mark.parametrize("name", BACK)
def test_it_comes_back(name: str) -> None:
    lowered(BACK[name], image())


def test_linear_layers_meanwhile() -> None:
    def forward(linear: nn.Module, x: Tensor) -> Tensor:
        return linear(x.flatten(2).permute(2, 0, 1)).permute(1, 2, 0)

    torch.manual_seed(0)
    lowered(Function(forward, nn.Linear(4, 3)), image())


REFUSED: dict[str, Callable[[Tensor], Tensor]] = {
    "output": lambda x: x.transpose(0, 1),
    "sum": lambda x: x.transpose(0, 1).sum(1),
    "softmax": lambda x: x.transpose(0, 1).softmax(1).transpose(0, 1),
    "choice of a sample": lambda x: x.transpose(0, 1)[:, 0],
    "samples in pieces": lambda x: x.transpose(0, 1).reshape(8, 30),
    "samples for channels": lambda x: x.transpose(0, 1).reshape(-1, 4, 6, 5) * 2,
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_mixes_samples_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedError):
        lower(Function(REFUSED[name]), image())
