from __future__ import annotations

from types import ModuleType

import pytest
import torch

from billhook.models import build
from billhook.models.mobilenet_v2 import _to_multiple


def test_its_tensors_are_those_of_torchvision(torchvision: ModuleType) -> None:
    theirs = torchvision.models.mobilenet_v2(num_classes=10).state_dict()
    ours = build("mobilenet-v2").state_dict()

    assert [tensor.shape for tensor in ours.values()] == [tensor.shape for tensor in theirs.values()]


def test_with_the_strides_of_the_paper_it_computes_the_same(torchvision: ModuleType) -> None:
    theirs = torchvision.models.mobilenet_v2(num_classes=10).eval()
    ours = build("mobilenet-v2", stem_stride=2).eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    second_row = ours.get_submodule("features.4.layers.3")
    assert second_row.stride == (1, 1)
    second_row.stride = (2, 2)
    x = torch.randn(2, 3, 64, 64)

    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize(
    ("size", "expected"), [(32, 32), (16 * 0.35, 8), (24 * 0.5, 16), (24 * 0.75, 24), (1, 8)]
)
def test_channels_are_multiples_of_eight(size: float, expected: int) -> None:
    assert _to_multiple(size) == expected


def test_the_last_convolution_does_not_get_narrower() -> None:
    assert build("mobilenet-v2", width=0.5).classifier.in_features == 1280
    with torch.device("meta"):
        assert build("mobilenet-v2", width=1.4).classifier.in_features == 1792
