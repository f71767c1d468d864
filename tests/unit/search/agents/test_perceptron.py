from __future__ import annotations

import torch
from torch import nn

from billhook.search.agents.perceptron import Perceptron


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 2), nn.Tanh())


def test_outputs_are_those_of_the_linear_layers() -> None:
    layers, x = network(), torch.randn(4, 5)
    torch.testing.assert_close(Perceptron(layers).forward(x)[-1].tanh(), layers(x))


def test_gradients_are_those_of_autograd() -> None:
    layers, x, slope = network(), torch.randn(4, 5, requires_grad=True), torch.randn(4, 2)
    layers[:-1](x).backward(slope)
    wanted = [p.grad for p in layers.parameters()]
    layers.zero_grad()
    perceptron = Perceptron(layers)
    with torch.no_grad():
        passed = perceptron.forward(x)
        assert perceptron.backward(passed, slope, to_input=False) is None
        back = perceptron.backward(passed, slope, to_input=True)
    for parameter, gradient in zip(layers.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    torch.testing.assert_close(back, x.grad)


def test_the_way_to_the_input_leaves_the_parameters_gradients_alone() -> None:
    layers = network()
    perceptron = Perceptron(layers)
    with torch.no_grad():
        perceptron.backward(perceptron.forward(torch.randn(4, 5)), torch.ones(4, 2), to_input=True)
    assert all(p.grad is None for p in layers.parameters())


def test_it_follows_parameters_that_are_changed_in_place() -> None:
    layers, x = network(), torch.randn(4, 5)
    perceptron = Perceptron(layers)
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.mul_(0.5)
        torch.testing.assert_close(perceptron.forward(x)[-1].tanh(), layers(x))
