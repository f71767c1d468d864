from __future__ import annotations

import json
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from billhook.errors import InputError, StorageError
from billhook.graph.patterns import Pattern, parse_pattern
from billhook.graph.weights import WeightLayer
from billhook.sparse.mapping import LatencyTable, network_latency
from tests.unit.sparse.mapping.made_layers import conv, linear, table

POINTWISE = conv("a", 64, 64, 1)


def _relative(layer: WeightLayer, pattern: str, sparsity: float) -> float:
    """Time without the constant, relative to dense."""
    default = LatencyTable.default()
    dense, sparse = (
        default.latency(layer, p, sparsity) - default.layer_seconds for p in (None, parse_pattern(pattern))
    )
    return sparse / dense


def test_the_default_table_says_what_the_engine_measured() -> None:
    # Whole networks in it, 8×1, over their dense time: 3.3 and 5.2 times as fast at 80 and 90 % (ResNet-50).
    assert 3.0 < 1 / _relative(POINTWISE, "8x1", 0.8) < 4.5
    assert 4.5 < 1 / _relative(conv("a", 64, 64), "8x1", 0.9) < 7.0
    assert _relative(POINTWISE, "4x1", 0.8) == pytest.approx(_relative(POINTWISE, "8x1", 0.8), rel=0.1)
    assert 1.5 < _relative(POINTWISE, "1x1", 0.8) / _relative(POINTWISE, "8x1", 0.8) < 3.0


def test_few_zeros_do_not_pay() -> None:
    for layer in (POINTWISE, conv("a", 64, 64)):
        assert 0.9 < _relative(layer, "8x1", 0.1) <= 1
        assert _relative(layer, "unstructured", 0.3) > 0.99 > _relative(layer, "8x1", 0.35)


def test_the_default_table_names_its_conditions_and_survives_json() -> None:
    default = LatencyTable.default()
    assert "avx512" in default.device
    assert "measured" in default.basis["times"]
    assert LatencyTable.from_dict(json.loads(json.dumps(default.to_dict()))) == default


def test_dense_time_is_a_constant_and_the_macs() -> None:
    default = LatencyTable.default()
    small, large = (default.latency(conv("a", 64, 64, pixels=n), None, 0.0) for n in (1000, 2000))
    assert large - default.layer_seconds == pytest.approx(2 * (small - default.layer_seconds))
    assert default.layer_seconds > 0


def test_a_linear_layer_is_as_slow_as_its_weights_are_read() -> None:
    layer = linear("fc", 4096, 25088)
    default = LatencyTable.default()
    assert default.latency(layer, None, 0.0) == pytest.approx(
        4096 * 25088 * 4 / default.bytes_per_second, rel=0.01
    )


@pytest.mark.parametrize("pattern", ["1x1", "2x1", "4x1", "8x1", "8x4", "64x1"])
@pytest.mark.parametrize("layer", [POINTWISE, conv("b", 64, 64), conv("c", 64, 64, 7), linear("d", 64, 64)])
def test_more_zeros_never_take_longer(layer: WeightLayer, pattern: str) -> None:
    times = [LatencyTable.default().latency(layer, parse_pattern(pattern), s / 100) for s in range(100)]
    assert all(b <= a for a, b in pairwise(times))
    assert times[-1] > 0


def test_rows_between_two_entries_are_interpolated_and_beyond_the_last_are_as_fast() -> None:
    given = table(rows_4=[1, 0.5, 0], rows_8=[0.8, 0.4, 0])
    layer, dense = conv("a", 64, 64, 1), 64 * 64 * 3136
    times = {p: given.latency(layer, parse_pattern(p), 0.5) / dense for p in ("1x1", "2x1", "4x1", "8x1")}
    assert times == pytest.approx({"1x1": 1, "2x1": 0.75, "4x1": 0.5, "8x1": 0.4})
    for pattern in ("16x1", "8x4", "64x64"):
        assert given.latency(layer, parse_pattern(pattern), 0.5) / dense == pytest.approx(0.4)


