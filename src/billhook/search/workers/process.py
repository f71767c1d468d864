"""One process that evaluates candidates: both ends of it.

It ends when its parent does, in whatever way that ends: the kernel kills it on Linux, elsewhere it notices
that nobody holds the other end of its pipe.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Literal

import torch

from billhook.search.workers.attempt import attempt

if TYPE_CHECKING:
    from billhook.search.objective import Objective
    from billhook.search.space import Genes
    from billhook.search.workers import Outcome

Method = Literal["fork", "spawn"]
_PR_SET_PDEATHSIG = 1


def uses_cuda() -> bool:
    """Tell if this process computes on a GPU; a fork of it could not."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


class WorkerProcess:
    """The parent's end of a process that evaluates candidates.

    Args:
        method: "fork" takes over what this process has in memory, at once; "spawn" begins anew.
        objective: What it judges by.
        threads: Of PyTorch in the process.
        others: The parent's ends of other processes' pipes; a fork must not hold them open.
    """

    def __init__(
        self, method: Method, objective: Objective, threads: int, others: Sequence[Connection]
    ) -> None:
        context: Any = multiprocessing.get_context(method)
        self.connection, theirs = context.Pipe()
        inherits = method == "fork"
        arguments = (theirs, os.getpid(), threads, objective if inherits else None)
        unwanted = [*others, self.connection] if inherits else []
        self.task: tuple[int, Genes] | None = None
        self.process = context.Process(target=_serve, args=(*arguments, unwanted), daemon=True)
        with warnings.catch_warnings():
            # From Python 3.12 on about threads of PyTorch, which no fork uses: see `threads`.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.process.start()
        theirs.close()
        if not inherits:
            self._send(objective)

    def begin(self, number: int, genes: Genes) -> None:
        """Give it a candidate; one that is dead already shows when its answer is read."""
        self.task = number, genes
        self._send(self.task)

    def answer(self) -> Outcome | None:
        """Return what it has found; None if it died."""
        try:
            outcome: Outcome = self.connection.recv()
        except (EOFError, OSError):
            return None
        self.task = None
        return outcome

    @property
    def sources(self) -> list[Any]:
        """What becomes ready when there is an answer or when it dies."""
        return [self.connection, self.process.sentinel]

    def end(self) -> str:
        """End it if it lives, and return how it ended."""
        self.connection.close()
        self.process.kill()
        self.process.join()
        code = self.process.exitcode or 0
        self.process.close()
        return f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"

    def _send(self, message: Any) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(message)


def _serve(
    connection: Connection,
    parent: int,
    threads: int,
    objective: Objective | None,
    unwanted: Sequence[Connection],
) -> None:
    """Evaluate candidates until the parent closes the pipe or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent; it ends this process
    _die_with(parent)
    for other in unwanted:
        other.close()
    torch.set_num_threads(threads)
    # What comes through a pipe may share memory with the parent and its other workers.
    with contextlib.suppress(EOFError, OSError):
        judge = copy.deepcopy(connection.recv()) if objective is None else objective
        while True:
            number, genes = connection.recv()
            connection.send(attempt(judge, number, genes))


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before it could be asked for
        os._exit(1)
