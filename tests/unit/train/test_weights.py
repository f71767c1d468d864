from __future__ import annotations

import contextlib

import pytest
import torch

from billhook.train.weights import all_finite, copy_of, shape_fingerprint, swapped, write
from tests.unit.train.tiny import assert_same_weights, tiny_net


def test_a_copy_is_independent_and_can_be_written_back() -> None:
    model = tiny_net()
    kept = copy_of(model)
    with torch.no_grad():
        model[0].weight.zero_()
        model[1].running_mean.fill_(3)
    write(model, kept)
    assert_same_weights(model, tiny_net())


def test_swapped_weights_go_back_even_after_an_error() -> None:
    model, other = tiny_net(0), tiny_net(1)
    with contextlib.suppress(KeyboardInterrupt), swapped(model, copy_of(other)):
        assert_same_weights(model, other)
        raise KeyboardInterrupt
    assert_same_weights(model, tiny_net(0))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["4.weight", "1.running_var"])
def test_not_finite_weights_and_buffers_are_noticed(name: str, value: float) -> None:
    model = tiny_net()
    assert all_finite(model)
    with torch.no_grad():
        model.state_dict()[name].view(-1)[0] = value
    assert not all_finite(model)


def test_the_fingerprint_depends_on_shapes_and_names_but_not_on_values() -> None:
    assert shape_fingerprint(tiny_net(0)) == shape_fingerprint(tiny_net(1))
    assert shape_fingerprint(tiny_net()) != shape_fingerprint(tiny_net()[:-1])