def test_blocks_that_do_not_fill_a_tile_count_as_the_tiles_that_they_fill() -> None:
    given = table(rows_4=[1, 0.5, 0], rows_8=[0.8, 0.4, 0])
    layer, dense = conv("a", 64, 64, 1), 64 * 64 * 3136
    assert given.latency(layer, parse_pattern("12x1"), 0.5) / dense == pytest.approx(0.5)
    assert given.latency(layer, parse_pattern("7x1"), 0.5) / dense == pytest.approx(1)
    narrow = conv("a", 4, 64, 1)  # all outputs are one block
    assert given.latency(narrow, parse_pattern("8x1"), 0.5) / narrow.macs == pytest.approx(0.5)


def test_a_depthwise_convolution_is_dense_only() -> None:
    layer = conv("dw", 64, 64, groups=64)
    assert LatencyTable.default().latency(layer, None, 0.0) > 0
    with pytest.raises(InputError, match=r"dw\.weight: depthwise"):
        LatencyTable.default().latency(layer, parse_pattern("4x1"), 0.5)


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan"), True, "0.5"])
def test_a_sparsity_outside_its_range_is_refused(sparsity: Any) -> None:
    with pytest.raises(InputError, match="at least 0 and below 1"):
        LatencyTable.default().latency(POINTWISE, parse_pattern("4x1"), sparsity)


def test_a_sparsity_may_be_any_number() -> None:
    layer, pattern = conv("a", 64, 64), parse_pattern("4x1")
    times = {table().latency(layer, pattern, s) for s in (0.5, np.float32(0.5), Fraction(1, 2))}  # type: ignore[arg-type]
    assert len(times) == 1


def test_an_unknown_kind_of_layer_is_refused() -> None:
    layer = WeightLayer("a.weight", "a", "recurrent", (4, 4))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"a\.weight: unknown kind of layer 'recurrent'"):
        LatencyTable.default().latency(layer, None, 0.0)


def test_a_network_takes_the_sum_of_its_layers() -> None:
    layers = [conv("a", 64, 64, 1), conv("b", 64, 64), linear("c", 10, 64)]
    default, pattern = LatencyTable.default(), parse_pattern("8x1")
    times = [default.latency(la, None, 0.0) for la in layers]
    assert default.network(layers, {}) == pytest.approx(sum(times))
    sparse = default.latency(layers[1], pattern, 0.9)
    choices: dict[str, Pattern | None] = {"a.weight": None, "b.weight": pattern}
    assert default.network(layers, choices, 0.9) == pytest.approx(times[0] + sparse + times[2])
    assert default.network(layers, choices, {"b.weight": 0.9}) == default.network(layers, choices, 0.9)


def test_another_model_of_latency_can_take_the_place_of_the_table() -> None:
    class Measured:
        def latency(self, layer: WeightLayer, pattern: Pattern | None, sparsity: float) -> float:
            return 1.0 if pattern is None else 1 - sparsity

    layers = [conv("a", 8, 8), conv("b", 8, 8)]
    assert network_latency(Measured(), layers, {"b.weight": parse_pattern("4x1")}, 0.75) == 1.25


def test_a_pattern_without_a_sparsity_or_for_no_layer_is_refused() -> None:
    layers = [conv("a", 8, 8)]
    with pytest.raises(InputError, match=r"a\.weight has the pattern .* but no sparsity"):
        LatencyTable.default().network(layers, {"a.weight": parse_pattern("4x1")}, {})
    with pytest.raises(InputError, match=r"no layer has the weight 'a\.wight'; did you mean 'a\.weight'"):
        LatencyTable.default().network(layers, {"a.wight": None})


def test_a_table_of_another_device_is_read_from_a_file(tmp_path: Path) -> None:
    data = LatencyTable.default().to_dict()
    data["device"] = "mine"
    data["kinds"]["conv_1x1"]["times"]["rows_16"] = [0.5] * len(data["sparsity"])
    path = tmp_path / "table.json"
    path.write_text(json.dumps(data))
    mine = LatencyTable.load(path)
    assert mine.device == "mine"
    assert mine.latency(POINTWISE, parse_pattern("16x1"), 0.1) < LatencyTable.default().latency(
        POINTWISE, parse_pattern("16x1"), 0.1
    )


def _broken(*path: str, value: Any) -> dict[str, Any]:
    data = LatencyTable.default().to_dict()
    place = data
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return data


