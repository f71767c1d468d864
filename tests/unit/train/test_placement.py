from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn

from billhook.train.placement import as_channels_last, channels_last, device_of, mode_kept, placed, to_device
from tests.unit.train.tiny import tiny_net


def test_every_layer_gets_its_own_mode_back() -> None:
    model = tiny_net()
    model[1].eval()
    with contextlib.suppress(KeyboardInterrupt), mode_kept(model, None):
        model.eval()
        raise KeyboardInterrupt
    assert [m.training for m in model] == [True, False, *[True] * 6]


@pytest.mark.parametrize("channels", [1, 2])
def test_convolutions_become_channels_last_for_a_while(channels: int) -> None:
    model = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.Conv2d(4, 4, 1), nn.ConvTranspose2d(4, 2, 2))
    strides = [layer.weight.stride() for layer in model]
    with channels_last(model):
        assert model[0].weight.stride() == (9 * channels, 1, 3 * channels, channels)
        # A stem with one channel in the wrong layout would drag the whole network along.
        output = model[0](as_channels_last(torch.zeros(2, channels, 5, 5)))
        assert output.is_contiguous(memory_format=torch.channels_last)
    assert [layer.weight.stride() for layer in model] == strides


def test_the_layout_that_the_user_chose_stays() -> None:
    model = tiny_net().to(memory_format=torch.channels_last)
    with channels_last(model):
        pass
    assert not model[4].weight.is_contiguous()
    plain = tiny_net()
    with channels_last(plain, enabled=False):
        assert plain[4].weight.is_contiguous()


def test_inputs_of_every_structure_are_laid_out() -> None:
    x, y = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3)
    laid = as_channels_last({"a": (x, y), "b": 5})
    assert laid["a"][0].is_contiguous(memory_format=torch.channels_last)
    assert (laid["a"][1], laid["b"]) == (y, 5)


class Moves(nn.Linear):
    """Writes down where it is sent."""

    journey: tuple[str, ...] = ()

    def to(self, device: torch.device) -> Moves:
        self.journey += (str(device),)
        return self


def test_a_model_goes_home_after_the_block() -> None:
    model = Moves(2, 2)
    with placed(model, torch.device("cpu")), placed(None, torch.device("cuda")):
        assert model.journey == ()
    with contextlib.suppress(KeyboardInterrupt), placed(model, torch.device("cuda")):
        raise KeyboardInterrupt
    assert model.journey == ("cuda", "cpu")


def test_devices_of_models_and_inputs() -> None:
    assert device_of(nn.ReLU()).type == "cpu"
    assert device_of(nn.Linear(1, 1, device="meta")).type == "meta"
    assert to_device([torch.zeros(1), "x"], torch.device("meta"))[0].device.type == "meta"
