"""`LocalWorkers`: candidates are evaluated by processes of this machine."""

from __future__ import annotations

import time
from collections import deque
from multiprocessing import connection
from typing import TYPE_CHECKING

import torch

from billhook.search.workers.attempt import Deaths
from billhook.search.workers.process import Method, WorkerProcess, uses_cuda

if TYPE_CHECKING:
    from billhook.search.objective import Objective
    from billhook.search.space import Genes
    from billhook.search.workers import Outcome


class LocalWorkers:
    """Processes; see `Workers`. They start with the first candidate.

    They are forks of this process, so they start at once and share the memory of the network and the images;
    each computes on one thread. Where this process uses CUDA, they begin anew, which takes seconds, and copy.
    An objective that computes gradients needs that too if this process has done so before: PyTorch cannot do
    it in a fork.

    Args:
        size: How many.
        method: How they start; None: as described.
    """

    def __init__(self, size: int, method: Method | None = None) -> None:
        self.size = size
        self._method = method
        self._objective: Objective | None = None
        self._waiting: deque[tuple[int, Genes]] = deque()
        self._processes: list[WorkerProcess] = []
        self._deaths = Deaths()

    def use(self, objective: Objective) -> None:
        """Judge by `objective` from now on; processes that judge by another one end."""
        if objective is self._objective:
            return
        if self._waiting or any(p.task for p in self._processes):
            raise RuntimeError("another objective, while candidates are on their way")
        self._end_all()
        self._objective = objective

    def submit(self, number: int, genes: Genes) -> None:
        """Hand in a candidate; it begins as soon as a process is free."""
        self._waiting.append((number, genes))
        self._feed()

    def wait(self, timeout: float | None = None) -> list[tuple[int, Outcome]]:
        """Return what was found since the last call, as soon as there is something."""
        end = None if timeout is None else time.monotonic() + timeout
        found: list[tuple[int, Outcome]] = []
        while not found:
            busy = [p for p in self._processes if p.task is not None]
            if not busy:
                return []
            left = None if end is None else max(0.0, end - time.monotonic())
            ready = set(connection.wait([source for p in busy for source in p.sources], left))
            if not ready:
                return []
            for process in busy:
                if not ready.isdisjoint(process.sources):
                    found += self._take(process)
            self._feed()
        return found

    def __enter__(self) -> LocalWorkers:
        return self

    def __exit__(self, *exc: object) -> None:
        self._waiting.clear()
        self._end_all()

    def _take(self, process: WorkerProcess) -> list[tuple[int, Outcome]]:
        """Return a process's answer; if it died, none, unless that has happened too often."""
        assert process.task is not None
        number, genes = process.task
        outcome = process.answer()
        if outcome is None:
            self._processes.remove(process)
            outcome = self._deaths.count(number, process.end())
            if outcome is None:
                self._waiting.appendleft((number, genes))
                return []
        self._deaths.forget(number)
        return [(number, outcome)]

    def _feed(self) -> None:
        """Give candidates to free processes, and start more if there may be more."""
        while self._waiting:
            process = next((p for p in self._processes if p.task is None), None)
            if process is None:
                if len(self._processes) == self.size:
                    return
                process = self._start()
            process.begin(*self._waiting.popleft())

    def _start(self) -> WorkerProcess:
        assert self._objective is not None, "use() comes before submit()"
        method = self._method or ("spawn" if uses_cuda() else "fork")
        # OpenMP does not survive a fork: with more than one thread there, PyTorch would wait for ever.
        threads = 1 if method == "fork" else max(1, torch.get_num_threads() // self.size)
        others = [p.connection for p in self._processes]
        process = WorkerProcess(method, self._objective, threads, others)
        self._processes.append(process)
        return process

    def _end_all(self) -> None:
        while self._processes:
            self._processes.pop().end()
