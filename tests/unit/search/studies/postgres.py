"""A real PostgreSQL server for tests: on a loopback port, in a temporary folder, gone afterwards."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

USER = "tester"


class Server:
    """A server that can be stopped and started again.

    Attributes:
        port: Where it listens.
        password: Of `USER`.
    """

    def __init__(self, programs: Path, folder: Path, account: dict[str, Any]) -> None:
        self.password = secrets.token_hex(8)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._programs, self._data, self._account = programs, folder / "data", account
        word = folder / "password"
        word.write_text(self.password)
        word.chmod(0o644)
        options = [
            f"--username={USER}",
            f"--pwfile={word}",
            "--auth=scram-sha-256",
            "--no-sync",
            "--locale=C",
        ]
        self._call("initdb", f"--pgdata={self._data}", *options, "--encoding=UTF8")
        self.start()

    def url(self, database: str = "postgres", password: str | None = None) -> str:
        """Return the URL of a data base."""
        return f"postgresql://{USER}:{password or self.password}@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> str:
        """Make a data base and return its URL."""
        self._call("createdb", "--host=127.0.0.1", f"--port={self.port}", f"--username={USER}", database)
        return self.url(database)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "max_connections=20",
        ]
        options = [word for setting in settings for word in ("-c", setting)]
        command = [self._programs / "postgres", "-D", self._data, "-p", str(self.port), *options]
        log = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, cwd="/", **log, **self._account)
        end = time.monotonic() + 30
        while not self._ready():
            assert self._process.poll() is None, "the server has ended"
            assert time.monotonic() < end, "the server does not answer"
            time.sleep(0.05)

    def stop(self) -> None:
        """End it; clients lose their connections."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(timeout=30)

    def _ready(self) -> bool:
        file = self._data / "postmaster.pid"
        return file.exists() and file.read_text().split()[-1:] == ["ready"]

    def _call(self, program: str, *arguments: str) -> None:
        environment = {**os.environ, "PGPASSWORD": self.password}
        command = [str(self._programs / program), *arguments]
        done = subprocess.run(
            command, cwd="/", env=environment, capture_output=True, text=True, check=False, **self._account
        )
        assert done.returncode == 0, done.stderr


def programs() -> Path | None:
    """Return the folder with PostgreSQL's programs, the newest; Debian has them off the PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: float(p.parent.name))
    on_path = [Path(folder) for folder in os.get_exec_path()]
    needed = ("initdb", "postgres", "createdb")
    return next((p for p in (*reversed(debian), *on_path) if all((p / n).is_file() for n in needed)), None)


@contextmanager
def server(where: Path) -> Generator[Server]:
    """A server of the programs in `where`. It refuses to run as root, so root starts it as another user."""
    folder = Path(tempfile.mkdtemp(prefix="billhook-postgres-"))
    account: dict[str, Any] = {}
    if os.geteuid() == 0:
        known = {entry.pw_name: entry for entry in pwd.getpwall()}
        user = known.get("postgres") or known["nobody"]
        account = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        os.chown(folder, user.pw_uid, user.pw_gid)
    try:
        made = Server(where, folder, account)
        try:
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(folder)
