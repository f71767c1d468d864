"""Objectives for tests of workers; in a module of their own, so that other processes can import them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from billhook.errors import BudgetError
from billhook.search.objective import Evaluation, Objective
from billhook.search.space import Genes

if TYPE_CHECKING:
    from billhook.search.workers import Outcome, Workers


class Sum(Objective):
    """Accuracy is the sum of the genes over 10, the loss the number of the process."""

    key = "sum"

    def evaluate(self, genes: Genes) -> Evaluation:
        return Evaluation(int(genes.sum()) / 10, os.getpid(), 0.01)


class Offset(Objective):
    """Adds a tensor of its own, which it changes: no two workers may share it."""

    def __init__(self, offset: float) -> None:
        self.key = f"offset {offset}"
        self.offset, self.array = torch.tensor(offset), np.zeros(1)

    def evaluate(self, genes: Genes) -> Evaluation:
        self.array += 1
        self.offset += 1
        return Evaluation(float(self.offset - self.array[0]) + int(genes.sum()), os.getpid())


class Slow(Objective):
    """Takes its time, and leaves its process's number in a folder."""

    key = "slow"

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds = folder, seconds

    def evaluate(self, genes: Genes) -> Evaluation:
        (self.folder / str(os.getpid())).touch()
        time.sleep(self.seconds)
        return Evaluation(int(genes.sum()) / 10, os.getpid())


class Deadly(Objective):
    """The candidate whose genes are all 0 kills its process, as often as told."""

    key = "deadly"

    def __init__(self, folder: Path, times: int) -> None:
        self.folder, self.times = folder, times

    def evaluate(self, genes: Genes) -> Evaluation:
        if not genes.any():
            deaths = len(list(self.folder.glob("death*")))
            if deaths < self.times:
                (self.folder / f"death{deaths}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return Evaluation(1.0, 0.5)


class Broken(Objective):
    """Raises: an error of billhook for odd genes, another one for even ones."""

    key = "broken"

    def evaluate(self, genes: Genes) -> Evaluation:
        if genes[0] % 2:
            raise BudgetError("out of reach", {"macs": 7.0})
        raise ZeroDivisionError("no images")


def judged(workers: Workers, rows: list[list[int]]) -> dict[int, Outcome]:
    """Hand in all rows at once and return everything that comes back."""
    for number, row in enumerate(rows):
        workers.submit(number, np.array(row, dtype=np.int64))
    found: list[tuple[int, Outcome]] = []
    while len(found) < len(rows):
        found += workers.wait(60.0)
    assert sorted(number for number, _ in found) == list(range(len(rows))), "each exactly once"
    return dict(found)
