"""Getting files that are not on this machine: from Debian's archive or from a plain web server."""

from __future__ import annotations

import http.client
import logging
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from billhook.data._deb import unpack_deb
from billhook.errors import DataError

log = logging.getLogger("billhook")


def fetch_debian(package: str, wanted: Mapping[str, int], target: Path, *, timeout: float = 120) -> None:
    """Download a Debian package with apt, as any user, and copy the wanted files into `target`.

    Nothing is installed, and apt checks the signature chain of the package.

    Raises:
        DataError: if there is no apt, the download fails or the package is not what was expected.
    """
    if shutil.which("apt-get") is None:
        raise DataError("apt-get is not on this system")
    log.info("downloading the Debian package %s", package)
    with tempfile.TemporaryDirectory(dir=target) as folder:
        try:
            done = subprocess.run(
                ["apt-get", "download", package], cwd=folder, capture_output=True, text=True, timeout=timeout
            )
        except subprocess.TimeoutExpired:
            raise DataError(f"apt-get download took longer than {timeout:.0f} s") from None
        found = sorted(Path(folder).glob("*.deb"))
        if done.returncode != 0 or not found:
            reason = (done.stderr.strip() or "it downloaded nothing").splitlines()[-1]
            raise DataError(f"apt-get download failed: {reason}")
        unpack_deb(found[0], wanted, target)


def fetch_web(base: str, wanted: Mapping[str, int], target: Path, *, timeout: float = 10) -> None:
    """Download the wanted files from under the address `base` into `target`, each whole or not at all.

    Raises:
        DataError: if a file cannot be had or is larger than allowed.
    """
    for name, limit in wanted.items():
        log.info("downloading %s%s", base, name)
        partial = target / f"{name}.partial"
        try:
            with urllib.request.urlopen(base + name, timeout=timeout) as response:
                content = response.read(limit + 1)
                announced = response.headers.get("Content-Length")
            if len(content) > limit:
                raise DataError(f"{base}{name} is larger than {limit:,} bytes")
            if announced is not None and int(announced) != len(content):
                raise DataError(f"the download of {base}{name} broke off")
            partial.write_bytes(content)
            partial.replace(target / name)
        except (OSError, http.client.HTTPException) as error:
            raise DataError(f"{base}{name} cannot be downloaded: {error}") from error
        finally:
            partial.unlink(missing_ok=True)
