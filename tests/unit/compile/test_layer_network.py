"""Layers side by side: each is the operator that a network would have, with all that belongs to it."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
import torch
from torch import nn

import billhook
from billhook.compile.compiler import assembled
from billhook.compile.ir import Linear
from billhook.compile.layer_network import LayerForm, network_of
from billhook.compile.products import Depthwise, Phases, Product
from billhook.compile.session import EngineSession
from billhook.graph.weights import WeightLayer
from tests.unit.compile.exactness import image
from tests.unit.sparse.mapping.made_layers import conv, linear


def weight(form: LayerForm) -> np.ndarray:
    return np.ones(form.view, np.float32)


def forms(model: nn.Module, x: torch.Tensor) -> list[LayerForm | None]:
    return [LayerForm.of(layer) for layer in billhook.capture(model.eval(), x).weights]


def test_a_form_says_what_one_sample_takes() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, (3, 1), stride=(2, 1), groups=2), nn.Flatten(), nn.Linear(224, 5))
    expected = [LayerForm(8, 2, (4, 7), (3, 1), (2, 1), 2), LayerForm(5, 224, (1, 1))]
    assert forms(model, image(4, 9, 7)) == forms(model, torch.randn(3, 4, 9, 7)) == expected


def test_a_row_of_pixels_is_one_pixel_high() -> None:
    assert forms(nn.Conv1d(4, 6, 3), torch.randn(1, 4, 12)) == [LayerForm(6, 4, (1, 10), (1, 3), (1, 1))]


def test_the_engine_has_no_form_for_transposed_convolutions_and_volumes() -> None:
    assert forms(nn.ConvTranspose2d(4, 4, 2), image(4, 5, 5)) == [None]
    assert forms(nn.Conv3d(1, 2, 2), torch.randn(1, 1, 4, 4, 4)) == [None]


@pytest.mark.parametrize(("positions", "plane"), [(3136, (56, 56)), (2048, (32, 64)), (7, (1, 7))])
def test_a_plane_that_is_not_known_is_nearly_square(positions: int, plane: tuple[int, int]) -> None:
    form = LayerForm.of(conv("a", 8, 8, pixels=positions))
    assert form is not None
    assert form.plane == plane


def test_of_large_layers_only_some_outputs_are_timed() -> None:
    large = LayerForm.of(linear("fc", 4096, 25088))
    assert large is not None
    assert large.sample.weights < large.weights / 16
    assert large.sample.inputs == large.inputs
    assert large.sample.outputs % 32 == 0
    small = LayerForm(64, 64, (7, 7), (3, 3))
    assert small.sample == small


def test_texts_differ_where_forms_do() -> None:
    base = LayerForm(8, 8, (4, 4))
    others = [
        LayerForm(8, 8, (2, 8)),
        LayerForm(4, 8, (4, 4)),
        LayerForm(8, 4, (4, 4)),
        LayerForm(8, 8, (4, 4), (3, 3)),
        LayerForm(8, 8, (4, 4), (1, 1), (2, 2)),
        LayerForm(8, 8, (4, 4), (1, 1), (1, 1), 2),
    ]
    assert len({str(form) for form in (base, *others)}) == 7


def test_every_layer_becomes_the_operator_of_a_network() -> None:
    given = {
        "plain": LayerForm(8, 4, (6, 6), (3, 3)),
        "strided": LayerForm(8, 4, (6, 6), (3, 3), (2, 2)),
        "depthwise": LayerForm(4, 1, (6, 6), (3, 3), (1, 1), 4),
        "vector": LayerForm(5, 12, (1, 1)),
    }
    made = network_of([(name, form, weight(form)) for name, form in given.items()])
    operators = {op.output.name: type(op) for op in made.network}
    kinds = {"plain": Product, "strided": Product, "depthwise": Depthwise, "vector": Linear}
    assert {name: operators[name] for name in given} == kinds
    assert set(made.products) == {"plain", "strided"}
    sizes = {op.output.name: (op.output.channels, op.output.height, op.output.width) for op in made.network}
    assert all(sizes[name] == (form.outputs, *form.plane) for name, form in given.items())


def test_phases_count_for_every_layer_that_reads_them() -> None:
    strided = LayerForm(8, 4, (6, 6), (3, 3), (2, 2))
    made = network_of([(name, strided, weight(strided)) for name in ("a", "b")])
    assert sum(isinstance(op, Phases) for op in made.network) == 1
    phases = set(made.instructions["a"]) & set(made.instructions["b"])
    assert len(phases) == 4
    assert len(made.instructions["a"]) == len(made.instructions["b"]) == 5


@pytest.mark.usefixtures("engine")
def test_the_engine_runs_them() -> None:
    given = [
        LayerForm(8, 4, (6, 6), (3, 3), (2, 2)),
        LayerForm(5, 12, (1, 1)),
        LayerForm(6, 6, (1, 9), (1, 3)),
    ]
    made = network_of([(str(form), form, weight(form)) for form in given])
    with EngineSession(assembled(made.network)) as session:
        session.run([np.ones((1, *port.shape), np.float32) for port in session.inputs])
        used = {n for numbers in made.instructions.values() for n in numbers}
        assert max(used) < session.instructions
        assert all(session.time(n) > 0 for n in used)


def test_layers_of_a_network_know_the_pixels_of_their_planes() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 4, 1))
    layers = billhook.capture(model.eval(), image(3, 11, 9)).weights
    assert [la.plane for la in layers] == [(5, 4), (5, 4)]
    assert all(la.positions == 2 * prod(la.plane) for la in layers)  # of two samples
    assert WeightLayer("a", "a", "linear", (2, 2)).plane == ()
