from __future__ import annotations

import torch
from torch import nn

from billhook.models import build


def test_parameters_follow_the_formula() -> None:
    growth, stem = 5, 7
    count, width = 3 * stem * 9, stem
    for block in range(3):
        for _ in range(12):
            count += 2 * width + 9 * width * growth
            width += growth
        if block < 2:
            count += 2 * width + width * width
    count += 2 * width + 10 * width + 10

    model = build("densenet-40", growth=growth, stem=stem)

    assert sum(p.numel() for p in model.parameters()) == count


def test_it_has_forty_layers() -> None:
    layers = [m for m in build("densenet-40", growth=1).modules() if isinstance(m, nn.Conv2d | nn.Linear)]

    assert len(layers) == 40


def test_each_layer_appends_to_its_input() -> None:
    model = build("densenet-40", growth=2, stem=3).eval()
    x = torch.randn(1, 3, 8, 8)

    stem, layer = model.features[0], model.features[1]

    assert layer(stem(x))[:, :3].equal(stem(x))
    assert layer(stem(x)).shape[1] == 5
