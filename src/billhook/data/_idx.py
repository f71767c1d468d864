"""Reading IDX files (MNIST's format), gzipped or not, never more bytes than were announced."""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from billhook.errors import DataError


@dataclass(frozen=True)
class IdxFile:
    """A file of bytes whose contents are known in advance.

    Attributes:
        name: File name without ".gz".
        shape: Of the array of uint8 that it holds.
        sha256: Of the decompressed file; packagers compress differently.
    """

    name: str
    shape: tuple[int, ...]
    sha256: str

    @property
    def header(self) -> bytes:
        """The magic number (uint8, number of dimensions) and the big-endian sizes."""
        sizes = b"".join(size.to_bytes(4, "big") for size in self.shape)
        return bytes([0, 0, 8, len(self.shape)]) + sizes

    @property
    def size(self) -> int:
        """Bytes of the decompressed file."""
        return len(self.header) + math.prod(self.shape)

    def find(self, folder: Path) -> Path | None:
        """Return the path of this file in `folder`, plain or gzipped, or None."""
        for path in (folder / self.name, folder / f"{self.name}.gz"):
            if path.is_file():
                return path
        return None

    def read(self, path: Path) -> Tensor:
        """Return the array, uint8.

        Raises:
            DataError: if the file is truncated, too long, or not what it should be.
        """
        advice = "delete it and get it again (a missing file is searched elsewhere or fetched)"
        buffer = bytearray(self.size + 1)  # one more byte shows a file that is too long
        try:
            length = _read_into(path, buffer)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(
                f"{path} cannot be read, it is truncated or damaged ({error}); {advice}"
            ) from error
        if length != self.size:
            found = f"{length:,}" if length < self.size else f"more than {self.size:,}"
            raise DataError(f"{path} holds {found} bytes instead of {self.size:,}; {advice}")
        del buffer[self.size :]
        if hashlib.sha256(buffer).hexdigest() != self.sha256:
            raise DataError(f"{path} is damaged or another file: its sha256 is not the known one; {advice}")
        return torch.frombuffer(buffer, dtype=torch.uint8)[len(self.header) :].reshape(self.shape)


def _read_into(path: Path, buffer: bytearray) -> int:
    """Fill `buffer` from the start of a plain or gzipped file; return how many bytes there were."""
    view, length = memoryview(buffer), 0
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
        while length < len(buffer):
            count = stream.readinto(view[length:])
            if not count:
                break
            length += count
    view.release()
    return length
