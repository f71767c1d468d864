"""Every layer that reads a group is a matrix: its outputs are rows of its inputs times that."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from billhook.errors import InputError
from billhook.graph import capture
from billhook.train.reader_layers import ReaderLayer, find_readers
from tests.hand_made import group, member
from tests.networks import NETWORKS, build

LAYERS = {
    "plain": (nn.Conv2d(4, 6, 3), (2, 4, 7, 6)),
    "padding": (nn.Conv2d(4, 6, 3, padding=1), (2, 4, 7, 6)),
    "stride": (nn.Conv2d(4, 6, 3, stride=2, padding=1), (2, 4, 7, 6)),
    "dilation": (nn.Conv2d(4, 6, (3, 2), dilation=(2, 1), padding=(2, 0)), (2, 4, 7, 6)),
    "same": (nn.Conv2d(4, 6, 3, padding="same"), (2, 4, 7, 6)),
    "reflect": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (2, 4, 7, 6)),
    "groups": (nn.Conv2d(8, 6, 3, groups=2), (2, 8, 7, 6)),
    "no bias": (nn.Conv2d(4, 6, 1, bias=False), (2, 4, 7, 6)),
    "one dimension": (nn.Conv1d(4, 6, 3, stride=2, padding=1), (2, 4, 9)),
    "three dimensions": (nn.Conv3d(2, 3, 2), (2, 2, 4, 3, 3)),
    "one image": (nn.Conv2d(4, 6, 3), (4, 7, 6)),
    "transposed": (nn.ConvTranspose2d(4, 6, 2, stride=2), (2, 4, 3, 5)),
    "transposed, all options": (
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, dilation=2),
        (2, 4, 3, 5),
    ),
    "linear": (nn.Linear(5, 3), (4, 5)),
    "tokens": (nn.Linear(5, 3, bias=False), (4, 7, 5)),
    "one row": (nn.Linear(5, 3), (5,)),
}


def _layer(module: nn.Module) -> ReaderLayer:
    return ReaderLayer("weight", module, {})


def _flat(output: Tensor, module: nn.Module, blocks: int) -> Tensor:
    """Return the outputs as [blocks, positions, outputs]."""
    if not isinstance(module, nn.Linear):
        channel = output.dim() - 1 - len(module.kernel_size)  # type: ignore[arg-type]
        output = output.movedim(channel, -1)
    return output.reshape(-1, blocks, output.shape[-1] // blocks).transpose(0, 1)


@pytest.mark.parametrize("name", LAYERS)
def test_rows_times_the_matrix_are_the_outputs(name: str) -> None:
    module, shape = LAYERS[name]
    layer, x = _layer(module), torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        rows, stands_for = layer.rows(x, 1000, torch.Generator())
        expected = _flat(module(x), module, layer.blocks)
    torch.testing.assert_close(rows @ layer.matrix().mT, expected, rtol=1e-4, atol=1e-5)
    assert stands_for == 1


@pytest.mark.parametrize("name", LAYERS)
def test_a_matrix_can_be_written_back(name: str) -> None:
    module, _ = LAYERS[name]
    before = {key: t.clone() for key, t in module.state_dict().items()}
    layer = _layer(module)
    layer.assign_(2 * layer.matrix())
    assert all(torch.equal(t, 2 * before[key]) for key, t in module.state_dict().items())
    layer.assign_(layer.matrix() / 2)


def test_drawn_positions_stand_for_the_others() -> None:
    module, shape = LAYERS["stride"]
    x = torch.randn(shape)
    whole, _ = _layer(module).rows(x, 1000, torch.Generator())
    rows, stands_for = _layer(module).rows(x, 5, torch.Generator().manual_seed(0))
    assert rows.shape == (1, 2 * 5, whole.shape[2])
    assert stands_for == 4 * 3 / 5
    assert all((whole[0] == row).all(1).any() for row in rows[0])
    images = [(whole[0, :12] == row).all(1).any() for row in rows[0]]
    assert images == [True] * 5 + [False] * 5, "as many positions of every image"


def test_units_own_all_columns_they_are_read_through() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(12, 2))
    first, second = find_readers(
        network,
        [
            group("0", 2, member("0.weight", 0, "out", 2), member("1.weight", 1, "in", 2)),
            group("1", 3, member("1.weight", 0, "out", 3), member("3.weight", 1, "in", 3, 4)),
        ],
        method="x",
    )
    assert first.units["0"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert second.units["1"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


@pytest.mark.parametrize("name", NETWORKS)
def test_all_test_networks_can_be_read(name: str) -> None:
    model, inputs = build(name)
    groups = capture(model, inputs).groups.prunable
    layers = find_readers(model, groups, method="x")
    assert {g for layer in layers for g in layer.units} == {g.id for g in groups}


class Standardised(nn.Conv2d):
    """Reads with other weights than it holds."""

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.weight - self.weight.mean(), self.bias)


@pytest.mark.parametrize(
    ("last", "read", "reason"),
    [
        (Standardised(4, 2, 1), "1.weight", r"Standardised \(1.weight\) has a forward of its own"),
        (
            nn.ConvTranspose2d(4, 4, 1, groups=2),
            "1.weight",
            "1.weight belongs to a transposed convolution in groups",
        ),
        (nn.Embedding(4, 4), "1.weight", "1.weight is not the weight of a convolution or a linear layer"),
        (nn.Identity(), None, "no layer with weights reads it"),
    ],
)
def test_what_cannot_be_reconstructed_is_refused(last: nn.Module, read: str | None, reason: str) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 1), last)
    reading = [member(read, 1, "in", 4)] if read else []
    with pytest.raises(InputError, match=rf"method 'thinet' .* group '0': {reason}\. Exclude"):
        find_readers(network, [group("0", 4, member("0.weight", 0, "out", 4), *reading)], method="thinet")


def test_a_weight_of_two_layers_is_refused() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    network[1].weight = network[0].weight
    with pytest.raises(InputError, match="is the weight of several layers"):
        find_readers(network, [group("0", 4, member("0.weight", 1, "in", 4))], method="obs")
