from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from billhook.errors import InputError, PlanError
from billhook.graph import capture
from billhook.graph.patterns import parse_pattern
from billhook.graph.structure import Structure, viewed
from billhook.sparse.holding import Held, holds
from billhook.train import holding
from tests.networks import batches, build

OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "sgd": lambda m: torch.optim.SGD(m.parameters(), lr=0.02, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adamw": lambda m: torch.optim.AdamW(m.parameters(), lr=0.003, weight_decay=0.1, amsgrad=True),
    "rmsprop": lambda m: torch.optim.RMSprop(
        m.parameters(), lr=0.001, momentum=0.9, centered=True, weight_decay=0.01
    ),
}
PATTERNS = [
    "1x1",
    "4x1",
    "2:4",
    "block_diagonal",
    "unified:4x4",
]


def structures_of(model: nn.Module, inputs: Tensor, text: str) -> dict[str, Structure]:
    """Return structures for every layer they fit, half of the units gone, for the weights of `model`."""
    pattern, found = parse_pattern(text), {}
    for layer in capture(model, inputs).weights:
        if pattern.refusal(layer.view, layer.groups) is None:
            view = viewed(model.get_parameter(layer.tensor).detach(), transposed=layer.transposed)
            parts = pattern.choose(view, 0.5)
            found[layer.tensor] = Structure(pattern, layer.shape, parts, layer.transposed)
    return found


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, name: str, number: int) -> None:
    inputs, targets = batches(name)[number % 2]
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(inputs), targets).backward()
    optimizer.step()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["plain", "last"])
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_after_each_of_a_hundred_steps_the_weights_have_their_structures(
    optimizer: str, pattern: str, layout: torch.memory_format
) -> None:
    model, inputs = build("plain")
    model = model.to(memory_format=layout)
    structures = structures_of(model, inputs, pattern)
    updating = OPTIMIZERS[optimizer](model.train())
    with holding(model, updating, structures) as held:
        assert holds(model, structures) is None
        first = {n: model.get_parameter(n).detach().clone() for n in structures}
        for number in range(100):
            _step(model, updating, "plain", number)
            assert holds(model, structures) is None
            for name in structures:  # anchors, that is signs, are those of the beginning
                weight = model.get_parameter(name).detach()
                assert torch.equal(structures[name].hold(weight, held.anchors[name]), weight)
    for name, structure in structures.items():
        weight = model.get_parameter(name).detach()
        assert weight.is_contiguous(memory_format=layout) or weight.dim() < 4
        assert bool((weight[~structure.mask] == 0).all())
        assert float((weight - first[name]).abs().max()) > 1e-3, "nothing was trained"
        for key, value in updating.state[model.get_parameter(name)].items():
            if key in ("momentum_buffer", "exp_avg", "grad_avg"):
                assert bool((value[~structure.mask] == 0).all())


@pytest.mark.parametrize("name", ["transposed", "grouped", "attention"])
def test_other_layers_are_held_as_well(name: str) -> None:
    model, inputs = build(name)
    structures = structures_of(model, inputs, "4x1")
    optimizer = OPTIMIZERS["sgd"](model)
    with holding(model, optimizer, structures):
        for number in range(10):
            _step(model, optimizer, name, number)
    assert holds(model, structures) is None


def test_momentum_from_before_does_not_leak() -> None:
    model, inputs = build("plain")
    optimizer = OPTIMIZERS["sgd"](model)
    for number in range(3):
        _step(model, optimizer, "plain", number)
    structures = structures_of(model, inputs, "1x1")
    with holding(model, optimizer, structures):
        for name, structure in structures.items():
            momentum = optimizer.state[model.get_parameter(name)]["momentum_buffer"]
            assert bool((momentum[~structure.mask] == 0).all())
            assert bool((momentum[structure.mask] != 0).any())
        _step(model, optimizer, "plain", 0)
        assert holds(model, structures) is None


