"""Ranges of a network's values on data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from billhook.compile.int8.calibration import Calibration, calibrate
from billhook.compile.ir import Network
from billhook.compile.lower import lower
from billhook.compile.passes import run_passes
from billhook.errors import InputError, NameNotFoundError
from tests.unit.compile.exactness import Function, image


def network(model: nn.Module, *inputs: torch.Tensor) -> Network:
    """Return the network after the passes."""
    return run_passes(lower(model.eval(), inputs))


def test_ranges_and_means_are_those_of_all_batches() -> None:
    model = nn.Sequential(nn.Conv2d(4, 3, 3), nn.ReLU())
    batches = [image(batch=2), 3 * image(batch=5), image(batch=1)]
    found = calibrate(network(model, image()), Calibration(batches, "minmax"))
    whole = torch.cat(batches)
    x, made = found.values()
    with torch.no_grad():
        expected = model(whole)
    assert (x.low, x.high) == (float(whole.min()), float(whole.max()))
    assert made.low == 0
    assert made.high == pytest.approx(float(expected.max()), rel=1e-5)
    assert made.means is not None
    assert x.means is not None
    np.testing.assert_allclose(x.means, whole.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(made.means, expected.mean((0, 2, 3)), rtol=1e-4)


def test_methods_differ_where_there_are_outliers() -> None:
    x = image(4, 64, 64, batch=8)
    x[0, 0, 0, 0] = 9.0
    net = network(nn.Conv2d(4, 2, 1), x)
    high = {
        method: next(iter(calibrate(net, Calibration([x], method)).values())).high
        for method in ("minmax", "percentile", "mse")
    }
    assert high["minmax"] == 9.0
    assert high["mse"] < 9.0
    assert high["percentile"] < high["minmax"]


def test_several_inputs_come_by_name_or_in_order() -> None:
    model = Function(lambda a, x, y: a(x) + y, nn.Conv2d(4, 4, 1))
    net = network(model, image(), image())
    pair = (image(), 7 * image())
    high = [r.high for r in calibrate(net, Calibration([pair], "minmax")).values()]
    names = [p.name for p in net.inputs]
    named = calibrate(net, Calibration([dict(zip(reversed(names), reversed(pair), strict=True))], "minmax"))
    assert high == [r.high for r in named.values()]


NAN = image().clone()
NAN[0, 0, 0, 0] = float("nan")
WRONG: dict[str, tuple[list[Any], str]] = {
    "none": ([], "no batches"),
    "another size": ([image(4, 5, 5)], r"shapes 2×4×5×5; the network takes batch×4×6×5"),
    "targets": ([(image(), torch.zeros(2))], r"2 tensors, and the network takes 1; give inputs only"),
    "empty": ([image()[:0]], "0×4×6×5"),
    "not a number": ([NAN], r"not finite on the calibration data: '\w+'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_batches_are_told(name: str) -> None:
    batches, message = WRONG[name]
    with pytest.raises(InputError, match=message):
        calibrate(network(nn.Conv2d(4, 2, 1), image()), Calibration(batches))


def test_infinite_activations_are_named() -> None:
    model = nn.Sequential(nn.Conv2d(4, 2, 1), nn.Tanh())
    nn.init.constant_(model[0].weight, 1e38)
    net = network(nn.Sequential(model, nn.Conv2d(2, 2, 1)), image())
    calibrate(net, Calibration([image() / 100]))
    nn.init.constant_(model[0].weight, 3e38)
    net = network(nn.Sequential(nn.Conv2d(4, 4, 1), model[0]), image())
    with pytest.raises(InputError, match=f"not finite .*'{net.ops[-1].output.name}'"):
        calibrate(net, Calibration([100 * image()]))


def test_wrong_rules_are_told() -> None:
    with pytest.raises(NameNotFoundError, match="did you mean 'minmax'"):
        Calibration([image()], "min-max")
    with pytest.raises(InputError, match=r"write \('conv\*',\)"):
        Calibration([torch.zeros(1)], keep="conv*")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="percentile is 20"):
        Calibration([image()], percentile=20)
    with pytest.raises(InputError, match=r"write \[batch\]"):
        Calibration(image())
    with pytest.raises(InputError, match="gone through again, not a list_iterator"):
        Calibration(iter([image()]))
