"""What an exported network weighs on disk and on the wire."""

from __future__ import annotations

import zlib

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
    total = 0
    for record in artifact.manifest.files:
        packer = zlib.compressobj(level, wbits=GZIP_FORMAT)
        with (artifact.directory / record.name).open("rb") as f:
            while chunk := f.read(CHUNK):
                total += len(packer.compress(chunk))
        total += len(packer.flush())
    conditions = {"of": "model files", "compression": f"gzip -{level}", "runtime": artifact.manifest.backend}
    return Measurement(float(total), "B", conditions=conditions)
