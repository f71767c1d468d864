"""The parent's side of a timing worker: start it, ask it, end it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from typing import Any

from billhook.errors import MeasureError, MissingExtraError
from billhook.measure.artifact import Artifact
from billhook.measure.backend import backends
from billhook.measure.rounds import Clock, Round

TAIL = 2000  # characters of a dead worker's stderr that go into the message
END = None


class WorkerProcess:
    """A subprocess that times one thing; ends with the `with` block.

    Args:
        label: Name for messages.
        threads: Threads for numerical libraries in the process.
        timeout: Seconds to wait for any answer beyond the time a round is meant to take.
        interpreter: Python that runs it; another environment's for a runtime that cannot live in this one.
        path: Folders in which it finds modules; the path of this process if not given.
    """

    def __init__(
        self,
        label: str,
        *,
        threads: int = 1,
        timeout: float = 120.0,
        interpreter: str = sys.executable,
        path: Sequence[str] | None = None,
    ) -> None:
        self.label = label
        self._timeout = timeout
        self._stderr = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 (closed by `close`)
        # -P keeps the current folder off the path; the parent's own path makes its backends importable.
        self._process = subprocess.Popen(
            [interpreter, "-P", "-m", "billhook.measure.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env=_environment(threads, sys.path if path is None else path),
        )
        self._replies: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def open(self, artifact: Artifact, cores: Sequence[int], threads: int, batch: int | None) -> None:
        """Load `artifact` in the worker and run it once."""
        backend = type(backends.get(artifact.manifest.backend))
        if backend.__module__ == "__main__":
            raise MeasureError(
                f"backend {artifact.manifest.backend!r} is defined in the script itself; "
                "put it into a module, so that the timing process can import it"
            )
        self.request(
            {
                "op": "open",
                "directory": str(artifact.directory.resolve()),
                "module": backend.__module__,
                "class": backend.__qualname__,
                "cores": list(cores),
                "threads": threads,
                "batch": batch,
                "seed": 0,
            }
        )

    def probe(self, cores: Sequence[int]) -> None:
        """Make the worker time a matrix product instead of a network."""
        self.request({"op": "probe", "cores": list(cores)})

    def round(self, seconds: float, clock: Clock) -> Round:
        """Run for about `seconds`."""
        return Round(**self.request({"op": "round", "seconds": seconds, "clock": clock}, extra=seconds))

    def peak_memory(self) -> int:
        """Return bytes that loading and running took, at the peak."""
        return int(self.request({"op": "memory"})["bytes"])

    def request(self, message: dict[str, Any], *, extra: float = 0.0) -> dict[str, Any]:
        """Send one request and return the reply.

        Raises:
            MeasureError: if the worker fails, dies or does not answer in time.
        """
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
            line = self._replies.get(timeout=self._timeout + extra)
        except (OSError, ValueError):  # the pipe is broken or closed because the worker is dead
            line = END
        except queue.Empty:
            waited = self._timeout + extra
            raise self._failure(f"no answer within {waited:.3g} s; allow more with timeout=") from None
        if line is END:
            raise self._failure(f"its process ended with status {self._process.wait()}")
        reply: dict[str, Any] = json.loads(line)
        if "library" in reply:
            raise MissingExtraError(reply["library"], reply["extra"], f"timing {self.label!r}")
        if "error" in reply:
            raise self._failure(reply["error"])
        return reply

    def close(self) -> None:
        """End the process; safe to call twice."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout, self._stderr):
            with contextlib.suppress(BrokenPipeError):  # what was still to be sent has no reader any more
                if pipe is not None:
                    pipe.close()

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._replies.put(line)
        self._replies.put(END)

    def _failure(self, what: str) -> MeasureError:
        if self._stderr.closed:
            return MeasureError(f"timing {self.label!r}: {what}")
        self._stderr.seek(0)
        tail = self._stderr.read()[-TAIL:].strip()
        self.close()
        return MeasureError(f"timing {self.label!r}: {what}" + (f"; it said:\n{tail}" if tail else ""))


def _environment(threads: int, path: Sequence[str]) -> dict[str, str]:
    limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    folders = os.pathsep.join(p or os.getcwd() for p in path)
    return {**os.environ, **limits, "PYTHONPATH": folders}
