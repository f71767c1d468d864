"""A captured network as plain layers: the same function in both modes, under the user's own names."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from billhook import models
from billhook.fuse import ChannelCopy, ChannelSelection
from billhook.graph import ExampleInputs, capture
from billhook.graph.capture import eval_mode
from billhook.graph.fusions import as_layers
from billhook.graph.inputs import as_call
from billhook.graph.layers import LayeredNetwork
from billhook.train import recalibrate_batchnorm
from tests.networks import NETWORKS, build
from tests.oracle import outputs, randomize
from tests.small_net import net

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
ZOO: dict[str, Callable[[], nn.Module]] = {
    "resnet-20": lambda: models.build("resnet-20", width=4, num_classes=5),
    "densenet-40": lambda: models.build("densenet-40", num_classes=5),
    "mobilenet-v2": lambda: models.build("mobilenet-v2", width=0.25, num_classes=5),
}


def layers(model: nn.Module, inputs: ExampleInputs) -> LayeredNetwork:
    return as_layers(model, as_call(inputs))


def any_network(name: str) -> nn.Module:
    return ZOO[name]().eval() if name in ZOO else build(name)[0]


def assert_same(model: nn.Module, network: nn.Module, *batches: ExampleInputs) -> None:
    """Assert equal results in eval mode and in train mode, and equal statistics after that."""
    for inputs in batches:
        expected = outputs(model, inputs)
        torch.testing.assert_close(outputs(network, inputs), expected, rtol=1e-5, atol=1e-5)
    for inputs in batches:
        args, kwargs = as_call(inputs)
        made = []
        for one in (model.train(), network.train()):
            torch.manual_seed(0)
            made.append(one(*args, **kwargs))
        torch.testing.assert_close(made[1], made[0], rtol=1e-4, atol=1e-4)
    state = network.state_dict()
    for key, value in model.state_dict().items():
        torch.testing.assert_close(state[key], value, rtol=1e-4, atol=1e-5, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize("name", [*NETWORKS, *ZOO])
def test_it_computes_and_trains_like_the_original(name: str) -> None:
    model = any_network(name)
    network = layers(model, X[:2])
    assert {n for n, _ in network.named_parameters()} == {n for n, _ in model.named_parameters()}
    assert network.state_dict().keys() == model.state_dict().keys()
    assert_same(copy.deepcopy(model), network, X[:2], X)
    assert not any(network.state_dict()[k].data_ptr() == t.data_ptr() for k, t in model.state_dict().items())


@pytest.mark.parametrize("name", [*NETWORKS, "resnet-20", "mobilenet-v2"])
def test_captured_again_it_has_the_same_groups_and_costs(name: str) -> None:
    model = any_network(name)
    before, after = capture(model, X[:2]), capture(layers(model, X[:2]), X[:2])
    assert [g.id for g in after.groups] == [g.id for g in before.groups]
    assert [g.size for g in after.groups] == [g.size for g in before.groups]
    assert after.fingerprint == before.fingerprint
    assert after.costs.cost() == before.costs.cost()
    assert [b.groups for b in after.branches] == [b.groups for b in before.branches]


def test_layers_are_those_of_torch_under_the_names_of_the_user() -> None:
    network = layers(build("depthwise_squeeze")[0], X)
    depth = network.get_submodule("depth")
    assert isinstance(depth, nn.Conv2d)
    assert (depth.groups, depth.padding, depth.bias) == (32, (1, 1), None)
    assert isinstance(network.get_submodule("bn2"), nn.BatchNorm2d)
    assert isinstance(network.get_submodule("head"), nn.Linear)
    targets = [n.target for n in network.graph.nodes if n.op == "call_module"]
    assert targets[:3] == ["stem", "expand", "bn1"]
    assert not [n for n in network.graph.nodes if n.op == "get_attr"]


def test_the_gradients_are_the_same() -> None:
    model, _ = build("residual")
    network = layers(model, X)
    for one in (model, network):
        one.train()(X).square().mean().backward()
    expected = {n: p.grad for n, p in model.named_parameters()}
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6)


def test_frozen_parameters_stay_frozen() -> None:
    model, _ = build("plain")
    model.conv1.requires_grad_(False)
    network = layers(model, X)
    assert not network.get_parameter("conv1.weight").requires_grad
    assert network.get_parameter("conv2.weight").requires_grad


def test_modes_are_kept() -> None:
    model, _ = build("plain")
    model.train()
    model.bn1.eval()
    network = layers(model, X)
    assert network.training
    assert not network.get_submodule("bn1").training
    assert network.get_submodule("bn2").training
    assert not copy.deepcopy(network).get_submodule("bn1").training
    network(X)
    assert torch.equal(network.get_buffer("bn1.running_mean"), model.bn1.running_mean)
    assert not torch.equal(network.get_buffer("bn2.running_mean"), model.bn2.running_mean)


# Layers that are used in unusual ways


def test_a_layer_that_is_called_twice_is_one_layer() -> None:
    model = net(
        lambda m, x: m.norm(m.conv(m.norm(m.conv(m.stem(x))).relu())),
        stem=nn.Conv2d(3, 6, 1), conv=nn.Conv2d(6, 6, 3, padding=1), norm=nn.BatchNorm2d(6),
    )  # fmt: skip
    network = layers(model, X)
    calls = [n.target for n in network.graph.nodes if n.op == "call_module"]
    assert calls == ["stem", "conv", "norm", "conv", "norm"]
    assert_same(model, network, X)
    assert network.get_buffer("norm.num_batches_tracked") == 2


def test_tied_weights_stay_tied() -> None:
    model = net(
        lambda m, x: m.b(m.a(x).relu()), a=nn.Conv2d(3, 3, 3, padding=1), b=nn.Conv2d(3, 3, 3, padding=1)
    )
    model.b.weight = model.a.weight
    network = layers(model, X)
    assert len(list(network.parameters())) == len(list(model.parameters())) == 3
    torch.testing.assert_close(network(X), model(X))
    copied = copy.deepcopy(network)
    assert len(list(copied.parameters())) == 3
    assert [g.id for g in capture(network, X).groups] == [g.id for g in capture(model, X).groups]


def test_one_weight_used_in_two_ways_is_no_layer() -> None:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        return m.conv(x) + F.conv2d(x, m.conv.weight, m.conv.bias, padding=2, dilation=2)

    network = layers(model := net(run, conv=nn.Conv2d(3, 6, 3, padding=1)), X)
    assert not [n for n in network.graph.nodes if n.op == "call_module"]
    assert_same(model, network, X)


def functional(m: nn.Module, x: Tensor) -> Tensor:
    x = F.conv2d(x, m.kernel, m.shift, stride=2, padding=1)
    x = F.batch_norm(x, m.mean, m.var, m.scale, m.shift, m.training, 0.2, 1e-3)
    return F.linear(F.dropout(x, 0.3, m.training).mean((2, 3)), m.matrix)


def test_functions_with_parameters_of_the_network_itself() -> None:
    model = net(
        functional, kernel=nn.Parameter(torch.randn(6, 3, 3, 3)), shift=nn.Parameter(torch.randn(6)),
        scale=nn.Parameter(torch.randn(6)), mean=torch.zeros(6), var=torch.ones(6),
        matrix=nn.Parameter(torch.randn(5, 6)),
    )  # fmt: skip
    network = layers(model, X)
    assert_same(model, network, X[:2], X)
    assert network.get_buffer("mean").abs().max() > 0


class Scaled(nn.Conv2d):
    """A convolution with a parameter that is used before and one that is used behind it."""

    def __init__(self) -> None:
        super().__init__(3, 6, 1)
        self.before, self.after = nn.Parameter(torch.rand(3, 1, 1)), nn.Parameter(torch.rand(6, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * self.before) * self.after


def test_parameters_that_a_layer_has_beside_its_own() -> None:
    model = net(lambda m, x: m.norm(m.conv(x)), conv=Scaled(), norm=nn.BatchNorm2d(6))
    network = layers(model, X)
    assert network.state_dict().keys() == model.state_dict().keys()
    assert_same(model, network, X)


def test_layers_inside_layers() -> None:
    class Adapted(nn.Conv2d):
        def __init__(self) -> None:
            super().__init__(3, 6, 1)
            self.down, self.up = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 6, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.up(self.down(x)) + super().forward(x)

    model = net(lambda m, x: m.conv(x), conv=Adapted())
    network = layers(model, X)
    assert isinstance(network.get_submodule("conv.down"), nn.Conv2d)
    assert_same(model, network, X)


@pytest.mark.parametrize("momentum", [0.3, None])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norms_of_every_kind(momentum: float | None, affine: bool) -> None:
    norm = nn.BatchNorm2d(6, eps=1e-3, momentum=momentum, affine=affine)
    model = net(lambda m, x: m.norm(m.conv(x)), conv=nn.Conv2d(3, 6, 1), norm=norm)
    assert_same(model, layers(model, X), X, X[:2])


def test_a_batch_norm_without_statistics() -> None:
    norm = nn.BatchNorm2d(6, track_running_stats=False)
    model = net(lambda m, x: m.norm(m.conv(x)), conv=nn.Conv2d(3, 6, 1), norm=norm)
    assert_same(model, layers(model, X), X, X[:2])


@pytest.mark.parametrize(
    ("drop", "rank"),
    [
        (nn.Dropout(0.4), 2), (nn.Dropout1d(0.4), 1), (nn.Dropout2d(0.4), 2), (nn.Dropout3d(0.4), 3),
        (nn.AlphaDropout(0.4), 2), (nn.FeatureAlphaDropout(0.4), 2), (nn.Dropout(0.4, inplace=True), 2),
    ],
)  # fmt: skip
def test_dropouts_of_every_kind(drop: nn.Module, rank: int) -> None:
    convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1](3, 8, 1)
    model = net(lambda m, x: m.drop(m.conv(x)).relu(), conv=convolution, drop=drop)
    x = torch.randn(4, 3, *[4] * rank)
    network = layers(model, x)
    assert_same(model, network, x)
    assert (network.train()(x) != network.eval()(x)).any()


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolutions_of_every_rank(rank: int) -> None:
    convolution, norm = (
        (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1],
        (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[rank - 1],
    )
    model = net(
        lambda m, x: m.b(m.n(m.a(x)).relu()),
        a=convolution(3, 6, 3, padding="same"), n=norm(6), b=convolution(6, 4, 3, 2, 1, groups=2),
    )  # fmt: skip
    x = torch.randn(4, 3, *[5] * rank)
    network = layers(model, x)
    assert [type(network.get_submodule(n)) for n in "anb"] == [convolution, norm, convolution]
    assert_same(model, network, x, x[:2])


@pytest.mark.parametrize("mode", ["reflect", "circular", "replicate"])
def test_paddings_of_every_kind(mode: str) -> None:
    model = net(lambda m, x: m.conv(x), conv=nn.Conv2d(3, 6, 3, padding=(1, 2), padding_mode=mode))
    assert_same(model, layers(model, X), X)


def test_linear_layers_on_tokens_and_norms_on_vectors() -> None:
    model = net(
        lambda m, x: m.out(m.norm(m.inner(x).mean(1))),
        inner=nn.Linear(3, 6), norm=nn.BatchNorm1d(6), out=nn.Linear(6, 2, bias=False),
    )  # fmt: skip
    x = torch.randn(4, 5, 3)
    network = layers(model, x)
    assert isinstance(network.get_submodule("inner"), nn.Linear)
    assert_same(model, network, x, x[:2])


def test_buffers_and_constants() -> None:
    model = net(
        lambda m, x: m.conv(x) * m.factor + torch.tensor([1.0, 2.0]).view(2, 1, 1) + m.table,
        conv=nn.Conv2d(3, 2, 1), factor=torch.tensor(0.5),
    )  # fmt: skip
    model.register_buffer("table", torch.rand(2, 1, 1), persistent=False)
    network = layers(model, X)
    assert_same(model, network, X)
    assert network.state_dict().keys() == model.state_dict().keys()
    again = layers(network, X)
    assert again.state_dict().keys() == model.state_dict().keys()
    assert_same(model, again, X)


@pytest.mark.parametrize(
    "layer", [ChannelSelection(3), ChannelCopy(torch.tensor([2, -1, 0]), torch.rand(3), torch.rand(3))]
)
def test_layers_that_pick_channels_stay_what_they_are(layer: nn.Module) -> None:
    model = net(lambda m, x: m.out(m.pick(x)), pick=layer, out=nn.Conv2d(3, 2, 1))
    network = layers(model, X)
    assert network.state_dict().keys() == model.state_dict().keys()
    assert_same(model, network, X)


# Arguments and results


class Answers(nn.Module):
    """Takes and returns what networks take and return."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.other = nn.Conv2d(3, 4, 1), nn.Conv2d(2, 4, 1)

    def forward(self, image: Tensor, more: dict[str, list[Tensor]], scale: float = 2.0) -> dict[str, object]:
        y = self.conv(image) * scale
        return {"sum": y + self.other(more["maps"][0]), "pair": (y.mean(), [y.relu()]), "count": 3}


def test_nested_arguments_and_results() -> None:
    model = randomize(Answers().eval())
    inputs = {"image": X, "more": {"maps": [torch.randn(4, 2, 8, 8)]}, "scale": 3.0}
    network = layers(model, inputs)
    got, expected = network(**inputs), model(**inputs)
    torch.testing.assert_close(got, expected)
    positional = (inputs["image"], inputs["more"])
    network = layers(model, positional)
    torch.testing.assert_close(network(*positional), model(*positional))
    torch.testing.assert_close(network(image=positional[0], more=positional[1]), model(*positional))


def test_a_network_that_takes_only_some_batch_sizes() -> None:
    model = net(lambda m, x: m.out(m.conv(x).reshape(4, -1)), conv=nn.Conv2d(3, 2, 1), out=nn.Linear(128, 5))
    assert_same(model, layers(model, X), X)


def test_statistics_are_taken_anew_in_its_norms() -> None:
    model, _ = build("residual")
    network = layers(model, X)
    for one in (model, network):
        recalibrate_batchnorm(one, [(X, X), (X[:2], X)], 2)
    torch.testing.assert_close(network.get_buffer("bn3.running_var"), model.bn3.running_var)
    with eval_mode(network):
        torch.testing.assert_close(network(X), model(X))
