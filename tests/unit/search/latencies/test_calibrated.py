"""Calibrated models: what they say of networks they have not seen, monotone, the same after JSON."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from billhook.deploy.backends.billhook_ import BillhookEngine
from billhook.errors import InputError, StorageError
from billhook.search.latencies.calibrated import CalibratedLatency, Kind
from billhook.search.latencies.table import LayerTable, TableTerms
from billhook.search.problem import SearchProblem
from billhook.search.space import Floats, Genes
from tests.search import problem, problem_of
from tests.unit.search.latencies.fake_rig import FakeLayers, FakeRig


@pytest.fixture(autouse=True)
def layers(monkeypatch: pytest.MonkeyPatch) -> FakeLayers:
    fake = FakeLayers()
    monkeypatch.setattr(BillhookEngine, "layer_times", lambda *_: fake)
    return fake


def sparse() -> SearchProblem:
    return problem("residual", pattern="4x1|dense", backend="billhook")


def of_macs(searched: SearchProblem) -> FakeRig:
    """Return a rig on which a network takes a picosecond for each MAC, and 20 ns."""

    def truth(rows: Genes) -> Floats:
        macs = searched.graph.costs.evaluate(searched.space.counts(rows), ("macs",))["macs"]
        return 1e-12 * macs + 2e-8

    return FakeRig(searched.space, truth)


def test_a_table_finds_the_factor_and_the_constant_of_the_machine() -> None:
    searched = problem("residual", backend="billhook")
    terms = TableTerms(searched.space, LayerTable.measure(searched))
    rig = FakeRig(searched.space, lambda rows: 3.0 * terms.seconds(rows) + 7000.0)
    model = CalibratedLatency.measure(searched, "table", samples=6, rig=rig)
    rows = searched.space.random(np.random.default_rng(5), 20)
    assert model.of(rows) == pytest.approx(3.0 * terms.seconds(rows) + 7000.0, rel=1e-6)
    whole = float(terms.seconds(searched.space.highest[None])[0])
    assert model.original == pytest.approx(3.0 * whole + 7000.0)
    assert model.state.calibration.constant * model.record.original == pytest.approx(7000.0)
    assert model.record.samples == len(rig.asked) == 6
    assert model.record.worst_error < 1e-6


def test_a_fitted_model_learns_what_a_machine_does() -> None:
    searched = problem("residual")
    rig = of_macs(searched)
    model = CalibratedLatency.measure(searched, "fitted", rig=rig)
    rows = searched.space.random(np.random.default_rng(5), 50)
    assert model.of(rows) == pytest.approx(rig.truth(rows), rel=0.02)
    assert model.record.mean_error < 0.02
    assert model.record.kind == "fitted"
    assert model.record.backend == "onnxruntime"
    assert "networks it had not seen" in str(model.record)


@pytest.mark.parametrize("kind", ["table", "fitted"])
def test_no_gene_makes_a_larger_network_faster(kind: Kind) -> None:
    searched = sparse()
    rig = replace(of_macs(searched), noise=0.1)
    model, space = CalibratedLatency.measure(searched, kind, samples=8, rig=rig), searched.space
    rows = space.random(np.random.default_rng(0), 30)
    before = model.of(rows)
    for gene in range(len(space.genes)):
        more = rows.copy()
        more[:, gene] = np.minimum(more[:, gene] + 1, space.highest[gene])
        assert (model.of(more) >= before * (1 - 1e-12)).all()
    assert model.of(space.lowest[None])[0] < model.original


def test_the_error_that_is_told_is_that_of_networks_not_seen(caplog: pytest.LogCaptureFixture) -> None:
    searched = problem("residual")
    steady, noisy = (replace(of_macs(searched), noise=noise) for noise in (0.02, 0.4))
    with caplog.at_level(logging.WARNING, "billhook"):
        first = CalibratedLatency.measure(searched, "fitted", rig=steady).record
        assert "off by" not in caplog.text
        second = CalibratedLatency.measure(searched, "fitted", rig=noisy).record
    assert 0.005 < first.mean_error <= first.worst_error < 0.15
    assert second.mean_error > 0.1
    assert "off by" in caplog.text


@pytest.mark.parametrize("kind", ["table", "fitted"])
def test_it_says_the_same_after_json(kind: Kind) -> None:
    searched = sparse()
    model = CalibratedLatency.measure(searched, kind, samples=6, rig=of_macs(searched))
    again = CalibratedLatency.from_dict(searched.space, json.loads(json.dumps(model.to_dict())))
    rows = searched.space.random(np.random.default_rng(0), 20)
    assert np.array_equal(again.of(rows), model.of(rows))
    assert again.original == model.original
    assert again.record == model.record


def test_a_model_of_other_candidates_or_a_damaged_one_is_refused() -> None:
    searched = problem("residual")
    data = CalibratedLatency.measure(searched, "fitted", samples=6, rig=of_macs(searched)).to_dict()
    with pytest.raises(StorageError, match="made for other candidates"):
        CalibratedLatency.from_dict(problem("residual", lowest=0.5).space, data)
    calibration: dict[str, Any] = data["calibration"]
    short = {**calibration, "coefficients": calibration["coefficients"][1:]}
    with pytest.raises(StorageError, match="another number of coefficients"):
        CalibratedLatency.from_dict(searched.space, {**data, "calibration": short})
    other = {**data, "record": {**data["record"], "kind": "measured"}}
    with pytest.raises(StorageError, match="'measured', expected 'table' or 'fitted'"):
        CalibratedLatency.from_dict(searched.space, other)
    with pytest.raises(StorageError, match=r"latency model\.record"):
        CalibratedLatency.from_dict(searched.space, {**data, "record": {}})


def test_densities_make_no_difference_to_most_runtimes() -> None:
    with pytest.raises(InputError, match="densities make no difference"):
        CalibratedLatency.measure(problem("residual", pattern="4x1|dense"), "fitted")


@pytest.mark.serial
@pytest.mark.slow
def test_onnxruntime_is_predicted() -> None:
    pytest.importorskip("onnxruntime")
    layers = [nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Conv2d(64, 5, 1)]
    searched = problem_of(nn.Sequential(*layers).eval(), torch.zeros(1, 3, 24, 24), criterion="first")
    model = CalibratedLatency.measure(searched, "fitted", samples=4)
    low, high = model.of(np.stack([searched.space.lowest, searched.space.highest]))
    assert low < 0.4 * high
    assert high == pytest.approx(model.record.original, rel=0.2)
    assert 1e-6 < high < 1e-2
    assert model.record.mean_error < 0.5
