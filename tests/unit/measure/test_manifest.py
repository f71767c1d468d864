from __future__ import annotations

import json
from typing import Any

import pytest

from billhook.errors import StorageError
from billhook.measure import FileRecord, Manifest, TensorSpec

FULL = Manifest(
    backend="onnxruntime",
    model="model.onnx",
    files=(FileRecord("model.onnx", 10, "ab"), FileRecord("model.onnx.data", 20, "cd")),
    inputs=(TensorSpec("ids", (None, 16), "int64", 0, 99), TensorSpec("scale", (), "float32")),
    outputs=(TensorSpec("logits", (None, 10), "float32"),),
    batch=4,
    dynamic_batch=True,
    opset=18,
    versions={"torch": "2.13.0"},
    preprocessing={"mean": [0.5], "classes": ["cat", "dog"]},
    parity={"max_rel_error": 1e-7},
    cost={"macs": 5},
    plan="ef",
    notes=("a note",),
)


def test_a_manifest_survives_json() -> None:
    assert Manifest.from_dict(json.loads(json.dumps(FULL.to_dict()))) == FULL


def _changed(**changes: Any) -> dict[str, Any]:
    return {**FULL.to_dict(), **changes}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "format"),
        ({}, "format"),
        (_changed(format="other/1"), "format"),
        (_changed(colour="red"), "unknown entry 'colour'"),
        (_changed(batch="many"), r"batch: expected a whole number"),
        (_changed(purpose="fun"), "purpose: expected one of shipping, timing"),
        (_changed(model="other.onnx"), "'other.onnx' is not among the files"),
        (_changed(files=[{"name": "../model.onnx", "bytes": 1, "sha256": ""}]), "no plain file name"),
        (_changed(files=[{"name": "model.onnx", "bytes": "1", "sha256": ""}]), r"files\[0\].bytes"),
        (
            _changed(inputs=[{"name": "x", "shape": [-1], "dtype": "float32"}]),
            "'x' has a wrong shape or dtype",
        ),
        (_changed(inputs=[{"name": "x", "shape": [1], "dtype": "object"}]), "'x' has a wrong shape or dtype"),
    ],
)
def test_what_is_wrong_is_named(data: Any, message: str) -> None:
    with pytest.raises(StorageError, match=f"here/manifest.json.*{message}"):
        Manifest.from_dict(data, "here/manifest.json")


def test_a_missing_entry_is_named() -> None:
    data = FULL.to_dict()
    del data["inputs"]
    with pytest.raises(StorageError, match="'inputs' is missing"):
        Manifest.from_dict(data)
