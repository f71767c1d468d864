from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from billhook.deploy import export, lower_by_cost, lowering
from billhook.fuse import Fusion, fuse
from billhook.fuse._match import name_of
from billhook.graph import apply, capture, make_plan
from billhook.graph.fusions import LayeredNetwork
from billhook.graph.graph import cost
from billhook.measure import backends
from billhook.results import Cost
from tests.oracle import randomize
from tests.residual import BasicBlock, Stages, residual


@pytest.fixture(scope="module")
def gaps() -> tuple[LayeredNetwork, Tensor]:
    """Four blocks over images of two sizes; of each shortcut the first channel is gone."""
    _, x = residual("basic")
    model = Stages(BasicBlock)
    model.layer2.append(BasicBlock(16, 16))
    network = fuse(randomize(model.eval(), 0, x), x).network
    graph = capture(network, x)
    keep = {g.id: np.arange(g.size) > 0 for g in graph.groups if g.id.endswith(".copies")}
    small = apply(network, make_plan(graph, keep))
    assert isinstance(small, LayeredNetwork)
    return small.eval(), x


def _operators(network: nn.Module) -> Counter[str]:
    assert isinstance(network, LayeredNetwork)
    layers = (n for n in network.graph.nodes if n.op == "call_module")
    return Counter(
        [name_of(n) for n in network.graph.nodes if n.op == "call_function"]
        + [type(network.get_submodule(n.target)).__name__ for n in layers]
    )


class FakeRig:
    """Times networks, which nobody exports, by a function; counts what it has timed."""

    timed: int = 0
    seconds: Callable[[nn.Module], float] = staticmethod(lambda network: 1.0)

    def __init__(self, original: nn.Module, timing: Any) -> None:
        self.original = original
        type(self).threads = timing.threads  # type: ignore[attr-defined]

    def __enter__(self) -> FakeRig:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def relative_latency(self, candidate: nn.Module) -> SimpleNamespace:
        type(self).timed += 1
        return SimpleNamespace(ratio=self.seconds(candidate) / self.seconds(self.original))


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> type[FakeRig]:
    monkeypatch.setattr(lowering, "export", lambda network, inputs, target, **settings: network)
    monkeypatch.setattr(
        lowering, "export_for_timing", lambda network, inputs, target, timing, **_: (network, inputs, timing)
    )
    monkeypatch.setattr(lowering, "LatencyRig", FakeRig)
    monkeypatch.setattr(FakeRig, "timed", 0)
    return FakeRig


