"""Capture: the model stays as it was, and what cannot be captured is explained."""

from __future__ import annotations

import gc
import logging
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from billhook.errors import CaptureError, InputError
from billhook.graph import capture
from billhook.graph.capture import capture_program, layer_of, source_line
from billhook.graph.inputs import as_call
from tests.networks import build

IMAGE = torch.zeros(2, 3, 8, 8)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.drop = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Dropout()
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(self.bn(self.conv(x)).relu().mean((2, 3))))


def test_the_model_stays_as_it_was() -> None:
    model = Net()
    model.bn.eval()  # frozen statistics: a usual mixture of modes
    model.conv.weight.requires_grad_(False)
    model(torch.ones(2, 3, 8, 8)).sum().backward()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    gradients = {n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}

    capture(model, IMAGE)

    assert [m.training for m in model.modules()] == [True, True, False, True, True]
    assert not model.conv.weight.requires_grad
    assert model.fc.weight.requires_grad
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    for name, parameter in model.named_parameters():
        old = gradients[name]
        assert (parameter.grad is None) == (old is None)
        assert old is None or torch.equal(parameter.grad, old)


def test_the_graph_keeps_no_weight_alive() -> None:
    model = Net()
    graph = capture(model, IMAGE)
    weight = weakref.ref(model.conv.weight)
    del model
    gc.collect()
    assert weight() is None
    assert graph.groups["conv"].size == 6


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    capture(Net(), IMAGE)
    with pytest.raises(CaptureError):
        capture(Net(), torch.zeros(2, 5, 8, 8))
    assert capfd.readouterr() == ("", "")
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_operators_know_their_layer_and_line() -> None:
    program = capture_program(Net(), as_call(IMAGE))
    nodes = {str(n.target): n for n in program.graph.nodes if n.op == "call_function"}
    assert layer_of(nodes["aten.conv2d.default"]) == "conv"
    line = source_line(nodes["aten.mean.dim"])
    assert line.startswith(f"{__file__}:")
    assert "mean((2, 3))" in line


def test_shared_tensors_are_known_under_their_first_name() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    program = capture_program(model, as_call(torch.zeros(1, 4)))
    assert program.aliases == {"2.weight": "0.weight"}
    assert "2.weight" not in program.shapes


def test_wrong_shapes_are_told_from_a_network_that_cannot_be_captured() -> None:
    with pytest.raises(CaptureError) as caught:
        capture(Net(), torch.zeros(2, 5, 8, 8))
    text = str(caught.value)
    assert "Net does not run on the example inputs ((2, 5, 8, 8) float32)" in text
    assert "expected input[2, 5, 8, 8] to have 3 channels" in text
    assert __file__ in text
    assert "give example inputs with the shapes and dtypes that forward expects" in text


def test_too_many_arguments_are_wrong_inputs() -> None:
    with pytest.raises(CaptureError, match="does not run on the example inputs"):
        capture(Net(), (IMAGE, IMAGE))


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc(x)
        if x.sum() > 0:  # this line
            x = x * 2
        return x


class Counting(Branching):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)[: int(x.abs().sum().item())]


class ElsewhereNumpy(Branching):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) + torch.from_numpy(x.detach().numpy().copy())


@pytest.mark.parametrize("model_class", [Branching, Counting, ElsewhereNumpy])
def test_what_depends_on_data_is_named_with_its_line(model_class: type[nn.Module]) -> None:
    with pytest.raises(CaptureError) as caught:
        capture(model_class(), torch.ones(2, 4))
    text = str(caught.value)
    assert f"{model_class.__name__} runs but cannot be captured by torch.export" in text
    assert f"{__file__}:" in text
    assert "move them out of forward" in text


def test_the_line_of_data_dependent_control_flow() -> None:
    with pytest.raises(CaptureError, match=r"if x\.sum\(\) > 0:  # this line"):
        capture(Branching(), torch.ones(2, 4))


def test_a_failed_capture_leaves_the_modes_alone() -> None:
    model = Branching()
    with pytest.raises(CaptureError):
        capture(model, torch.ones(2, 4))
    assert model.training


def test_a_function_is_not_a_model() -> None:
    with pytest.raises(InputError, match=r"expected an nn\.Module, got a function"):
        capture(lambda x: x, IMAGE)  # type: ignore[arg-type]


def test_an_unknown_way_of_mixing_is_refused() -> None:
    with pytest.raises(InputError, match="expected 'freeze' or 'allow'"):
        capture(Net(), IMAGE, mixing="perhaps")  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["tensor", "tuple", "dict"])
def test_inputs_in_any_form(form: str) -> None:
    given: Any = {"tensor": IMAGE, "tuple": (IMAGE,), "dict": {"x": IMAGE}}[form]
    assert capture(Net(), given).groups["conv"].prunable


class Helped(Net):
    """An auxiliary head that only training uses."""

    def __init__(self) -> None:
        super().__init__()
        self.aux = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.training:
            x = x + self.aux(x.mean((2, 3)))[:, :1, None, None]
        return self.fc(self.bn(x).mean((2, 3)))


def test_layers_that_do_not_run_in_eval_mode_are_known() -> None:
    graph = capture(Helped(), IMAGE)
    assert graph.program.unused == ("aux",)
    assert not any(m.tensor.startswith("aux") for g in graph.groups for m in g.members)


def test_the_dimension_of_the_batch_can_be_free() -> None:
    model, inputs = build("residual")
    program = capture_program(model, as_call(inputs), dynamic_batch=True)
    (image,) = (n for n in program.graph.nodes if n.name in program.inputs)
    assert isinstance(image.meta["val"].shape[0], torch.SymInt)
