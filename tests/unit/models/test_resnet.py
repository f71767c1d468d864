from __future__ import annotations

import pytest
import torch
from torch import nn

from billhook.models import build
from billhook.models._resnet import PaddedShortcut, cifar_resnet


def test_option_b_has_convolutions_as_shortcuts() -> None:
    def parameters(name: str) -> int:
        return sum(p.numel() for p in build(name, shortcut="B").parameters())

    added = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert parameters("resnet-20") == 269_722 + added == 272_474
    assert parameters("resnet-56") == 853_018 + added == 855_770


@pytest.mark.parametrize("depth", [8, 20, 32, 44, 56, 110])
def test_the_depth_counts_convolutions_and_the_classifier(depth: int) -> None:
    with torch.device("meta"):
        model = cifar_resnet(depth, width=2)

    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules()) == depth


def test_other_depths_do_not_exist() -> None:
    with pytest.raises(Exception, match="6n \\+ 2"):
        cifar_resnet(18)


def test_a_padded_shortcut_takes_every_second_pixel_and_adds_zeros() -> None:
    x = torch.randn(2, 3, 5, 6)

    out = PaddedShortcut(padding=2, stride=2)(x)

    assert out.shape == (2, 5, 3, 3)
    assert out[:, :3].equal(x[:, :, ::2, ::2])
    assert not out[:, 3:].any()


def test_a_padded_shortcut_follows_its_attribute() -> None:
    shortcut = PaddedShortcut(8, 2)
    shortcut.padding = 1

    assert shortcut(torch.ones(1, 2, 4, 4)).shape == (1, 3, 2, 2)


def test_the_width_can_differ_per_stage() -> None:
    model = build("resnet-8", channels=[4, 7, 9])

    assert model(torch.zeros(1, 3, 8, 8)).shape == (1, 10)
    assert model.classifier.in_features == 9


def test_a_stride_in_the_stem_halves_every_image() -> None:
    sizes: list[int] = []
    model = build("resnet-8", width=2, stem_stride=2)
    model.stages.register_forward_hook(lambda module, inputs, output: sizes.append(output.shape[-1]))

    model(torch.zeros(1, 3, 32, 32))

    assert sizes == [4]
