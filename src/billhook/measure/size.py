"""What a network weighs on disk and on the wire: as it is exported, and as its weights are stored."""

from __future__ import annotations

import zlib
from pathlib import Path

from billhook.measure.artifact import Artifact
from billhook.results import Measurement

CHUNK = 2**20
GZIP_FORMAT = 31  # zlib's code for a gzip header around the largest window


def size(artifact: Artifact) -> Measurement:
    """Return the size of the runtime's files in bytes, the manifest not included."""
    files = artifact.manifest.files
    conditions = {"of": "model files", "files": len(files), "runtime": artifact.manifest.backend}
    return Measurement(float(sum(f.bytes for f in files)), "B", conditions=conditions)


def compressed_size(artifact: Artifact, *, level: int = 6) -> Measurement:
    """Return the size of the files after gzip: what an update of a device in the field costs.

    Dense float weights hardly compress; zeros, repeated and low-bit weights do.
    """
    total = sum(_packed(artifact.directory / record.name, level) for record in artifact.manifest.files)
    conditions = {"of": "model files", "compression": f"gzip -{level}", "runtime": artifact.manifest.backend}
    return Measurement(float(total), "B", conditions=conditions)


def stored_size(path: Path, *, level: int = 6) -> tuple[Measurement, Measurement]:
    """Return the size in bytes of a file of weights, as it is and after gzip."""
    conditions = {"of": path.name}
    return (
        Measurement(float(path.stat().st_size), "B", conditions=conditions),
        Measurement(
            float(_packed(path, level)), "B", conditions={**conditions, "compression": f"gzip -{level}"}
        ),
    )


def _packed(path: Path, level: int) -> int:
    packer, total = zlib.compressobj(level, wbits=GZIP_FORMAT), 0
    with path.open("rb") as f:
        while chunk := f.read(CHUNK):
            total += len(packer.compress(chunk))
    return total + len(packer.flush())
