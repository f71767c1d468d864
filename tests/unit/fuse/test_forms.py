"""What takes the place of copies computes what they do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

from billhook.fuse import ChannelCopy
from billhook.fuse._forms import (
    FORMS,
    Form,
    block_of_copy,
    compose,
    is_copy,
    is_identity,
    is_plain,
    lower_copy,
    matrix,
    picked_by,
)
from billhook.graph.fusions import as_layers, tidy
from billhook.graph.inputs import as_call
from billhook.graph.layers import LayeredNetwork, observe
from tests.fused import distance, operators
from tests.small_net import net

X = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))


def block(numbers: list[int], gate: list[float] | None = None, kernel: int = 3) -> LayeredNetwork:
    """Return a network with one convolution and a shortcut of copies around it."""
    copies = ChannelCopy(torch.tensor(numbers), torch.tensor(gate or [1.0] * 4))
    conv = nn.Conv2d(4, len(numbers), kernel, padding=kernel // 2)
    parts = nn.ModuleDict({"conv": conv, "copies": copies})
    model = net(lambda m, x: (m.block.conv(x.relu()) + m.block.copies(x)).relu(), block=parts)
    network = as_layers(model, as_call(X))
    observe(network, as_call(X))
    return network


def copies_of(network: LayeredNetwork) -> list[fx.Node]:
    return [n for n in network.graph.nodes if is_copy(network, n)]


def lowered(network: LayeredNetwork, form: Form) -> LayeredNetwork:
    for node in copies_of(network):
        lower_copy(network, node, form)
    tidy(network)
    network.graph.lint()
    return network


NUMBERS = {
    "all": [0, 1, 2, 3],
    "none": [-1, -1, -1],
    "some": [2, -1, 0],
    "one": [-1, 3, -1, -1, -1],
    "padded": [-1, 0, 1, 2, 3, -1, -1],
    "order": [3, 2, 1, 0],
    "twice": [1, 1, 1, 2],
    "first": [0, 1],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("numbers", NUMBERS.values(), ids=NUMBERS)
@pytest.mark.parametrize("gate", [None, [1.0, 0.5, 2.0, 0.0]], ids=["", "gated"])
def test_every_form_is_the_same(form: Form, numbers: list[int], gate: list[float] | None) -> None:
    network = block(numbers, gate)
    expected = [network(x) for x in (X, X[:1])]
    lowered(network, form)
    assert not copies_of(network)
    for x, y in zip((X, X[:1]), expected, strict=True):
        torch.testing.assert_close(network(x), y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("numbers", "form", "expected"),
    [
        ([0, 1, 2, 3], "pointwise", ["relu", "Conv2d", "add", "relu"]),
        ([-1, -1], "pointwise", ["relu", "Conv2d", "relu"]),
        ([2, -1, 0], "pointwise", ["relu", "Conv2d", "Conv2d", "add", "relu"]),
        ([2, -1, 0], "gather", ["relu", "Conv2d", "pad", "index_select", "add", "relu"]),
        ([2, 0], "gather", ["relu", "Conv2d", "index_select", "add", "relu"]),
        ([2, -1, 0], "concat", ["relu", "cat", "Conv2d", "relu"]),
        ([-1, 3, -1], "concat", ["relu", "index_select", "cat", "Conv2d", "relu"]),
        ([-1, 0, 1, 2, 3, -1], "sum", ["relu", "Conv2d", "pad", "add", "relu"]),
        ([3, 2, 1, 0], "sum", ["relu", "Conv2d", "Conv2d", "add", "relu"]),
    ],
)
def test_each_form_has_its_operators(numbers: list[int], form: Form, expected: list[str]) -> None:
    assert sorted(operators(lowered(block(numbers), form))) == sorted(expected)


def test_factors_need_a_convolution() -> None:
    network = lowered(block([2, -1, 0], [0.5, 1, 1, 1]), "gather")
    layer = network.get_submodule("block.shortcut")
    assert isinstance(layer, nn.Conv2d)
    assert layer.weight[:, :, 0, 0].tolist() == [[0, 0, 1, 0], [0, 0, 0, 0], [0.5, 0, 0, 0]]
    assert not layer.weight.requires_grad


@pytest.mark.parametrize("strides", [(2, 2), (1, 2), (3, 1)])
@pytest.mark.parametrize("form", FORMS)
def test_strides_go_into_the_convolution(strides: tuple[int, int], form: Form) -> None:
    down, across = strides
    model = net(
        lambda m, x: m.conv(x) + m.block.copies(x[:, :, ::down, ::across]),
        conv=nn.Conv2d(4, 3, 3, strides, 1),
        block=nn.ModuleDict({"copies": ChannelCopy(torch.tensor([2, -1, 1]), torch.ones(4))}),
    )  # fmt: skip
    network = as_layers(model, as_call(X))
    observe(network, as_call(X))
    lowered(network, form)
    torch.testing.assert_close(network(X[:1]), model(X[:1]))
    if form == "pointwise":
        assert "slice" not in operators(network)
        assert network.get_submodule("block.shortcut").stride == strides


def test_other_slices_stay() -> None:
    model = net(
        lambda m, x: m.conv(x) + m.block.copies(x[:, :, 1::2, 1::2]), conv=nn.Conv2d(4, 3, 3, 2, 1),
        block=nn.ModuleDict({"copies": ChannelCopy(torch.tensor([2, -1, 1]), torch.ones(4))}),
    )  # fmt: skip
    network = as_layers(model, as_call(X))
    observe(network, as_call(X))
    torch.testing.assert_close(lowered(network, "pointwise")(X), model(X))
    assert "slice" in operators(network)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gate", [[1.0] * 4, [2.0, 1, 1, 0]])
def test_a_convolution_that_reads_copies_reads_the_channels(form: Form, gate: list[float]) -> None:
    copies = ChannelCopy(torch.tensor([3, -1, 0]), torch.tensor(gate))
    model = net(
        lambda m, x: m.conv(x) + m.project(m.block.copies(x)), conv=nn.Conv2d(4, 3, 3, padding=1),
        project=nn.Conv2d(3, 3, 1), block=nn.ModuleDict({"copies": copies}),
    )  # fmt: skip
    network = as_layers(model, as_call(X))
    observe(network, as_call(X))
    lowered(network, form)
    torch.testing.assert_close(network(X), model(X))
    if form != "gather":
        assert network.get_submodule("project").in_channels == 4


def test_a_convolution_that_is_called_twice_is_not_widened_for_one_call() -> None:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        copied = m.block.copies(x)
        return m.conv(copied) + m.conv(m.other(x))

    model = net(
        run, conv=nn.Conv2d(3, 3, 1), other=nn.Conv2d(4, 3, 1),
        block=nn.ModuleDict({"copies": ChannelCopy(torch.tensor([3, -1, 0]), torch.ones(4))}),
    )  # fmt: skip
    network = as_layers(model, as_call(X))
    observe(network, as_call(X))
    torch.testing.assert_close(lowered(network, "pointwise")(X), model(X))


def test_the_sum_with_a_convolution_that_is_called_twice_stays() -> None:
    model = net(
        lambda m, x: m.conv((m.conv(x) + m.block.copies(x)).relu()), conv=nn.Conv2d(4, 4, 3, padding=1),
        block=nn.ModuleDict({"copies": ChannelCopy(torch.tensor([3, -1, 0, 0]), torch.ones(4))}),
    )  # fmt: skip
    network = as_layers(model, as_call(X))
    observe(network, as_call(X))
    torch.testing.assert_close(lowered(network, "concat")(X), model(X))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("form", FORMS)
def test_images_of_every_rank(rank: int, form: Form) -> None:
    convolution = getattr(nn, f"Conv{rank}d")
    model = net(
        lambda m, x: m.conv(x) + m.block.copies(x), conv=convolution(4, 3, 3, padding=1),
        block=nn.ModuleDict({"copies": ChannelCopy(torch.tensor([3, -1, 0]), torch.ones(4))}),
    )  # fmt: skip
    x = torch.randn(2, 4, *[5] * rank)
    network = as_layers(model, as_call(x))
    observe(network, as_call(x))
    torch.testing.assert_close(lowered(network, form)(x), model(x))


def test_copies_of_copies_become_one() -> None:
    first = ChannelCopy(torch.tensor([3, -1, 0]), torch.tensor([1.0, 1, 1, 2]))
    second = ChannelCopy(torch.tensor([-1, 2, 1, 0]), torch.tensor([3.0, 1, 5]))
    model = net(
        lambda m, x: m.conv(x) + m.b.place(m.b.copies(x)), conv=nn.Conv2d(4, 4, 1),
        b=nn.ModuleDict({"copies": first, "place": second}),
    )  # fmt: skip
    network = as_layers(model, as_call(X))
    observe(network, as_call(X))
    compose(network)
    (node,) = copies_of(network)
    assert block_of_copy(node) == "b"
    numbers, picked = picked_by(network, node)
    assert numbers.tolist() == [-1, 0, -1, 3]
    assert picked[3].tolist() == [0, 0, 0, 6]
    assert distance(model, network, X) <= 1e-6


def test_what_is_all_channels_in_their_order() -> None:
    def asked(numbers: list[int], gate: float = 1.0) -> tuple[bool, bool]:
        tensor = torch.tensor(numbers)
        picked = matrix(tensor, 3) * gate
        return is_identity(tensor, picked), is_plain(tensor, picked)

    assert asked([0, 1, 2]) == (True, True)
    assert asked([-1, 0, 1, 2]) == (False, True)
    assert asked([0, 1, 2, -1, -1]) == (False, True)
    assert asked([-1, -1]) == (True, True)
    assert asked([0, 2, 1]) == (False, False)
    assert asked([0, 1]) == (False, False)
    assert asked([0, -1, 1, 2]) == (False, False)
    assert asked([0, 1, 2], 0.5) == (False, False)
    assert asked([-1, -1, -1]) == (True, True)
