"""Tables of layers: what is timed, once for each form, and that their sum is the sum by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from billhook.deploy.backends.billhook_ import BillhookEngine
from billhook.errors import InputError, StorageError
from billhook.graph import apply, capture
from billhook.json_record import decode, encode
from billhook.models import build
from billhook.search.latencies import table
from billhook.search.latencies.table import LayerTable, TableTerms
from billhook.search.problem import SearchProblem
from billhook.search.space import Genes
from tests.search import problem, problem_of
from tests.unit.search.latencies.fake_rig import FakeLayers


@pytest.fixture
def layers(monkeypatch: pytest.MonkeyPatch) -> FakeLayers:
    fake = FakeLayers()
    monkeypatch.setattr(BillhookEngine, "layer_times", lambda *_: fake)
    return fake


def sparse(name: str = "plain", **given: Any) -> SearchProblem:
    return problem(name, pattern="4x1|dense", backend="billhook", **given)


def by_hand(searched: SearchProblem, genes: Genes) -> float:
    """Return what the layers of the network take that is really built, and what is between them."""
    small = apply(searched.model, searched.space.plan(genes, searched.model))
    density = {name: float(values[0]) for name, values in searched.space.densities(genes).items()}
    left = capture(small, searched.example_inputs).weights
    full = capture(searched.model, searched.example_inputs).weights
    written, whole = (sum(la.view[0] * la.positions for la in layers) for layers in (left, full))
    own = [la.macs * density.get(la.tensor, 1.0) + 5.0 * la.view[0] for la in left]
    return sum(own) + 30.0 * written / whole


@pytest.mark.parametrize(
    "name", ["plain", "residual", "concat", "depthwise_squeeze", "grouped", "flatten", "transposed"]
)
def test_the_sum_over_layers_is_the_sum_by_hand(layers: FakeLayers, name: str) -> None:
    searched = sparse(name)
    space = searched.space
    terms = TableTerms(space, LayerTable.measure(searched))
    rows = space.random(np.random.default_rng(0), 2)
    hands = [by_hand(searched, genes) for genes in rows]
    assert terms.seconds(rows) == pytest.approx(hands, rel=1e-3)  # of four digits
    assert terms.of(rows)[:, 0] == pytest.approx(np.array(hands) / by_hand(searched, space.highest), rel=2e-3)


def test_layers_of_one_form_share_a_grid_and_are_announced(layers: FakeLayers) -> None:
    model = build("resnet-8", in_channels=1, shortcut="B").eval()
    searched = problem_of(model, torch.zeros(1, 1, 8, 8), backend="billhook", criterion="first")
    made = LayerTable.measure(searched)
    assert len(made.grids) < len(made.layers) == len(made.grid_of)
    assert len({layer for layer, _ in layers.asked}) == len(layers.asked), "timed twice"
    assert {layer for layer, _ in layers.asked} <= set(layers.expected)
    assert all(pattern is None for _, pattern in layers.asked), "no gene for densities, none in the table"


def test_a_large_network_is_timed_in_fewer_widths(
    layers: FakeLayers, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = problem_of(
        nn.Sequential(nn.Conv2d(3, 64, 3), nn.Conv2d(64, 64, 1), nn.Conv2d(64, 5, 1)).eval(),
        torch.zeros(1, 3, 8, 8),
        backend="billhook",
        criterion="first",
        round_to=8,
    )
    assert LayerTable.measure(searched).grids[1].outputs == (8.0, 16.0, 24.0, 32.0, 40.0, 48.0, 56.0, 64.0)
    monkeypatch.setattr(table, "_MACS", 0.0)
    assert LayerTable.measure(searched).grids[1].outputs == (8.0, 40.0, 64.0)


def test_depthwise_layers_have_one_time_for_all_densities(layers: FakeLayers) -> None:
    searched = problem("depthwise_squeeze", pattern="unstructured", backend="billhook")
    made = LayerTable.measure(searched)
    grid = made.grids[made.grid_of[made.layers.index("depth.weight")]]
    assert (grid.inputs, grid.densities) == ((1.0,), (1.0,))
    assert all(pattern is None for layer, pattern in layers.asked if layer.depthwise)


def test_it_survives_json(layers: FakeLayers) -> None:
    searched = sparse()
    made = LayerTable.measure(searched)
    again = decode(LayerTable, json.loads(json.dumps(encode(made))), "table")
    assert again == made
    rows = searched.space.random(np.random.default_rng(0), 5)
    assert np.array_equal(
        TableTerms(searched.space, again).of(rows), TableTerms(searched.space, made).of(rows)
    )


def test_what_does_not_belong_together_is_refused(layers: FakeLayers) -> None:
    made = LayerTable.measure(sparse())
    with pytest.raises(StorageError, match="layers of this network"):
        TableTerms(sparse("residual").space, made)
    with pytest.raises(StorageError, match="a grid for every layer"):
        replace(made, grid_of=(99, *made.grid_of[1:]))
    with pytest.raises(StorageError, match="between: must be finite"):
        replace(made, between=float("inf"))
    with pytest.raises(InputError, match=r"'onnxruntime' cannot time single layers; take latency='fitted'"):
        LayerTable.measure(problem("plain"))


@pytest.mark.serial
@pytest.mark.usefixtures("engine")
def test_a_table_of_the_engine_says_what_zeros_and_widths_save() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Conv2d(32, 5, 1)
    )
    searched = problem_of(
        model.eval(), torch.zeros(2, 3, 20, 20), backend="billhook", pattern="4x1|dense", criterion="first"
    )
    space = searched.space
    terms = TableTerms(space, LayerTable.measure(searched))
    narrow, sparse_ = space.highest.copy(), space.highest.copy()
    narrow[: len(space.groups)] = 0
    sparse_[len(space.groups) :] = 0
    found = terms.of(np.stack([narrow, sparse_, space.highest]))[:, 0]
    assert found[0] < 0.5
    assert found[1] < 0.6
    assert 1e-6 < terms.seconds(space.highest[None])[0] < 1e-2
