"""Lottery tickets: train, let small weights leave, go back to the beginning, again and again."""

from __future__ import annotations

import copy
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from billhook.errors import InputError
from billhook.graph.structure import Structure, impose_, sparsity_of
from billhook.methods._training import require_data, train_for
from billhook.methods.sparse._at_initialisation import keep_of, progress_of
from billhook.methods.sparse._base import SparseMethod, SparseOutcome, SparseProblem
from billhook.options import Number, option
from billhook.registry import Info
from billhook.train import EpochRecord, FitConfig, StepContext
from billhook.train.holding import HoldPatterns
from billhook.train.weights import copy_of, write

INFO = Info(
    "trains, prunes by magnitude and rewinds the rest to early weights, in rounds",
    "Frankle, Carbin, The Lottery Ticket Hypothesis, ICLR 2019, arXiv:1803.03635",
    needs_data=True,
    trains=True,
    notes="trains rounds + 1 times; meant for networks that are not trained yet",
)


@dataclass(frozen=True)
class Lottery(SparseMethod):
    """Iterative magnitude pruning with rewinding; the last of rounds + 1 trainings is that of the ticket.

    Round r of R trains, lets the smallest units leave until the fraction k^(r/R) is left, k the one wanted,
    and puts everything else back to what it was early in the first training: weights, statistics of batch
    norms. Every training is a full one, with the same batches in the same order. With a checkpoint directory
    each has a folder of its own, `round_1` …, and those that are finished are not repeated.

    References:
        Frankle, Carbin, "The Lottery Ticket Hypothesis: Finding Sparse, Trainable Neural Networks", ICLR
        2019, section 1 (iterative pruning). Rewinding to an early step: Frankle et al., "Linear Mode
        Connectivity and the Lottery Ticket Hypothesis", ICML 2020, alg. 2. arXiv:1912.05671.
    Differs from the source:
        After rewinding the whole schedule is trained, not what followed the early step. Any pattern, and
        zeros shared out between tensors anew in each round.
    """

    # How it trains if nobody says otherwise, in every round.
    training: ClassVar[FitConfig] = FitConfig(epochs=2, lr=0.05, schedule="cosine")

    rounds: int = option(5, Number(1, integer=True), "how often it trains, prunes and rewinds")
    rewind: float = option(0.05, Number(0, 0.99), "part of the first training to whose end weights go back")

    def run(self, problem: SparseProblem) -> SparseOutcome:
        """Return the structures and the trained ticket; the problem's model is left untouched.

        Raises:
            InputError: if there is no data, or a round to resume belongs to another run.
            DivergedError: if the loss becomes NaN or infinite.
        """
        require_data(problem, "sparse method 'lottery' trains")
        problem = replace(problem, captured=problem.graph)
        model = copy.deepcopy(problem.model)
        keep = keep_of(problem)
        structures: dict[str, Structure] = {}
        early: dict[str, Tensor] = {}
        history: list[EpochRecord] = []
        log: list[dict[str, float]] = []
        for number in range(1, self.rounds + 2):
            callback = RoundCallback({**problem.kept, **structures}, None if early else self.rewind)
            fitted = train_for(problem, model, callback, self.training, part=f"round_{number}")
            epochs = len(fitted.history)
            history += [replace(r, epoch=r.epoch + (number - 1) * epochs) for r in fitted.history]
            sparsity = sparsity_of(structures.values())
            log.append({"round": float(number), "sparsity": sparsity, "loss": fitted.loss})
            if number <= self.rounds:
                early = early or callback.early
                weights = problem.weights(model)
                shares = problem.shares_of(weights, progress_of(number, self.rounds, keep))
                structures = problem.by_magnitude(weights, shares)
                write(model, early)
                impose_(weights, structures)
        return SparseOutcome(structures, model, tuple(history), tuple(log))


class RoundCallback(HoldPatterns):
    """Holds the structures of the rounds before; in the first round, keeps the weights of an early step.

    Attributes:
        early: These weights, and all buffers; empty before that step and in later rounds.
    """

    def __init__(self, structures: Mapping[str, Structure], rewind: float | None) -> None:
        """Hold `structures`; keep the weights after the part `rewind` of the training, None: do not."""
        super().__init__(structures)
        self.early: dict[str, Tensor] = {}
        self._rewind = rewind
        text = json.dumps({name: s.to_dict() for name, s in structures.items()}, sort_keys=True)
        self._round = f"{zlib.crc32(text.encode()):08x} {rewind}"

    def before_step(self, context: StepContext) -> None:
        """Keep the weights when their step has come."""
        super().before_step(context)
        if self._rewind is not None and context.step == int(self._rewind * context.total_steps):
            self.early = copy_of(context.model)

    def state_dict(self) -> dict[str, Any]:
        """Return what it keeps, and what the round is about."""
        return {**super().state_dict(), "round": self._round, "early": dict(self.early)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on; raises `InputError` if the state is that of a round with other structures or options."""
        if state["round"] != self._round:
            raise InputError(
                "the checkpoints of this lottery belong to another run: rounds, rewind, sparsity, pattern or "
                "scope were different; use the same settings, or another directory"
            )
        super().load_state_dict(state)
        self.early = dict(state["early"])


ENTRY = Lottery
