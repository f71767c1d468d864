"""Pooling, resizing, padding, shifting, pixel shuffles."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.small_net import Case, Net, case, check, net

X1, X2, X3 = torch.randn(2, 3, 8), torch.randn(2, 3, 8, 8), torch.randn(2, 3, 4, 4, 4)


def images(run: object, left: int = 8, **more: object) -> Net:
    return net(lambda m, x: m.b(run(m.a(x))), a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(left, 2, 1), **more)  # type: ignore[operator]


def option_a(x: Tensor, y: Tensor) -> Tensor:
    return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)) + y


PER_PLANE = {
    "max pool": lambda x: F.max_pool2d(x, 2), "average pool": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "adaptive average": lambda x: F.adaptive_avg_pool2d(x, 2), "adaptive maximum": lambda x: F.adaptive_max_pool2d(x, 2),
    "adaptive to one": lambda x: F.adaptive_avg_pool2d(x, 1), "lp pool": lambda x: F.lp_pool2d(x.abs(), 2, 2),
    "max pool with indices": lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
    "nearest": lambda x: F.interpolate(x, scale_factor=2), "bilinear": lambda x: F.interpolate(x, (5, 5), mode="bilinear"),
    "bicubic": lambda x: F.interpolate(x, (5, 5), mode="bicubic"), "nearest exact": lambda x: F.interpolate(x, (5, 5), mode="nearest-exact"),
    "antialiased": lambda x: F.interpolate(x, (5, 5), mode="bilinear", antialias=True), "zero pad": lambda x: F.pad(x, (1, 2, 3, 0)),
    "reflection pad": lambda x: F.pad(x, (1, 1, 1, 1), "reflect"), "replication pad": lambda x: F.pad(x, (1, 1, 1, 1), "replicate"),
    "crop": lambda x: F.pad(x, (-1, -1, -2, 0)), "roll": lambda x: x.roll((1, 3), (2, 3)), "flip": lambda x: x.flip(3), "rot90": lambda x: x.rot90(1, (2, 3)),
    "grid sample": lambda x: F.grid_sample(x, F.affine_grid(torch.eye(2, 3)[None].repeat(2, 1, 1), [2, 1, 5, 5], False), align_corners=False),
    "unfold and fold": lambda x: F.fold(F.unfold(x, 3, padding=1), (8, 8), 3, padding=1),
    "dropout": lambda x: F.dropout(x, 0.5, False), "dropout 2d": lambda x: F.dropout2d(x, 0.5, False),
    "contiguous": lambda x: x.contiguous(memory_format=torch.channels_last).clone(), "to": lambda x: x.double().to(torch.float32),
}  # fmt: skip


@pytest.mark.parametrize("name", PER_PLANE)
def test_planes_stay_whole(name: str) -> None:
    check(case(lambda: images(PER_PLANE[name]), X2, a=8))


CASES: dict[str, Case] = {
    "pool 1d": case(lambda: net(lambda m, x: m.b(F.max_pool1d(m.a(x), 2)), a=nn.Conv1d(3, 8, 1), b=nn.Conv1d(8, 2, 1)), X1, a=8),
    "pool 3d": case(lambda: net(lambda m, x: m.b(F.avg_pool3d(m.a(x), 2)), a=nn.Conv3d(3, 8, 1), b=nn.Conv3d(8, 2, 1)), X3, a=8),
    "pixel shuffle": case(lambda: images(lambda x: F.pixel_shuffle(x, 2), 2), X2, a=2),
    "pixel unshuffle": case(lambda: images(lambda x: F.pixel_unshuffle(x, 2), 32), X2, a=8),
    "shuffle and back": case(lambda: images(lambda x: F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2), 8), X2, a=2),
    "channel shuffle": case(lambda: images(lambda x: F.channel_shuffle(x, 2)), X2, a=4),
    "unfold": case(lambda: images(lambda x: F.unfold(x, 2, stride=2).unflatten(2, (4, 4)), 32), X2, a=8),
    "a padded shortcut": case(
        lambda: net(lambda m, x: m.b(option_a(m.a(x), m.c(x))), a=nn.Conv2d(3, 8, 1), c=nn.Conv2d(3, 12, 1, 2), b=nn.Conv2d(12, 2, 1)), X2,
        a=8, **{"c[0...11]": 4},
    ),
    "channels are rolled": case(
        lambda: net(lambda m, x: m.b(m.a(m.f(x)).roll(1, 1)), f=nn.Conv2d(3, 6, 1), a=nn.Conv2d(6, 8, 1), b=nn.Conv2d(8, 2, 1)), X2,
        {"a": "roll moves indices along this dimension"}, f=6,
    ),
    "channels are pooled": case(
        lambda: net(lambda m, x: m.b(F.avg_pool1d(m.a(m.f(x)), 2)), f=nn.Linear(3, 6), a=nn.Linear(6, 8), b=nn.Linear(4, 2)),
        torch.randn(2, 5, 3), {"a": "avg_pool1d runs over this dimension"}, f=6,
    ),
    "channels are padded by copies": case(
        lambda: net(lambda m, x: m.b(F.pad(m.a(m.f(x)), (1, 1), "replicate")), f=nn.Linear(3, 6), a=nn.Linear(6, 8), b=nn.Linear(10, 2)),
        torch.randn(2, 5, 3), {"a": "padding copies channels"}, f=6,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_channels_are_moved_or_held(name: str) -> None:
    check(CASES[name])