ROWS_8 = ("kinds", "conv_1x1", "times", "rows_8")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("kinds",), None, "entry 'kinds' is missing"),
        (("kinds", "linear"), None, "kinds: entry 'linear' is missing"),
        (("kinds", "linea"), {"macs_per_second": 1, "times": {}}, "unknown kind of layer 'linea'; did you"),
        (("kinds", "conv", "times", "rows_1"), None, r"kinds\.conv\.times: entry 'rows_1' is missing"),
        (("kinds", "conv_3x3", "times", "kernel"), None, "entry 'kernel' is missing"),
        (("kinds", "conv", "times", "coarse"), None, "entry 'coarse' is missing"),
        (("kinds", "depthwise", "times"), {"rows_1": [1.0] * 7}, "depthwise convolutions stay dense"),
        (ROWS_8, [1.0, 0.5], r"kinds\.conv_1x1\.times\.rows_8: 2 times for 12 sparsities"),
        (ROWS_8, [1, 0.5, 0.6, 0.4, 0.3, 0.2, 0.1], r"kinds\.conv_1x1: times\.rows_8: .* must not rise"),
        (ROWS_8, [1, 0.5, 0.4, 0.3, 0.2, 0.1, -0.1], r"times\.rows_8: must be at least 0"),
        (ROWS_8, [1, 0.5, 0.4, 0.3, float("nan"), 0.1, 0], r"rows_8\[4\]: expected a finite number"),
        (ROWS_8, [1, 0.5, 0.4, 0.3, "0.2", 0.1, 0], r"rows_8\[4\]: expected a finite number"),
        (ROWS_8, 1.0, "expected a list"),
        (("kinds", "conv", "times", "rows_0"), [1.0] * 7, "times.rows_0: unknown class"),
        (("kinds", "conv", "times", "rows_99999"), [1.0] * 7, "times.rows_99999: unknown class"),
        (("kinds", "conv", "times", "row_8"), [1.0] * 7, "times.row_8: unknown class"),
        (("kinds", "conv", "macs_per_second"), 0.0, "macs_per_second=0 must be above 0"),
        (("sparsity",), [0, 0.5, 0.5, 0.8, 0.9, 0.95, 1.0], "must rise from 0 to 1"),
        (("sparsity",), [0.1, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0], "must rise from 0 to 1"),
        (("layer_seconds",), -1.0, "layer_seconds must be at least 0"),
        (("bytes_per_second",), 0.0, "bytes_per_second above 0"),
        (("format",), "billhook.plan/1", "expected one of billhook.latency_table/1"),
        (("speed",), 1, "unknown entry 'speed'"),
    ],
)
def test_a_wrong_table_is_refused_and_the_entry_named(
    path: tuple[str, ...], value: Any, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(_broken(*path, value=value)))
    with pytest.raises(StorageError, match=message) as caught:
        LatencyTable.load(file)
    assert "mine.json" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 10_000, " " * (2**20 + 1)])
def test_a_file_that_is_no_table_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(text)
    with pytest.raises(StorageError, match=r"mine\.json"):
        LatencyTable.load(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"mine\.json: cannot be read"):
        LatencyTable.load(tmp_path / "mine.json")


def test_outputs_of_a_transposed_convolution_are_counted_within_their_group() -> None:
    given = table(rows_4=[1, 0.5, 0], rows_8=[0.8, 0.4, 0])
    layer = WeightLayer("up.weight", "up", "conv", (16, 4, 2, 2), (2, 2), (2, 2), 2, True, 100)
    assert given.latency(layer, parse_pattern("8x1"), 0.5) / layer.macs == pytest.approx(0.5)


def test_filters_take_about_the_time_of_the_macs_that_stay() -> None:
    assert _relative(POINTWISE, "filter", 0.75) == pytest.approx(0.3, rel=0.2)


def test_kernel_patterns_take_about_as_long_as_single_weights() -> None:
    layer = conv("a", 64, 64)
    blocks, kernels, single = (_relative(layer, p, 0.8) for p in ("4x1", "kernel_pattern", "unstructured"))
    assert blocks < kernels == pytest.approx(single, rel=0.1)


def test_only_rows_that_share_inputs_make_a_block_fast() -> None:
    layer = linear("a", 64, 64)
    columns, rows, both = (_relative(layer, f"block:8x8,axis={a}", 0.8) for a in ("columns", "rows", "both"))
    assert columns == both < rows == _relative(layer, "unstructured", 0.8)
    assert _relative(layer, "column", 0.8) == columns
    assert _relative(layer, "2:4", 0.5) == _relative(layer, "unstructured", 0.5)
