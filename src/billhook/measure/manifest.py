"""`Manifest`: what an exported network says about itself, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from billhook.errors import StorageError
from billhook.json_record import decode, encode

FORMAT = "billhook.artifact/1"
DTYPES = frozenset(
    ["bool", "float16", "float32", "float64"] + [f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)]
)

Purpose = Literal["shipping", "timing"]
Precision = Literal["float32", "int8"]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output.

    Attributes:
        name: Name in the file.
        shape: Sizes; None is the open batch size, or a size that depends on it.
        dtype: numpy name.
        low, high: Range of the example for integers (token ids, indices), so that made-up inputs are valid.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    low: int | None = None
    high: int | None = None


@dataclass(frozen=True)
class FileRecord:
    """One file of an artifact."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything needed to load, feed and trust an exported network.

    Attributes:
        backend: Runtime it was made for.
        model: Name of the file the runtime opens.
        files: All files with sizes and hashes.
        inputs, outputs: Tensors in the order in which `Session.run` takes and gives them.
        batch: Batch size of the example inputs; None if the inputs have no common first dimension.
        dynamic_batch: True if the batch size is open.
        opset: Operator-set version; None for runtimes without one.
        versions: Libraries that made it.
        purpose: "shipping", or "timing" for a file that was only made to be timed and never checked.
        preprocessing: What happens to data before it is fed (mean, std, size, classes, …).
        parity: Result of the comparison with PyTorch; None if none was made.
        cost: MACs, parameters, …; None if not known.
        plan: SHA-256 of the plan it was pruned with; None for an original.
        notes: What a user should know, e.g. why the batch size is fixed.
        precision: What it computes in: "int8" where convolutions and linear layers were quantised; "float32"
            is whatever the runtime makes of a network in float32.
    """

    backend: str
    model: str
    files: tuple[FileRecord, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batch: int | None
    dynamic_batch: bool
    opset: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    purpose: Purpose = "shipping"
    preprocessing: Mapping[str, Any] | None = None
    parity: Mapping[str, Any] | None = None
    cost: Mapping[str, int] | None = None
    plan: str | None = None
    notes: tuple[str, ...] = ()
    precision: Precision = "float32"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"format": FORMAT, **encode(self, "manifest")}

    @classmethod
    def from_dict(cls, data: Any, where: str = "manifest") -> Manifest:
        """Return the manifest that `to_dict` wrote.

        Raises:
            StorageError: if `data` is not a manifest; starts with `where` and names the entry.
        """
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise StorageError(f"{where}: not in the format {FORMAT!r}; made by another program?")
        manifest = decode(cls, {k: v for k, v in data.items() if k != "format"}, where)
        names = [record.name for record in manifest.files]
        for name in names:
            # A file name must stay inside the artifact's folder.
            if name in ("", ".", "..") or set(name) & set("/\\\0"):
                raise StorageError(f"{where}: {name!r} is no plain file name")
        if manifest.model not in names:
            raise StorageError(f"{where}: the model file {manifest.model!r} is not among the files")
        for tensor in (*manifest.inputs, *manifest.outputs):
            if tensor.dtype not in DTYPES or any(n is not None and n < 0 for n in tensor.shape):
                raise StorageError(f"{where}: tensor {tensor.name!r} has a wrong shape or dtype")
        return manifest