def test_held_weights_move_as_they_would_in_a_network_that_multiplies_with_the_mask() -> None:
    """Reference: a parameter times a constant mask, which autograd knows; plain SGD with momentum."""
    model, inputs = build("plain")
    structures = structures_of(model, inputs, "1x1")
    reference, _ = build("plain")
    for name, structure in structures.items():
        layer = reference.get_submodule(name.rpartition(".")[0])
        nn.utils.parametrize.register_parametrization(layer, "weight", _Times(structure.mask))
    settings = {"lr": 0.02, "momentum": 0.9}
    ours = torch.optim.SGD(model.parameters(), **settings)
    theirs = torch.optim.SGD(reference.parameters(), **settings)
    with holding(model, ours, structures):
        for number in range(10):
            _step(model, ours, "plain", number)
            _step(reference, theirs, "plain", number)
    for name in structures:
        expected = reference.get_submodule(name.rpartition(".")[0]).weight
        torch.testing.assert_close(model.get_parameter(name), expected, rtol=1e-5, atol=1e-6)


class _Times(nn.Module):
    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


def test_afterwards_the_optimiser_is_free_again() -> None:
    model, inputs = build("plain")
    structures = structures_of(model, inputs, "1x1")
    optimizer = OPTIMIZERS["sgd"](model)
    with pytest.raises(RuntimeError, match="stop"), holding(model, optimizer, structures):
        raise RuntimeError("stop")
    _step(model, optimizer, "plain", 0)
    assert holds(model, structures) == "conv1.weight"


def test_what_has_no_gradient_is_left_alone() -> None:
    model, inputs = build("plain")
    structures = structures_of(model, inputs, "1x1")
    model.conv1.weight.requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    with holding(model, optimizer, structures):
        before = model.conv1.weight.clone()
        _step(model, optimizer, "plain", 0)
    assert torch.equal(model.conv1.weight, before)
    assert holds(model, structures) is None


def test_one_changed_weight_is_named() -> None:
    model, inputs = build("plain")
    structures = structures_of(model, inputs, "4x1")
    Held(model, structures)
    assert holds(model, structures) is None
    gone = (~structures["conv3.weight"].mask).nonzero()[0]
    with torch.no_grad():
        model.conv3.weight[tuple(gone)] = 1e-30
    assert holds(model, structures) == "conv3.weight"


def test_structures_of_another_network_are_refused() -> None:
    model, inputs = build("plain")
    structures = structures_of(model, inputs, "1x1")
    for other in ("residual", "flatten"):
        network, _ = build(other)
        with pytest.raises(PlanError, match=r"does not have|made for another network"):
            holds(network, structures)
        with pytest.raises(PlanError, match=r"does not have|made for another network"):
            Held(network, structures)


OTHERS = ("Adagrad", "Adadelta", "Adamax", "Rprop", "ASGD", "NAdam", "RAdam", "Adam")


@pytest.mark.parametrize("closure", [False, True], ids=["steps", "closure"])
@pytest.mark.parametrize("pattern", ["1x1", "unified:4x4"])
@pytest.mark.parametrize("name", OTHERS)
def test_any_optimizer_trains_with_structures_held(name: str, pattern: str, closure: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4))
    x, y = torch.randn(32, 8), torch.randint(4, (32,))
    structures = structures_of(model, x, pattern)
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=1.0 if name == "Adadelta" else 0.02)
    gone = {n: s.mask == 0 for n, s in structures.items()}

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(model(x), y)
        value.backward()
        return value

    with holding(model, optimizer, structures):
        with torch.no_grad():
            first = float(nn.functional.cross_entropy(model(x), y))
        for _ in range(40):
            if closure:
                optimizer.step(loss)
            else:
                loss()
                optimizer.step()
            for n, zeros in gone.items():
                assert not model.get_parameter(n).grad[zeros].any()
    assert holds(model, structures) is None
    assert float(loss().detach()) < first


def test_an_optimizer_that_remembers_all_weights_in_one_is_refused() -> None:
    model, inputs = build("plain")
    optimizer = torch.optim.LBFGS(model.parameters())
    with (
        pytest.raises(InputError, match="L-BFGS"),
        holding(model, optimizer, structures_of(model, inputs, "1x1")),
    ):
        pass


def test_an_infinite_gradient_leaves_a_zero_at_zero() -> None:
    model, inputs = build("plain")
    structures = structures_of(model, inputs, "1x1")
    held = Held(model, structures)
    for name in structures:
        weight = model.get_parameter(name)
        weight.grad = torch.full_like(weight, float("inf"))
    held.gradients_()
    for name, structure in structures.items():
        assert not model.get_parameter(name).grad[~structure.mask].any()
