from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from billhook.deploy import export
from billhook.errors import (
    BillhookError,
    ExportError,
    InputError,
    MissingExtraError,
    NameNotFoundError,
    StorageError,
)
from billhook.graph.plan import Plan
from billhook.measure import Artifact
from billhook.results import Cost
from tests.unit.deploy.toy_networks import Attention, Branches, convolutions

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_an_artifact_tells_everything_about_itself(tmp_path: Path) -> None:
    plan = Plan({"0": np.ones(8, dtype=bool)}, "fingerprint")
    made = export(
        convolutions(),
        IMAGE,
        tmp_path / "net",
        inputs_for_parity=torch.randn(16, 3, 8, 8),
        preprocessing={"mean": [0.5, 0.5, 0.5], "size": 8, "classes": "a b c d e"},
        plan=plan,
        cost=Cost(1, 2, 3, 4),
    )
    assert Artifact.load(tmp_path / "net" / "model.onnx") == made
    m = made.manifest
    assert (m.backend, m.purpose, m.opset, m.dynamic_batch) == ("onnxruntime", "shipping", 18, True)
    assert m.parity is not None
    assert m.parity["inputs"] == "given"
    assert m.parity["batches"] == [16, 1, 17]
    assert m.parity["max_rel_error"] < 1e-4
    assert m.preprocessing == {"mean": [0.5, 0.5, 0.5], "size": 8, "classes": "a b c d e"}
    assert m.cost == {"macs": 1, "params": 2, "bytes": 3, "peak_activation_bytes": 4}
    assert m.plan is not None
    assert len(m.plan) == 64
    assert {"torch", "onnx", "onnxscript", "onnxruntime"} <= set(m.versions)


def test_attention_is_exported_and_checked(tmp_path: Path) -> None:
    made = export(Attention(), torch.randint(0, 20, (2, 6)), tmp_path / "net")
    assert made.manifest.parity is not None
    assert made.manifest.parity["argmax_agreement"] == 1.0


def test_an_artifact_for_timing_has_the_same_operators_but_no_check(tmp_path: Path) -> None:
    import onnx

    timed = export(convolutions(), IMAGE, tmp_path / "timed", purpose="timing")
    shipped = export(convolutions(), IMAGE, tmp_path / "shipped")
    assert timed.manifest.purpose == "timing"
    assert timed.manifest.parity is None
    assert not timed.manifest.dynamic_batch
    kinds = [[n.op_type for n in onnx.load(a.model_path).graph.node] for a in (timed, shipped)]
    assert kinds[0] == kinds[1]


def test_large_weights_go_into_a_file_of_their_own_which_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("billhook.deploy.onnx.EMBED_LIMIT", 1000)
    made = export(convolutions(width=64), IMAGE, tmp_path / "net")
    assert [f.name for f in made.manifest.files] == ["model.onnx", "model.onnx.data"]
    (made.directory / "model.onnx.data").unlink()
    with pytest.raises(StorageError, match=r"model\.onnx\.data: missing"):
        Artifact.load(made.directory)


def test_an_existing_folder_is_never_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "net"
    export(convolutions(), IMAGE, target)
    before = sorted((p.name, p.read_bytes()) for p in target.iterdir())
    with pytest.raises(StorageError, match="net exists and is never overwritten"):
        export(convolutions(), IMAGE, target)
    assert sorted((p.name, p.read_bytes()) for p in target.iterdir()) == before


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    export(convolutions(), IMAGE, tmp_path / "net", purpose="timing")
    Artifact.load(tmp_path / "net")


@pytest.mark.parametrize(
    "failure", [ExportError("no"), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")]
)
def test_a_failure_leaves_nothing_behind(
    failure: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise failure

    monkeypatch.setattr("billhook.deploy.exporter.check_parity", fail)
    expected = StorageError if isinstance(failure, OSError) else type(failure)
    with pytest.raises(expected) as caught:
        export(convolutions(), IMAGE, tmp_path / "deep" / "net")
    assert list((tmp_path / "deep").iterdir()) == []
    if isinstance(failure, OSError):
        assert "cannot write" in str(caught.value)
        assert "No space left" in str(caught.value)


def test_a_network_that_cannot_be_exported_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="toy_networks"):
        export(Branches(), torch.randn(2, 4), tmp_path / "net")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        export(convolutions(), IMAGE, tmp_path / "file" / "net")


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"backend": "onnxruntme"}, NameNotFoundError, "did you mean 'onnxruntime'"),
        ({"purpose": "fun"}, InputError, "'shipping' or 'timing'"),
        ({"preprocessing": {"classes": {1, 2}}}, InputError, "plain data"),
        ({"preprocessing": {"mean": float("nan")}}, InputError, "plain data"),
        ({"inputs_for_parity": torch.randn(2, 1, 8, 8)}, ExportError, r"itself fails .*\[2, 1, 8, 8\]"),
    ],
)
def test_wrong_arguments(
    wrong: dict[str, Any], error: type[BillhookError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        export(convolutions(), IMAGE, tmp_path / "net", **wrong)
    assert list(tmp_path.iterdir()) == []


def test_without_onnxruntime_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"'onnxruntime', which is not installed.*billhook\[onnx\]"):
        export(convolutions(), IMAGE, tmp_path / "net")
    assert list(tmp_path.iterdir()) == []
