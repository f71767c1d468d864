"""Which model of latency a search gets."""

from __future__ import annotations

import json
import logging
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from billhook.allocate.budget import Budget
from billhook.deploy.backends.billhook_ import BillhookEngine
from billhook.errors import InputError, StorageError, UnsupportedError
from billhook.search.driver import search
from billhook.search.latencies import measured, samples
from billhook.search.latency import known_latency, make_latency, needs_latency
from billhook.search.problem import SearchProblem
from tests.search import problem
from tests.unit.search.latencies.fake_rig import FakeLayers, FakeRig


class Machines:
    """Nothing is timed: layers and candidates take what formulas say, which differ between machines."""

    power = 1

    def rig_of(self, searched: SearchProblem) -> Any:
        """Return what times plans on this machine."""
        space, power = searched.space, self.power
        return nullcontext(FakeRig(space, lambda rows: space.fractions(rows).mean(1) ** power))


@pytest.fixture(autouse=True)
def machines(monkeypatch: pytest.MonkeyPatch) -> Machines:
    made = Machines()
    monkeypatch.setattr(samples, "rig_of", made.rig_of)
    monkeypatch.setattr(measured, "rig_of", made.rig_of)
    monkeypatch.setattr(BillhookEngine, "layer_times", lambda *_: FakeLayers())
    return made


@pytest.mark.parametrize(
    ("backend", "wanted", "kind"),
    [
        ("billhook", "auto", "table"),
        ("billhook", "table", "table"),
        ("billhook", "fitted", "fitted"),
        ("onnxruntime", "auto", "fitted"),
        ("openvino", "fitted", "fitted"),
        ("onnxruntime", "measured", "measured"),
    ],
)
def test_the_model_is_what_was_asked_for(backend: str, wanted: str, kind: str) -> None:
    searched = problem("plain", backend=backend, latency=wanted)
    made = make_latency(searched)
    assert made.record.kind == kind
    assert made.record.backend == backend
    again = known_latency(searched, json.loads(json.dumps(made.to_dict())))
    rows = np.stack([searched.space.lowest, searched.space.highest])
    assert np.array_equal(again.of(rows), made.of(rows))
    assert again.original == made.original


def test_latency_is_needed_where_somebody_asks_for_it() -> None:
    assert needs_latency(problem("plain", Budget(latency=0.5)))
    assert needs_latency(problem("plain", Budget(macs=0.5), metric="latency"))
    assert not needs_latency(problem("plain", Budget(macs=0.5)))
    assert not needs_latency(problem("plain"))


def test_a_table_where_layers_cannot_be_timed_is_refused() -> None:
    with pytest.raises(InputError, match="cannot time single layers"):
        make_latency(problem("plain", latency="table"))


@pytest.mark.parametrize("wanted", ["auto", "table", "fitted", "measured"])
def test_densities_in_a_runtime_that_computes_with_zeros_are_refused(wanted: str) -> None:
    with pytest.raises(InputError, match="densities make no difference to the latency in 'onnxruntime'"):
        make_latency(problem("plain", pattern="4x1|dense", latency=wanted))


def test_a_network_that_the_engine_cannot_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise UnsupportedError("the engine has no form for softplus", ["softplus"])

    monkeypatch.setattr(BillhookEngine, "layer_times", refuse)
    with caplog.at_level(logging.WARNING, "billhook"):
        assert make_latency(problem("plain", backend="billhook")).record.kind == "fitted"
    assert "softplus" in caplog.text
    for wanted in ("auto", "table", "fitted"):  # where it is left to, zeros save nothing
        with pytest.raises(UnsupportedError, match="softplus"):
            make_latency(problem("plain", backend="billhook", pattern="4x1|dense", latency=wanted))
    with pytest.raises(UnsupportedError, match="softplus"):
        make_latency(problem("plain", backend="billhook", latency="table"))


def test_a_model_for_another_runtime_or_of_no_format_is_refused() -> None:
    searched = problem("plain")
    data = make_latency(searched).to_dict()
    with pytest.raises(StorageError, match=r"'onnxruntime' on 1 threads, this search is for 'openvino'"):
        known_latency(replace(searched, backend="openvino"), data)
    with pytest.raises(StorageError, match="on 2"):
        known_latency(replace(searched, threads=2), data)
    for damaged in (None, [], {}, {"format": "billhook.row_latency/9"}):
        with pytest.raises(StorageError, match="unknown format"):
            known_latency(searched, damaged)


@pytest.mark.parametrize("wanted", ["fitted", "measured"])
def test_a_search_goes_on_with_the_times_that_it_began_with(
    wanted: str, machines: Machines, tmp_path: Path
) -> None:
    bounded = {} if wanted == "measured" else {"budget": Budget(latency=0.6)}
    searched = problem("plain", **bounded, metric="latency", latency=wanted)
    search(searched, "random", trials=4, study=tmp_path / "s.db")
    whole = search(searched, "random", trials=8).trials
    machines.power = 3
    found = search(searched, "random", trials=8, study=tmp_path / "s.db").trials
    assert [t.genes for t in found] == [t.genes for t in whole]
    assert [t.costs["latency"] for t in found[:4]] == [t.costs["latency"] for t in whole[:4]]
    elsewhere = search(searched, "random", trials=8).trials
    assert [t.costs["latency"] for t in elsewhere[:4]] != [t.costs["latency"] for t in whole[:4]]
