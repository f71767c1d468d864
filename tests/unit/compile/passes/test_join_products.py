"""A product takes over the product that is added to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from billhook.compile import reference
from billhook.compile.ir import Network
from billhook.compile.lower import lower
from billhook.compile.passes import run_passes
from billhook.compile.passes.as_products import as_products
from billhook.compile.passes.join_products import join_products
from tests.unit.compile.exactness import Function, assert_equal, image, kinds


def joined(function: Callable[..., Any], *layers: nn.Module) -> Network:
    """Return the network after the pass, which must compute the same to 1e-10."""
    with torch.no_grad():
        for layer in layers:
            for tensor in layer.parameters():
                tensor.copy_((tensor * 64).round() / 64)  # so that float32 rounds nothing
    model = Function(function, *layers)
    before = as_products(run_passes(lower(model, image(8))))
    network = join_products(before)
    assert_equal(network, model, image(8))
    x = [image(8).double().numpy()]
    for a, b in zip(reference.run(before, x), reference.run(network, x), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)
    return network


def conv(size: int = 1, **options: Any) -> nn.Conv2d:
    """Return a convolution of 8 channels."""
    return nn.Conv2d(8, 8, size, padding=size // 2, **options)


ONE: dict[str, tuple[Callable[..., Any], list[nn.Module]]] = {
    "a shortcut": (lambda a, b, c, x: (a(b(x).relu()) + c(x)).relu(), [conv(), conv(3), conv()]),
    "other windows": (lambda a, b, c, x: a(b(x).relu()) + c(x), [conv(3), conv(), conv(5)]),
    "strides": (lambda a, b, c, x: a(b(x).relu()) + c(x), [conv(), conv(3, stride=2), conv(stride=2)]),
    "groups": (lambda a, b, c, x: a(b(x).relu()) + c(x), [conv(groups=2), conv(), conv(3, groups=2)]),
}


@pytest.mark.parametrize("name", ONE)
def test_a_shortcut_is_part_of_the_last_product(name: str) -> None:
    function, layers = ONE[name]
    assert kinds(joined(function, *layers)).count("product") == 2


def test_what_is_added_to_both_is_added_to_the_one() -> None:
    network = joined(lambda a, b, c, x: a(b(x).relu()) + (c(x.tanh()) + x), conv(), conv(3), conv())
    assert kinds(network).count("product") == 2
    assert len(network.ops[-1].inputs) == 2


STAY: dict[str, tuple[Callable[..., Any], list[nn.Module]]] = {
    "activation": (lambda a, b, c, x: a(b(x).relu()) + c(x).relu(), [conv(), conv(3), conv()]),
    "read twice": (lambda a, b, c, x: a(b(x).relu()) + (y := c(x)) + y.tanh(), [conv(), conv(3), conv()]),
    "other groups": (lambda a, b, c, x: a(b(x).relu()) + c(x), [conv(), conv(3), conv(groups=2)]),
}


@pytest.mark.parametrize("name", STAY)
def test_other_sums_stay(name: str) -> None:
    function, layers = STAY[name]
    assert kinds(joined(function, *layers)).count("product") == 3


def test_what_would_be_more_work_stays() -> None:
    """Rows that one of them leaves out would share blocks with rows of the other."""
    layers = conv(), conv(3), conv()
    with torch.no_grad():
        layers[0].weight[1::2] = 0
        layers[2].weight[::2] = 0
    network = joined(lambda a, b, c, x: a(b(x).relu()) + c(x), *layers)
    assert kinds(network).count("product") == 3
