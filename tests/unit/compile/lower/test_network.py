"""A lowered network computes what the module does; what it cannot is named all at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from billhook.compile.lower import lower
from billhook.errors import CaptureError, UnsupportedError
from tests.unit.compile.exactness import Function, features, image, kinds, lowered


def test_a_network_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    network = lower(model, image(3))
    assert model.training
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    with torch.no_grad():
        model[0].weight.zero_()
    assert network.ops[0].weight.any()  # type: ignore[attr-defined]


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_batch_of_the_example_does_not_matter(batch: int) -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))
    network = lowered(model, image(2, 6, 5, batch))
    assert [p.shape for p in network.outputs] == [(2,)]


def test_code_that_holds_the_size_of_the_batch_is_lowered_if_it_keeps_samples_apart() -> None:
    model = Function(lambda linear, x: linear(x.reshape(3, 20)), nn.Linear(20, 2))
    lowered(model, image(4, 1, 5, batch=3))


def test_ports_have_the_names_and_shapes_that_the_user_knows() -> None:
    class Two(nn.Module):
        def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor | tuple[Tensor, None]]:
            return {"sum": left + right[:, :, None, None], "rest": (right.relu(), None)}

    network = lowered(Two(), image(4, 3, 2), features(4))
    assert [(p.name, p.shape) for p in network.inputs] == [("left", (4, 3, 2)), ("right", (4,))]
    assert [(p.name, p.shape) for p in network.outputs] == [("sum", (4, 3, 2)), ("rest_0", (4,))]


def test_inputs_may_be_given_by_name() -> None:
    network = lower(Function(lambda x: x.relu()), (image(),))
    assert [p.name for p in network.outputs] == ["output"]

    class Named(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x - y

    assert [p.name for p in lower(Named(), {"x": image(), "y": image()}).inputs] == ["x", "y"]


def test_one_value_may_be_several_outputs_and_an_input_an_output() -> None:
    network = lowered(lambda x: (x, x.relu(), x.relu()), image())
    assert [p.name for p in network.outputs] == ["output_0", "output_1", "output_2"]


@pytest.mark.parametrize("shape", [(2, 5), (2, 3, 7), (2, 3, 4, 5), (2, 2, 3, 4, 5), (2,)])
def test_inputs_of_any_rank(shape: tuple[int, ...]) -> None:
    lowered(lambda x: x.sigmoid() * 2, torch.randn(shape, generator=torch.Generator().manual_seed(0)))


def test_operators_in_place_are_those_that_make_a_new_tensor() -> None:
    def forward(conv: nn.Conv2d, x: Tensor) -> Tensor:
        y = conv(x)
        z = functional.relu(y, inplace=True)
        z += 1
        return y * z  # y has changed too

    lowered(Function(forward, nn.Conv2d(4, 4, 1)), image())


def test_a_change_in_place_that_a_view_sees_is_refused() -> None:
    def forward(x: Tensor) -> Tensor:
        y = x.clone()
        y[:, :2].mul_(3)
        return y

    with pytest.raises(UnsupportedError, match="mul") as caught:
        lower(Function(forward), image())
    assert caught.value.operators == ("mul",)


def test_what_depends_on_weights_alone_is_computed_in_advance() -> None:
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        normal = (weight - weight.mean((1, 2, 3), keepdim=True)) / weight.std((1, 2, 3), keepdim=True)
        return functional.conv2d(x, normal)

    class Standardised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 4, 2, 2))

        def forward(self, x: Tensor) -> Tensor:
            return forward(x, self.weight)

    assert kinds(lowered(Standardised(), image())) == ["convolution"]


def test_unsupported_operators_are_named_together_with_count_and_line() -> None:
    def forward(layer: nn.Bilinear, x: Tensor) -> Tensor:
        x = layer(x.exp().exp(), x)
        x = layer(x, x)
        return torch.cumsum(x.relu(), 1)

    with pytest.raises(UnsupportedError) as caught:
        lower(Function(forward, nn.Bilinear(5, 5, 5)), image())
    assert caught.value.operators == ("exp", "bilinear", "cumsum")
    text = str(caught.value)
    assert "exp (×2)" in text
    assert "bilinear (×2)" in text
    assert "test_network.py" in text
    assert "x = layer(x.exp().exp(), x)" in text


MIXING: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: x - x.mean(0, keepdim=True),
    "sum": lambda x: x / x.sum(),
    "transpose": lambda x: x.transpose(0, 1),
    "flip": lambda x: x.flip(0),
    "select": lambda x: x[0],
    "slice": lambda x: x[:1],
    "cat": lambda x: torch.cat([x, x], 0),
    "softmax": lambda x: x.softmax(0),
    "view": lambda x: x.reshape(1, -1),
}


@pytest.mark.parametrize("name", MIXING)
def test_what_mixes_samples_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedError):
        lower(Function(MIXING[name]), features(6))


def test_integers_and_scalars_are_no_inputs() -> None:
    with pytest.raises(UnsupportedError, match="int64"):
        lower(nn.Embedding(5, 3), torch.tensor([[1], [2]]))


def test_random_numbers_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="rand"):
        lower(Function(lambda x: x + torch.rand(4, 6, 5)), image())


def test_statistics_of_the_batch_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="statistics"):
        lower(nn.BatchNorm2d(4, track_running_stats=False), image())


def test_a_network_without_a_tensor_to_return_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="constant"):
        lower(Function(lambda x: torch.ones(2)), image())


def test_a_network_that_cannot_be_captured_says_so() -> None:
    with pytest.raises(CaptureError):
        lower(Function(lambda x: x if float(x.sum()) > 0 else -x), image())


COUNTING: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "div": ("div", lambda x: x / x.shape[0]),
    "mul": ("mul", lambda x: x.mean((1, 2, 3)) * x.size(0)),
    "numbers of all samples": ("div", lambda x: x.flatten(1).sum(1) / x.numel()),
    "constants": ("full", lambda x: x + torch.full((1, 1, 1, 1), float(len(x)))),
}


@pytest.mark.parametrize("name", COUNTING)
def test_what_computes_with_the_number_of_samples_is_refused(name: str) -> None:
    operator, forward = COUNTING[name]
    with pytest.raises(UnsupportedError, match="number of samples at ") as caught:
        lower(Function(forward), image())
    assert caught.value.operators == (operator,)


SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "view": lambda x: x.view(x.shape[0], -1) * 3,
    "expand": lambda x: x * 0.5 + torch.ones(1, 4, 1, 1).expand(x.shape[0], -1, -1, -1),
    "full": lambda x: x + torch.full((x.shape[0], 1, 1, 1), 2.0),
    "slice": lambda x: x[: x.shape[0]] / 7,
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_number_of_samples_may_stand_in_shapes(name: str) -> None:
    lowered(SHAPES[name], image())
