"""`Artifact`: an exported network on disk."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from billhook.errors import InputError, StorageError
from billhook.json_record import read_json, write_json
from billhook.measure.backend import Array
from billhook.measure.manifest import FileRecord, Manifest, TensorSpec

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 2**20  # a manifest is a few kB; anything larger is not one
MAX_FILE_BYTES = 64 * 2**30
MAX_INPUT_BYTES = 4 * 2**30


@dataclass(frozen=True)
class Artifact:
    """An exported network: a folder with the runtime's files and a manifest.

    Attributes:
        directory: The folder.
        manifest: What the folder says about itself.
    """

    directory: Path
    manifest: Manifest

    @property
    def model_path(self) -> Path:
        """The file the runtime opens."""
        return self.directory / self.manifest.model

    @property
    def name(self) -> str:
        """Short name for tables and messages: the folder's."""
        return self.directory.resolve().name

    @classmethod
    def create(cls, directory: str | Path, manifest: Manifest) -> Artifact:
        """Record every file in `directory` in `manifest` and write it there."""
        directory = Path(directory)
        files = tuple(
            FileRecord(p.name, p.stat().st_size, _sha256(p))
            for p in sorted(directory.iterdir())
            if p.name != MANIFEST
        )
        artifact = cls(directory, replace(manifest, files=files))
        artifact.save_manifest()
        return artifact

    def save_manifest(self) -> None:
        """Write the manifest; it appears whole or not at all."""
        write_json(self.directory / MANIFEST, self.manifest.to_dict())

    def with_manifest(self, **changes: Any) -> Artifact:
        """Return a copy whose manifest has `changes`; nothing is written."""
        return replace(self, manifest=replace(self.manifest, **changes))

    @classmethod
    def load(cls, path: str | Path, *, check_hashes: bool = True) -> Artifact:
        """Return the artifact in a folder, or the one a model file belongs to.

        Args:
            path: The folder, or a file in it.
            check_hashes: Read every file and compare it with its hash; sizes are always compared.
        Raises:
            StorageError: if something is missing, truncated, changed or not an artifact.
        """
        path = Path(path)
        if not path.exists():
            raise StorageError(f"{path}: no such file or folder")
        directory = path if path.is_dir() else path.parent
        source = directory / MANIFEST
        if not source.is_file():
            raise StorageError(
                f"{path}: no {MANIFEST} beside it, so this is no artifact; make one with: billhook export"
            )
        manifest = Manifest.from_dict(read_json(source, MAX_MANIFEST_BYTES), str(source))
        if path.is_file() and path.name != MANIFEST and path.name not in {f.name for f in manifest.files}:
            raise StorageError(f"{path}: does not belong to the artifact in its folder (see {source})")
        for record in manifest.files:
            _check(directory / record.name, record, check_hashes)
        return cls(directory, manifest)

    def random_inputs(self, batch: int | None = None, seed: int = 0) -> list[Array]:
        """Return made-up inputs: normal floats, integers in the range of the example, fair booleans.

        Args:
            batch: Batch size; None for that of the example inputs.
            seed: The same seed gives the same inputs.
        Raises:
            InputError: if the batch size is fixed to another value.
        """
        m = self.manifest
        if batch is None:
            batch = m.batch or 1
        elif m.batch is not None and not m.dynamic_batch and batch != m.batch:
            raise InputError(
                f"{self.name}: exported with the fixed batch size {m.batch}, cannot run with {batch}; "
                f"use batch={m.batch}, or export with example inputs of that batch size"
            )
        rng = np.random.default_rng(seed)
        return [_random(spec, batch, rng) for spec in m.inputs]


def _random(spec: TensorSpec, batch: int, rng: np.random.Generator) -> Array:
    sizes = [batch if n is None else n for n in spec.shape]
    dtype = np.dtype(spec.dtype)
    if int(np.prod(sizes, dtype=np.float64)) * dtype.itemsize > MAX_INPUT_BYTES:
        raise InputError(f"input {spec.name!r} of shape {sizes} is larger than {MAX_INPUT_BYTES} bytes")
    if dtype.kind == "b":
        return rng.integers(0, 2, sizes).astype(dtype)
    if dtype.kind in "iu":
        low = 0 if spec.low is None else spec.low
        high = max(low, 1 if spec.high is None else spec.high)
        return rng.integers(low, high, sizes, endpoint=True).astype(dtype)
    return rng.standard_normal(sizes).astype(dtype)


def _check(path: Path, record: FileRecord, check_hash: bool) -> None:
    if not path.is_file():
        raise StorageError(f"{path}: missing; the manifest lists it. Export the network again")
    found = path.stat().st_size
    if found != record.bytes:
        what = "truncated" if found < record.bytes else "has grown"
        sizes = f"{found} bytes instead of {record.bytes}"
        raise StorageError(f"{path}: {what}: {sizes}. Export the network again")
    if found > MAX_FILE_BYTES:
        raise StorageError(f"{path}: larger than {MAX_FILE_BYTES} bytes")
    if check_hash and _sha256(path) != record.sha256:
        raise StorageError(f"{path}: changed since the export (hash differs). Export the network again")


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
