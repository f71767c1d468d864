"""Taking files out of a Debian package with the standard library: an ar archive around a tar archive."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Protocol

from billhook.errors import DataError

_MAX_PACKAGE = 512 * 2**20  # bytes of the package
_MAX_UNPACKED = 2 * 2**30  # bytes of its data after decompression


class Readable(Protocol):
    """What is needed of a stream."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; fewer only at the end."""
        ...


def unpack_deb(package: Path, wanted: Mapping[str, int], target: Path) -> None:
    """Copy files out of a .deb package into `target`.

    Only regular files with a wanted base name are copied, under that name, so no path inside the
    package decides where something is written. Each appears whole or not at all.

    Args:
        package: The .deb file.
        wanted: Base name → largest allowed size in bytes.
        target: Existing folder.
    Raises:
        DataError: if the package is broken, too large, or lacks a wanted file.
    """
    missing = set(wanted)
    try:
        stream = _Bounded(_data_archive(package), _MAX_UNPACKED)
        with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]
            for member in archive:
                name = PurePosixPath(member.name).name
                if not member.isfile() or name not in missing:
                    continue
                if member.size > wanted[name]:
                    raise DataError(f"{package}: {member.name} has {member.size:,} bytes, too many")
                content = archive.extractfile(member)
                assert content is not None  # a regular file has contents
                _write(target / name, content.read(wanted[name]))
                missing.discard(name)
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError) as error:
        raise DataError(f"{package} is truncated or damaged ({error}); delete it and get it again") from error
    if missing:
        raise DataError(f"{package} does not contain {', '.join(sorted(missing))}; is it the right package?")


def _data_archive(package: Path) -> Readable:
    """Return the decompressed stream of the package's data.tar."""
    if package.stat().st_size > _MAX_PACKAGE:
        raise DataError(f"{package} is larger than {_MAX_PACKAGE:,} bytes; is it the right package?")
    with package.open("rb") as stream:
        if stream.read(8) != b"!<arch>\n":
            raise DataError(f"{package} is not a Debian package; delete it and get it again")
        while len(header := stream.read(60)) == 60:
            name, size = header[:16].decode("latin1").strip().rstrip("/"), header[48:58].strip()
            if header[58:] != b"`\n" or not size.isdigit():
                break
            if name.startswith("data.tar"):
                return _decompress(package, name, io.BytesIO(stream.read(int(size))))
            stream.seek(int(size) + int(size) % 2, os.SEEK_CUR)
    raise DataError(f"{package} is truncated: it has no data.tar; delete it and get it again")


def _decompress(package: Path, name: str, stream: io.BytesIO) -> Readable:
    if name.endswith(".xz"):
        return lzma.open(stream)
    if name.endswith(".gz"):
        return gzip.open(stream)
    if name.endswith(".tar"):
        return stream
    raise DataError(f"{package}: cannot decompress {name}; unpack it with: dpkg-deb -x PACKAGE FOLDER")


class _Bounded:
    """A stream that refuses to give more than `limit` bytes, whatever a small file decompresses to."""

    def __init__(self, stream: Readable, limit: int) -> None:
        self._stream, self._left = stream, limit

    def read(self, size: int) -> bytes:
        content = self._stream.read(min(size, self._left + 1))
        self._left -= len(content)
        if self._left < 0:
            raise DataError("a package unpacks to more data than allowed; it is damaged or hostile")
        return content


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
