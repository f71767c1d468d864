"""Which activations are seen, and that looking at them changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from billhook.criteria import Calibration, score
from billhook.criteria._activations import OfActivations
from billhook.errors import InputError
from billhook.graph import capture
from tests.hand_made import group, member
from tests.networks import batches, build


@dataclass(frozen=True)
class Mean(OfActivations):
    """Mean activation of a unit."""

    name: ClassVar[str] = "mean"

    def measure(self, values: Tensor) -> Tensor:
        return values.flatten(2).mean(2)


@dataclass(frozen=True)
class Change(Mean):
    """Mean over samples of the summed activation · gradient of a unit."""

    gradients: ClassVar[bool] = True

    def measure(self, values: Tensor) -> Tensor:
        return values.flatten(2).sum(2)

    def combine(self, readings: Sequence[Tensor]) -> Tensor:
        return torch.stack([r.sum(2).mean(0) for r in readings]).sum(0)


class Toy(nn.Module):
    """Two layers read what the first makes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        return self.b(x) + self.c(2 * x)


HIDDEN = group(
    "a", 4, member("a.weight", 0, "out", 4), member("b.weight", 1, "in", 4), member("c.weight", 1, "in", 4)
)


def _toy() -> Toy:
    torch.manual_seed(0)
    return Toy()


def _data(*sizes: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(n, 3, generator=generator), torch.randn(n, 2, generator=generator)) for n in sizes]


def _loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().sum(1).mean()


def test_readers_are_averaged_and_samples_count_alike_whatever_the_size_of_their_batch() -> None:
    model, data = _toy(), _data(5, 2)
    found = score(Mean(), model, [HIDDEN], calibration=Calibration(data))["a"]
    hidden = model.a(torch.cat([x for x, _ in data])).relu()
    torch.testing.assert_close(found, 1.5 * hidden.mean(0).detach())


def test_activation_times_gradient_is_the_derivative_with_respect_to_a_gate() -> None:
    model, data = _toy(), _data(5, 2)
    found = score(Change(), model, [HIDDEN], calibration=Calibration(data, _loss))["a"]
    gate = torch.ones(4, requires_grad=True)
    for inputs, targets in data:
        hidden = model.a(inputs).relu() * gate
        (len(inputs) / 7 * _loss(model.b(hidden) + model.c(2 * hidden), targets)).backward()
    torch.testing.assert_close(found, gate.grad)


@pytest.mark.parametrize("network", ["residual", "concat", "grouped", "flatten", "shuffle", "attention"])
def test_a_gate_on_the_weights_that_read_a_unit_has_the_same_derivative(network: str) -> None:
    model, inputs = build(network)
    prunable = capture(model, inputs).groups.prunable
    data = batches(network, count=1)
    found = score(Change(), model, prunable, calibration=Calibration(data))
    nn.functional.cross_entropy(model(data[0][0]), data[0][1]).backward()
    weights = dict(model.named_parameters())
    for g in prunable:
        expected = torch.zeros(g.size)
        for m in g.members:
            if m.role == "in":
                product = (weights[m.tensor] * weights[m.tensor].grad).detach().movedim(m.axis, 0)
                expected += product[torch.tensor(m.index)].flatten(1).sum(1)
        torch.testing.assert_close(found[g.id], expected, rtol=1e-3, atol=1e-5)


def test_windows_of_a_sample_belong_to_it() -> None:
    class Windows(Toy):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.reshape(-1, 3)).reshape(len(x), -1, 2).sum(1)

    model = Windows()
    data = [(torch.randn(3, 4, 3), torch.randn(3, 2))]
    found = score(Change(), model, [HIDDEN], calibration=Calibration(data, _loss))["a"]
    gate = torch.ones(4, requires_grad=True)
    hidden = model.a(data[0][0]).relu() * gate
    _loss((model.b(hidden) + model.c(2 * hidden)).sum(1), data[0][1]).backward()
    torch.testing.assert_close(found, gate.grad)


