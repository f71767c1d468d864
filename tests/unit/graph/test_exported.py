"""`ExportedNetwork`: the fallback behaves like a module: other batch sizes, training, state, devices."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from billhook.errors import ApplyError
from billhook.graph import ExportedNetwork, capture
from billhook.graph.slicing import named_tensors
from tests.oracle import prune_half, randomize


class Fixed(nn.Module):
    """Slices by number, batch norm, dropout, a table made in forward; the output is a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.mix, self.drop, self.fc = nn.Conv2d(8, 8, 1), nn.Dropout(0.5), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.bn(self.conv(x)).relu()
        x = self.mix(x[:, :8] * x[:, 4:]) + torch.linspace(0, 1, x.shape[-1])
        return {"y": self.fc(self.drop(x.mean((2, 3))))}


@pytest.fixture(scope="module")
def small() -> ExportedNetwork:
    network = prune_half(randomize(Fixed()).eval(), torch.randn(2, 3, 8, 8)).small
    assert isinstance(network, ExportedNetwork)
    return network


def test_it_takes_batches_of_other_sizes(small: ExportedNetwork) -> None:
    x = torch.randn(5, 3, 8, 8)
    together = small(x)["y"]
    assert together.shape == (5, 4)
    torch.testing.assert_close(torch.cat([small(one[None])["y"] for one in x]), together)


def test_arguments_in_any_form_leave_the_batch_free() -> None:
    class Forms(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 8), nn.Linear(4, 2)

        def forward(self, x: Tensor, *more: Tensor, scale: Tensor | None = None, **rest: Tensor) -> Tensor:
            x = self.a(sum(more, x))
            return self.b(x[:, :4] * x[:, 4:]) * (1 if scale is None else scale)

    one, five = torch.ones(1, 3), torch.ones(5, 3)
    for given, larger in (
        ((one, one), (five, five)),
        ({"x": one, "scale": one[:, :1]}, {"x": five, "scale": five[:, :1]}),
        ({"x": one, "other": one}, {"x": five, "other": five}),
    ):
        small = prune_half(randomize(Forms()), given).small
        got = small(**larger) if isinstance(larger, dict) else small(*larger)
        assert got.shape == (5, 2)


def test_training_updates_batch_norm_and_drops(small: ExportedNetwork) -> None:
    network = copy.deepcopy(small).train()
    x = torch.randn(4, 3, 8, 8) + 2
    before = network.get_buffer("bn.running_mean").clone()
    first, second = network(x)["y"], network(x)["y"]
    assert not torch.equal(first, second), "dropout is active"
    assert not torch.equal(network.get_buffer("bn.running_mean"), before)
    network.eval()
    before = network.get_buffer("bn.running_mean").clone()
    assert torch.equal(network(x)["y"], network(x)["y"])
    assert torch.equal(network.get_buffer("bn.running_mean"), before)


def test_batch_norm_in_training_is_that_of_torch() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn, self.fc = nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.bn(self.conv(x))
            return self.fc(x[:, :8] * x[:, 4:])

    model = randomize(Normed()).train()
    x = torch.randn(4, 3, 6, 6)
    graph = capture(model, x)
    whole = ExportedNetwork(graph.program, {n: t.detach().clone() for n, t in named_tensors(model)}).train()
    torch.testing.assert_close(whole(x), model(x))
    torch.testing.assert_close(whole.get_buffer("bn.running_mean"), model.bn.running_mean)
    torch.testing.assert_close(whole.get_buffer("bn.running_var"), model.bn.running_var)


def test_it_learns(small: ExportedNetwork) -> None:
    torch.manual_seed(0)
    network = copy.deepcopy(small).train()
    x, y = torch.randn(8, 3, 8, 8), torch.arange(8) % 4
    optimizer = torch.optim.Adam(network.parameters(), 0.003)
    losses = []
    for _ in range(60):
        loss = nn.functional.cross_entropy(network(x)["y"], y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < sum(losses[:10])
    assert all(p.grad is not None for p in network.parameters())


def test_names_are_those_of_the_original(small: ExportedNetwork) -> None:
    original = Fixed().state_dict()
    assert set(small.state_dict()) == set(original)
    assert {n for n, _ in small.named_parameters()} == {n for n, _ in Fixed().named_parameters()}


def test_its_state_can_be_loaded(small: ExportedNetwork) -> None:
    other = copy.deepcopy(small)
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    other.load_state_dict(small.state_dict())
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(other(x)["y"], small(x)["y"])


def test_a_copy_is_independent(small: ExportedNetwork) -> None:
    other = copy.deepcopy(small)
    x = torch.randn(2, 3, 8, 8)
    before = small(x)["y"]
    with torch.no_grad():
        other.get_parameter("fc.weight").zero_()
    assert torch.equal(small(x)["y"], before)


def test_it_moves_with_its_constants(small: ExportedNetwork) -> None:
    moved = copy.deepcopy(small).to("meta")
    assert {t.device.type for t in [*moved.parameters(), *moved.buffers()]} == {"meta"}


def test_it_can_be_captured_and_pruned_again(small: ExportedNetwork) -> None:
    again = prune_half(copy.deepcopy(small).eval(), torch.randn(2, 3, 8, 8)).small
    assert sum(p.numel() for p in again.parameters()) < sum(p.numel() for p in small.parameters())


def test_inputs_of_another_structure_are_refused(small: ExportedNetwork) -> None:
    with pytest.raises(ApplyError, match="takes inputs structured like"):
        small(torch.zeros(1, 3, 8, 8), torch.zeros(1))
