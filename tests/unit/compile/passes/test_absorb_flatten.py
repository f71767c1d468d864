"""Linear layers read planes where they lie."""

from __future__ import annotations

import torch
from torch import nn

from billhook.compile.lower import lower
from billhook.compile.passes.absorb_flatten import absorb_flatten
from tests.unit.compile.exactness import Function, assert_equal, image, kinds


def test_a_linear_layer_reads_the_planes_themselves() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 5, 3))
    network = absorb_flatten(lower(model, image()))
    assert "flatten" not in kinds(network)
    assert_equal(network, model, image())


def test_others_still_get_the_vector() -> None:
    model = Function(lambda layer, x: (layer(x.flatten(1)), x.flatten(1)[:, :7] + 1), nn.Linear(120, 3))
    network = absorb_flatten(lower(model, image()))
    assert kinds(network).count("flatten") == 1
    assert_equal(network, model, image())


def test_activated_vectors_stay() -> None:
    model = Function(lambda layer, x: layer(torch.relu(x.flatten(1))), nn.Linear(120, 3))
    assert_equal(absorb_flatten(lower(model, image())), model, image())