def _same(network: nn.Module, other: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(network(x), other(x), rtol=1e-4, atol=1e-5)


def test_the_fastest_form_wins(
    gaps: tuple[LayeredNetwork, Tensor], rig: type[FakeRig], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, x = gaps

    def seconds(candidate: nn.Module) -> float:
        return 10.0 - _operators(candidate)["index_select"]

    monkeypatch.setattr(FakeRig, "seconds", staticmethod(seconds))
    found = lower_by_cost(network, x, threads=2)
    assert set(found.forms.values()) == {"gather"}
    assert found.ratios["pointwise"] == 1.0
    assert found.ratios["gather"] < 1
    assert _operators(found.network)["index_select"] == len(found.forms)
    assert rig.threads == 2  # type: ignore[attr-defined]
    _same(found.network, network, x)


def test_blocks_over_images_of_different_sizes_may_get_different_forms(
    gaps: tuple[LayeredNetwork, Tensor], rig: type[FakeRig], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, x = gaps
    blocks = lowering.shortcuts(network, x)
    assert sorted(shape[2:] for shape in blocks.values()) == [(4, 4), (8, 8), (8, 8), (8, 8)]

    def seconds(candidate: nn.Module) -> float:
        """One look-up is good, more are bad."""
        return {0: 1.0, 1: 0.8}.get(_operators(candidate)["index_select"], 1.5)

    monkeypatch.setattr(FakeRig, "seconds", staticmethod(seconds))
    found = lower_by_cost(network, x)
    assert Counter(found.forms.values())["gather"] == 1
    label = min(found.ratios, key=lambda name: found.ratios[name])
    assert label.startswith("gather at ")
    _same(found.network, network, x)


def test_what_is_within_the_noise_changes_nothing_and_no_network_is_timed_twice(
    gaps: tuple[LayeredNetwork, Tensor], rig: type[FakeRig]
) -> None:
    network, x = gaps
    found = lower_by_cost(network, x)
    assert set(found.forms.values()) == {"pointwise"}
    assert rig.timed == len(found.ratios) - 1
    assert "sum" not in found.ratios  # with gaps it is what "pointwise" is


def test_a_network_that_has_lost_nothing_gets_its_operators_back_without_being_timed(
    rig: type[FakeRig],
) -> None:
    model, x = residual("basic")
    network = fuse(model, x).network.eval()
    found = lower_by_cost(network, x)
    assert rig.timed == 0
    assert (found.forms, found.ratios) == ({}, {})
    plain = lowering.lower(fuse(model, x, Fusion("none")).network, x)
    assert _operators(found.network) == _operators(plain)
    assert cost(found.network, x).macs == cost(model, x).macs
    _same(found.network, model, x)


def test_a_network_that_was_never_fused_only_gets_its_parameters_folded() -> None:
    model, x = residual("basic")
    found = lower_by_cost(model, x, fusion=Fusion("conservative"))
    assert _operators(found.network)["BatchNorm2d"] == 0
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    kept = lower_by_cost(model, x, fusion=Fusion("conservative", operators=("activation",)))
    assert any(isinstance(m, nn.BatchNorm2d) for m in kept.network.modules())
    _same(found.network, model, x)


def test_keep_always_measures_nothing(gaps: tuple[LayeredNetwork, Tensor], rig: type[FakeRig]) -> None:
    network, x = gaps
    found = lower_by_cost(network, x, fusion=Fusion(keep_if="always"))
    assert rig.timed == 0
    assert set(found.forms.values()) == {"concat"}
    assert cost(found.network, x).macs > cost(network, x).macs
    _same(found.network, network, x)


def _at_most(macs: int) -> Callable[[Cost], bool]:
    return lambda found: found.macs <= macs


@pytest.mark.parametrize("keep_if", ["cost", "always"])
def test_no_form_is_taken_that_breaks_the_budget(
    keep_if: str,
    gaps: tuple[LayeredNetwork, Tensor],
    rig: type[FakeRig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network, x = gaps
    # The look-up is the slowest, and the only one that costs no multiplication.
    monkeypatch.setattr(FakeRig, "seconds", staticmethod(lambda n: 1.0 + _operators(n)["index_select"]))
    macs = cost(network, x).macs
    found = lower_by_cost(network, x, fusion=Fusion(keep_if=keep_if), fits=_at_most(macs))
    assert set(found.forms.values()) == {"gather"}
    assert cost(found.network, x).macs == macs
    _same(found.network, network, x)


def test_a_budget_with_a_little_room_lets_some_blocks_have_the_faster_form(
    gaps: tuple[LayeredNetwork, Tensor], rig: type[FakeRig], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, x = gaps
    monkeypatch.setattr(FakeRig, "seconds", staticmethod(lambda n: 1.0 + _operators(n)["index_select"]))
    blocks = lowering.shortcuts(network, x)
    macs = cost(network, x).macs
    whole = cost(lowering.lower(network, x), x).macs
    found = lower_by_cost(network, x, fits=_at_most((macs + whole) // 2))
    assert set(found.forms.values()) == {"gather", "pointwise"}
    assert set(found.forms) == set(blocks)
    assert macs < cost(found.network, x).macs <= (macs + whole) // 2
    _same(found.network, network, x)


def test_exporting_a_fused_network_takes_the_usual_form_without_timing(
    gaps: tuple[LayeredNetwork, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, x = gaps
    taken: list[object] = []
    real = lowering.lower

    def noted(model: nn.Module, inputs: Any, **settings: Any) -> LayeredNetwork:
        taken.append(settings["forms"])
        return real(model, inputs, **settings)

    monkeypatch.setattr("billhook.deploy.exporter.lower", noted)
    artifact = export(network, x, tmp_path / "net")
    assert taken == [backends.get("onnxruntime").copy_form]
    assert artifact.manifest.parity is not None


@pytest.mark.slow
@pytest.mark.serial
def test_forms_are_measured_in_the_runtime(gaps: tuple[LayeredNetwork, Tensor]) -> None:
    network, x = gaps
    timing = lowering.Timing(rounds=2, seconds_per_round=0.02, warmup=0.01)
    found = lower_by_cost(network, x, timing=timing)
    assert len(found.ratios) > 2
    assert all(ratio > 0 for ratio in found.ratios.values())
    _same(found.network, network, x)
