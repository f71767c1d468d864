"""Times of layers in the engine as a latency model: what is asked, timed, kept and interpolated."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

import billhook
from billhook.compile import layer_cache, layer_latency, layer_timing
from billhook.compile.layer_cache import LayerCache
from billhook.compile.layer_latency import TimedLayers
from billhook.compile.layer_network import LayerForm
from billhook.compile.layer_timing import LayerPoint, time_points
from billhook.errors import InputError
from billhook.graph.patterns import parse_pattern
from billhook.graph.weights import WeightLayer
from billhook.sparse.mapping import LatencyModel, LatencyTable, map_by_rules, network_latency
from tests.unit.compile.exactness import image
from tests.unit.sparse.mapping.made_layers import conv, linear

pytestmark = pytest.mark.usefixtures("engine")

LAYERS = [conv("a", 16, 16, pixels=144), conv("b", 32, 16, 1, pixels=144), linear("fc", 10, 32)]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_cache, "folder", lambda: tmp_path)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[LayerPoint]]:
    """What is timed; every layer takes as many seconds as it has weights left, and a quarter of all."""
    calls: list[list[LayerPoint]] = []

    def times(points: Sequence[LayerPoint], *, threads: int, isa: str) -> dict[str, float]:
        calls.append(list(points))
        return {str(p): p.form.weights * (1.25 - p.sparsity) for p in points}

    monkeypatch.setattr(layer_latency, "time_points", times)
    return calls


def test_the_engine_times_layers_and_zeros_never_cost() -> None:
    model: LatencyModel = TimedLayers(LAYERS)
    for layer in LAYERS:
        dense = model.latency(layer, None, 0.0)
        assert 0 < dense < 0.1
        for name in ("1x1", "4x1", "8x1", "filter"):
            pattern = parse_pattern(name)
            times = [model.latency(layer, pattern, s) for s in (0.0, 0.3, 0.5, 0.75, 0.9, 0.99)]
            assert times[0] == dense
            assert all(0 < b <= a for a, b in pairwise(times))


def test_one_question_times_the_same_zeros_of_all_layers(asked: list[list[LayerPoint]]) -> None:
    model = TimedLayers(LAYERS)
    network_latency(model, LAYERS, {})
    assert [len(points) for points in asked] == [3]
    choices = {la.tensor: parse_pattern("4x1") for la in LAYERS}
    network_latency(model, LAYERS, choices, 0.8)
    assert len(asked) == 2
    assert {p.form for p in asked[1]} == {LayerForm.of(la) for la in LAYERS}
    network_latency(model, LAYERS, {la.tensor: parse_pattern("4x4") for la in LAYERS}, 0.6)
    assert len(asked) == 2  # blocks of 4 rows are the same to the engine


def test_layers_that_are_expected_are_timed_with_the_others(asked: list[list[LayerPoint]]) -> None:
    model = TimedLayers(LAYERS[:1])
    model.expect([replace(LAYERS[0], shape=(8, 16, 3, 3)), replace(LAYERS[0], shape=(8, 8, 3, 3))])
    model.latency(LAYERS[0], None, 0.0)
    assert [len(points) for points in asked] == [3]
    assert model.others(LAYERS[:1]) == 0.0  # they are not in the network


def test_layers_of_one_form_are_timed_once(asked: list[list[LayerPoint]]) -> None:
    twins = [LAYERS[0], replace(LAYERS[0], tensor="twin.weight", layer="twin")]
    assert network_latency(TimedLayers(twins), twins, {}) == 2 * 1.25 * 16 * 16 * 9
    assert [len(points) for points in asked] == [1]


def test_what_is_between_the_timed_sparsities_lies_between_their_times(asked: list[list[LayerPoint]]) -> None:
    model, pattern, weights = TimedLayers(LAYERS), parse_pattern("8x1"), 16 * 16 * 9
    for sparsity in (0.25, 0.5, 0.6, 0.85, 0.93):
        assert model.latency(LAYERS[0], pattern, sparsity) == pytest.approx(weights * (1.25 - sparsity))
    last = max(p.sparsity for p in asked[0])
    assert model.latency(LAYERS[0], pattern, 0.999) == pytest.approx(weights * (1.25 - last))


def test_few_zeros_are_run_as_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        layer_latency,
        "time_points",
        lambda points, **_: {str(p): 1.2 - p.sparsity if p.pattern else 1.0 for p in points},
    )
    model = TimedLayers()
    times = [model.latency(LAYERS[0], parse_pattern("4x1"), s) for s in (0.0, 0.1, 0.2, 0.3, 0.4, 0.6)]
    assert times == pytest.approx([1.0, 1.0, 1.0, 0.9, 0.8, 0.6])


def test_noise_does_not_make_zeros_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {0.0: 8.0, 0.5: 9.0, 0.7: 5.0, 0.8: 6.0}
    monkeypatch.setattr(
        layer_latency, "time_points", lambda points, **_: {str(p): taken.get(p.sparsity, 1.0) for p in points}
    )
    model = TimedLayers()
    assert [model.latency(LAYERS[0], parse_pattern("4x1"), s) for s in (0.5, 0.7, 0.8)] == [8.0, 5.0, 5.0]


def test_times_are_kept_on_the_disk(asked: list[list[LayerPoint]]) -> None:
    pattern = parse_pattern("4x1")
    first = TimedLayers(LAYERS).latency(LAYERS[0], pattern, 0.77)
    timed = len(asked)
    again = TimedLayers(LAYERS)
    assert again.latency(LAYERS[0], pattern, 0.77) == first
    assert again.latency(LAYERS[2], pattern, 0.77) > 0
    assert len(asked) == timed
    TimedLayers(LAYERS, isa="portable").latency(LAYERS[0], pattern, 0.77)
    assert len(asked) == timed + 1  # another instruction set takes other times


def test_a_damaged_file_is_not_used_and_times_of_others_stay(tmp_path: Path) -> None:
    LayerCache("portable", 1).add({"a": 1.0})
    (path,) = tmp_path.iterdir()
    mine, theirs = LayerCache("portable", 1), LayerCache("portable", 1)
    theirs.add({"b": 2.0})
    mine.add({"c": 3.0})
    assert json.loads(path.read_text()) == {"a": 1.0, "b": 2.0, "c": 3.0}
    for text in ("", "[]", '{"a": "1"}', '{"a": -1.0}', '{"a": 1'):
        path.write_text(text)
        assert LayerCache("portable", 1).seconds == {}


def test_a_folder_that_cannot_be_written_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(layer_cache, "folder", lambda: tmp_path / "file" / "folder")
    assert TimedLayers().latency(LAYERS[2], None, 0.0) > 0


def test_what_is_between_layers_is_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3)).eval()
    between = TimedLayers.of(model, image(4, 12, 12)).others(
        billhook.capture(model, image(4, 12, 12)).weights
    )
    assert between > 0
    monkeypatch.setattr(layer_latency, "time_between", lambda *_, **__: pytest.fail("is timed again"))
    again = TimedLayers.of(model, image(4, 12, 12))
    assert again.others(billhook.capture(model, image(4, 12, 12)).weights) == between


def test_depthwise_zeros_save_nothing(asked: list[list[LayerPoint]]) -> None:
    layer = conv("dw", 64, 64, groups=64)
    model = TimedLayers([layer, *LAYERS])
    assert model.latency(layer, parse_pattern("4x1"), 0.9) == model.latency(layer, None, 0.0)
    assert all(p.pattern is None for points in asked for p in points if p.form.depthwise)


def test_a_layer_that_the_engine_lacks_takes_what_the_table_says() -> None:
    layer = WeightLayer("up.weight", "up", "conv", (16, 4, 2, 2), (2, 2), (2, 2), 2, True, 100)
    expected = LatencyTable.default().latency(layer, None, 0.0)
    assert TimedLayers([layer]).latency(layer, None, 0.0) == expected


def test_several_samples_and_uses_take_as_often_the_time(asked: list[list[LayerPoint]]) -> None:
    layer = replace(LAYERS[0], plane=(12, 12))
    once, thrice = (
        TimedLayers().latency(replace(layer, positions=n * 144), parse_pattern("4x1"), 0.5) for n in (1, 3)
    )
    assert thrice == pytest.approx(3 * once)
    fc = TimedLayers().latency(replace(LAYERS[2], positions=5), None, 0.0)
    assert fc == pytest.approx(5 * TimedLayers().latency(LAYERS[2], None, 0.0))


def test_large_layers_take_the_time_of_all_outputs(asked: list[list[LayerPoint]]) -> None:
    layer = linear("fc", 4096, 25088)
    assert TimedLayers().latency(layer, None, 0.0) == pytest.approx(1.25 * 4096 * 25088)
    assert asked[0][0].form.weights < 2**23


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, float("nan")])
def test_a_sparsity_outside_its_range_is_refused(sparsity: float) -> None:
    with pytest.raises(InputError, match="at least 0 and below 1"):
        TimedLayers().latency(LAYERS[0], None, sparsity)


@pytest.mark.parametrize("pattern", ["1x1", "4x1", "kernel_pattern", "filter", "16x1"])
def test_weights_that_are_timed_have_the_zeros_of_the_pattern(pattern: str) -> None:
    point = LayerPoint(LayerForm(32, 16, (5, 5), (3, 3)), parse_pattern(pattern), 0.75)
    weight = point.weight
    assert weight.shape == (32, 16, 9)
    assert (weight == 0).mean() == pytest.approx(0.75, abs=0.01)
    rows = (weight != 0).reshape(2, 16, 16, 9)
    assert (rows.any(axis=1) == rows.all(axis=1)).all() == (pattern == "16x1")


def test_weights_that_do_not_fit_into_one_file_come_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_timing, "_AT_ONCE", 600)
    forms = [LayerForm(8, n, (9, 9)) for n in (8, 16, 32, 64, 128)]
    points = [LayerPoint(form, None, 0.0) for form in forms]
    assert [len(part) for part in layer_timing._parts(points)] == [3, 1, 1]
    assert set(time_points(points)) == {str(p) for p in points}


def test_rules_map_by_it() -> None:
    layers = [conv(f"l{i}", 64, 64, pixels=256) for i in range(3)]
    mapped = map_by_rules(layers, sparsity=0.9, table=TimedLayers(layers))
    assert len(mapped.patterns) == 3