def test_rows_that_are_no_samples_are_refused() -> None:
    class Halved(Toy):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x[1:])

    with pytest.raises(InputError, match="layer 'b' sees 4 rows of a batch of 5 samples"):
        score(Change(), Halved(), [HIDDEN], calibration=Calibration(_data(5), lambda y, t: y.square().sum()))


def test_an_activation_that_is_overwritten_later_is_seen_as_it_was() -> None:
    class InPlace(Toy):
        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x).relu()
            return self.b(x) + self.c(x.mul_(2))

    model, data = _toy(), _data(4)
    twin = InPlace()
    twin.load_state_dict(model.state_dict())
    expected = score(Change(), model, [HIDDEN], calibration=Calibration(data, _loss))["a"]
    assert torch.equal(score(Change(), twin, [HIDDEN], calibration=Calibration(data, _loss))["a"], expected)


def test_a_layer_that_is_called_twice_is_two_readers() -> None:
    class Twice(Toy):
        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x).relu()
            return self.b(x) + self.b(input=3 * x)

    model, data = Twice(), _data(4)
    found = score(Mean(), model, [HIDDEN], calibration=Calibration(data))["a"]
    torch.testing.assert_close(found, 2 * model.a(data[0][0]).relu().mean(0).detach())


def test_inputs_may_be_a_dict_and_batches_differ_from_the_example() -> None:
    data: list[Any] = [({"x": inputs}, targets) for inputs, targets in _data(6, 1)]
    found = score(Mean(), _toy(), [HIDDEN], calibration=Calibration(data))["a"]
    assert torch.equal(found, score(Mean(), _toy(), [HIDDEN], calibration=Calibration(_data(6, 1)))["a"])


def test_no_more_batches_are_used_than_asked() -> None:
    few = score(Mean(batches=1), _toy(), [HIDDEN], calibration=Calibration(_data(5, 2)))["a"]
    assert torch.equal(few, score(Mean(), _toy(), [HIDDEN], calibration=Calibration(_data(5)))["a"])


def test_a_group_that_nobody_reads_is_named() -> None:
    lonely = group("a", 4, member("a.weight", 0, "out", 4))
    with pytest.raises(InputError, match="group 'a': no convolution or linear layer reads it"):
        score(Mean(), _toy(), [lonely], calibration=Calibration(_data(2)))


def test_a_weight_that_is_used_without_its_layer_is_seen() -> None:
    class Functional(Toy):
        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x).relu()
            return nn.functional.linear(x, self.b.weight) + nn.functional.linear(
                input=2 * x, weight=self.c.weight
            )

    model, twin = _toy(), Functional()
    twin.load_state_dict(model.state_dict())
    expected = score(Mean(), model, [HIDDEN], calibration=Calibration(_data(5)))["a"]
    assert torch.equal(score(Mean(), twin, [HIDDEN], calibration=Calibration(_data(5)))["a"], expected)


def test_layers_that_nobody_uses_are_named() -> None:
    class Unused(Toy):
        def forward(self, x: Tensor) -> Tensor:
            return self.a(x).relu() @ self.b.weight.T

    with pytest.raises(
        InputError, match="nothing was seen of group 'a': the model does not use layer 'b', 'c'"
    ):
        score(Mean(), Unused(), [HIDDEN], calibration=Calibration(_data(2)))


@pytest.mark.parametrize("criterion", [Mean(), Change()])
def test_the_model_is_as_before_even_if_the_data_fails(criterion: OfActivations) -> None:
    model = _toy().train()
    with pytest.raises(InputError, match="batch 1 is a int"):
        score(criterion, model, [HIDDEN], calibration=Calibration([*_data(2), 3], _loss))
    with pytest.raises(RuntimeError, match="shapes"):
        score(criterion, model, [HIDDEN], calibration=Calibration([(torch.ones(2, 7), torch.ones(2))]))
    assert all(m.training for m in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_data_is_asked_for_by_name() -> None:
    with pytest.raises(InputError, match="criterion 'mean' learns from data; give data="):
        score(Mean(), _toy(), [HIDDEN])
