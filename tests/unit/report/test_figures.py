from __future__ import annotations

import json

import plotly.graph_objects
import pytest

from billhook.report.figures import Figure, channels, distances, label, training, weights
from billhook.run_record import Distance, Epoch, LayerChange
from tests.unit.report.fabricated import EVIL, deep_run, one_run


def valid(figure: Figure | None) -> Figure:
    """Return the figure if Plotly knows each of its properties and values."""
    assert figure is not None
    plotly.graph_objects.Figure(data=figure["data"], layout=figure["layout"])
    json.dumps(figure, allow_nan=False)
    return figure


def test_there_are_two_bars_per_layer_in_processing_order() -> None:
    figure = valid(channels(one_run().layers))
    original, compressed = figure["data"]
    assert original["x"][:3] == [16, 16, 16]
    assert compressed["x"][:3] == [16, 12, 16]
    assert compressed["text"][:3] == ["", "12 of 16", ""]
    first, last = figure["layout"]["yaxis"]["range"]
    assert first > last  # the first layer is at the top


def test_two_hundred_layers_get_room() -> None:
    assert valid(channels(deep_run(200).layers))["layout"]["height"] > 200 * 20


def test_layers_of_the_same_name_stay_apart() -> None:
    figure = valid(channels([LayerChange("a", "conv2d", 4, 2), LayerChange("a", "conv2d", 8, 8)]))
    assert figure["data"][0]["y"] == [0, 1]
    assert figure["layout"]["yaxis"]["ticktext"] == ["a", "a"]


def test_a_layer_without_channels_has_no_share() -> None:
    assert "–" in valid(channels([LayerChange("a", "conv2d", 0, 0)]))["data"][0]["hovertext"][0]


def test_history_has_accuracy_in_percent_and_gaps_where_nothing_was_measured() -> None:
    accuracy, loss = valid(training([Epoch(1, 0.5, 0.9), Epoch(2, None, None)]))["data"]
    assert accuracy["y"] == [90.0, None]
    assert loss["y"] == [0.5, None]


@pytest.mark.parametrize("figure", [channels(()), training(())])
def test_nothing_gives_no_figure(figure: Figure | None) -> None:
    assert figure is None


def test_a_label_keeps_the_end_of_a_long_name_and_is_no_markup() -> None:
    assert label("features.denseblock1.denselayer12.conv2") == "…enseblock1.denselayer12.conv2"
    assert label("a<b>&") == "a&lt;b&gt;&amp;"
    assert "<" not in json.dumps(channels([LayerChange(EVIL, EVIL, 1, 1)])).replace("<br>", "")


SPARSE = [
    LayerChange("a", "conv2d", 8, 8, weights=1000, kept=150, pattern="4x1"),
    LayerChange("b", "linear", 10, 10, weights=200, kept=200),
    LayerChange("copy", "channelcopy", 8, 8),
]


def test_weights_are_bars_in_percent_of_the_original() -> None:
    figure = valid(weights(SPARSE))
    (bars,) = figure["data"]
    assert bars["x"] == [15.0, 100.0]
    assert bars["text"] == ["15.0 % of 1.00 k", "100.0 % of 200"]
    assert bars["marker"]["color"] == ["var(--after)", "var(--before)"]
    assert bars["hovertext"][0] == "a (conv2d)<br>150 of 1,000 weights, 4x1"
    assert figure["layout"]["yaxis"]["ticktext"] == ["a", "b"]


def test_without_patterns_there_are_no_bars_of_weights() -> None:
    assert weights(SPARSE[1:]) is None
    assert weights(one_run().layers) is None


def test_names_of_patterns_are_no_markup() -> None:
    evil = LayerChange(EVIL, EVIL, 1, 1, weights=1, kept=1, pattern=EVIL)
    assert "<" not in json.dumps(valid(weights([evil]))).replace("<br>", "")


def test_distances_to_patterns_are_two_lines_on_a_logarithmic_axis() -> None:
    figure = valid(distances([Distance(0, 0.5, 0.1), Distance(10, 0.05, 0.0), Distance(20, None, 0.01)]))
    primal, dual = figure["data"]
    assert (primal["x"], primal["y"]) == ([0, 10, 20], [0.5, 0.05, None])
    assert dual["y"] == [0.1, None, 0.01]  # a logarithmic axis has no zero
    assert figure["layout"]["yaxis"]["type"] == "log"


def test_one_point_is_no_line() -> None:
    assert distances(()) is None
    assert distances([Distance(0, 0.5, 0.1)]) is None
