"""`Owner`: the process that evaluates a trial, so that others know if it still lives."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import asdict, dataclass
from typing import Any

import psutil

_SAME_START = 1.0  # seconds by which two readings of when a process began may differ


@dataclass(frozen=True)
class Owner:
    """A process that has claimed trials.

    Attributes:
        host: Name of its machine, and of its process namespace: containers count their own processes.
        pid: Its number there.
        started: When it began, in seconds since 1970: numbers of processes are used again.
        token: Tells two studies of one process apart.
    """

    host: str
    pid: int
    started: float
    token: str

    @staticmethod
    def new() -> Owner:
        """Return this process, with a token of its own."""
        return Owner(_host(), os.getpid(), psutil.Process().create_time(), secrets.token_hex(8))

    @staticmethod
    def of(data: Any) -> Owner | None:
        """Return the owner that `to_dict` wrote; None if the data are something else."""
        try:
            return Owner(str(data["host"]), int(data["pid"]), float(data["started"]), str(data["token"]))
        except (KeyError, TypeError, ValueError):
            return None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    @property
    def dead(self) -> bool:
        """True if this machine knows that the process has ended; of other machines it knows nothing."""
        if self.host != _host():
            return False
        try:
            process = psutil.Process(self.pid)
            later = abs(process.create_time() - self.started) > _SAME_START
            return bool(later or process.status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return False


def _host() -> str:
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return f"{socket.gethostname()} {namespace}".strip()
