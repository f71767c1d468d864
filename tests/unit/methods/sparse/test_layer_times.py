"""Mappings take the latency of layers from the runtime that is to be shipped, or from a table."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from billhook.compile.layer_latency import TimedLayers
from billhook.errors import BudgetError, InputError, NameNotFoundError, StorageError, UnsupportedError
from billhook.graph import Scope, capture
from billhook.graph.weights import WeightLayer
from billhook.methods.sparse import MappingSubject, mapped, sparsify
from billhook.methods.sparse._layer_times import layer_times
from billhook.sparse.mapping import LatencyModel, LatencyTable, network_latency

X = torch.randn(1, 16, 12, 12)


def network() -> nn.Sequential:
    """Two convolutions, a pooling between them, and a layer at the end."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(16, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(64, 64, 3), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(576, 10)).eval()


def times(wanted: str, backend: str, model: nn.Module | None = None) -> tuple[LatencyModel, float]:
    model = network() if model is None else model
    return layer_times(wanted, model, X, capture(model, X).weights, backend=backend)


@pytest.mark.usefixtures("engine")
def test_layers_are_timed_where_zeros_save_time() -> None:
    for wanted in ("auto", "measured"):
        found, others = times(wanted, "billhook")
        assert isinstance(found, TimedLayers)
        assert others > 0  # pooling
    assert times("auto", "onnxruntime") == times("table", "billhook") == (LatencyTable.default(), 0.0)


@pytest.mark.usefixtures("engine")
def test_layers_out_of_scope_are_among_the_others() -> None:
    model = network()
    layers = capture(model, X).weights
    timed = TimedLayers.of(model, X)
    dense = network_latency(timed, layers, {})
    assert timed.others(layers[:1]) == pytest.approx(
        timed.others(layers) + dense - timed.latency(layers[0], None, 0.0)
    )


@pytest.mark.usefixtures("engine")
def test_a_batch_takes_as_often_the_time() -> None:
    timed = TimedLayers.of(network(), X.repeat(8, 1, 1, 1))
    assert timed.others(capture(network(), X).weights) > 0
    once, eight = (capture(network(), X.repeat(n, 1, 1, 1)).weights for n in (1, 8))
    assert network_latency(timed, eight, {}) == pytest.approx(8 * network_latency(timed, once, {}))


def test_a_table_of_a_device_comes_from_a_file(tmp_path: Path) -> None:
    data = LatencyTable.default().to_dict() | {"device": "mine"}
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(data))
    table, _ = times(str(path), "billhook")
    assert isinstance(table, LatencyTable)
    assert table.device == "mine"
    found = sparsify(network(), X, sparsity=0.9, pattern=f"rules:times={path}")
    assert found.plan.patterns
    with pytest.raises(StorageError, match=r"nothing\.json: cannot be read"):
        sparsify(network(), X, sparsity=0.9, pattern="rules:times=nothing.json")


def test_what_cannot_be_timed_is_said() -> None:
    with pytest.raises(
        InputError, match=r"'onnxruntime' zeros make no difference; choose another \(billhook\)"
    ):
        times("measured", "onnxruntime")
    with pytest.raises(NameNotFoundError, match="billhok"):
        times("auto", "billhok")


@pytest.mark.usefixtures("engine")
def test_a_network_that_the_engine_cannot_run_is_mapped_by_the_table(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = nn.Sequential(network()[0], nn.Upsample(scale_factor=2, mode="bicubic")).eval()
    with caplog.at_level(logging.WARNING, "billhook"):
        table, _ = times("auto", "billhook", model)
    assert table == LatencyTable.default()
    assert "layers are not timed" in caplog.text
    with pytest.raises(UnsupportedError):
        times("measured", "billhook", model)


class Halved:
    """Zeros save their share; as much time passes outside of the layers in scope."""

    def latency(self, layer: WeightLayer, pattern: object, sparsity: float) -> float:
        return 1.0 if pattern is None else 1.0 - sparsity

    def others(self, layers: object) -> float:
        return 2.0


@pytest.fixture
def halved(monkeypatch: pytest.MonkeyPatch) -> MappingSubject:
    from billhook.deploy.backends.billhook_ import BillhookEngine

    monkeypatch.setattr(BillhookEngine, "layer_times", lambda *_: Halved())
    model = network()
    layers = Scope(exclude=("5",)).select_weights(capture(model, X).weights)
    return MappingSubject(model, layers, None, example_inputs=X, backend="billhook")


def test_a_latency_is_that_of_the_whole_network(halved: MappingSubject) -> None:
    found = mapped("rules:latency=0.7", halved)
    layers = network_latency(Halved(), halved.layers, found.choices, found.sparsities)
    assert 0.6 < (layers + 2) / 4 <= 0.7


def test_a_latency_below_that_of_the_rest_is_refused(halved: MappingSubject) -> None:
    with pytest.raises(
        BudgetError, match=r"latency=0.5 cannot be met: all but the layers in scope takes 50%"
    ):
        mapped("rules:latency=0.5", halved)


@pytest.mark.usefixtures("engine")
def test_sparsify_maps_by_the_times_of_the_backend() -> None:
    found = sparsify(network(), X, pattern="rules:latency=0.6", backend="billhook")
    shares = found.plan.made_by["mapping"]["sparsities"]
    assert shares
    timed = TimedLayers.of(network(), X)
    layers = capture(network(), X).weights
    patterns = {name: s.pattern for name, s in found.plan.patterns.items()}
    rest = timed.others(layers)
    dense, sparse = (network_latency(timed, layers, p, shares) + rest for p in ({}, patterns))
    assert sparse <= 0.62 * dense  # zeros come in whole blocks
