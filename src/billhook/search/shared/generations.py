"""How a generation is judged: with weights that its members train together, or with inherited ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from billhook.search.session import Session, StopSearch
from billhook.search.shared.objective import SharedWeights
from billhook.search.shared.training import Training, generation_key, shared_weights
from billhook.search.space import Genes, Space
from billhook.search.studies.trial import Trial


@dataclass(frozen=True, eq=False)
class SharedGenerations:
    """Judges parents and children of a generation with weights that all of them have trained.

    Attributes:
        session: The search.
        space: Candidates, as the shared network knows them.
        training: How the weights are trained.
        known: No child need be new: what earlier generations found out about it is not comparable.
    """

    session: Session
    space: Space
    training: Training
    known: tuple[tuple[int, ...], ...] = ()

    def __call__(self, generation: int, parents: Genes, children: Genes) -> list[Trial]:
        """Return the trials of parents and children, fewer if the trials are used up on the way."""
        session = self.session
        if session.remaining <= len(parents):
            raise StopSearch
        # All of them train, also those for whom no trials are left: a search that goes on later needs them.
        rows = list(np.concatenate([parents, children]))

        def train() -> SharedWeights:
            folder = session.folder
            return shared_weights(
                session.problem, self.space, rows, self.training, generation=generation, folder=folder
            )

        notes = [{"generation": generation}] * len(rows)
        return session.evaluate(rows, train, key=generation_key(generation), notes=notes)


@dataclass(frozen=True, eq=False)
class InheritedGenerations:
    """Judges only who has not been judged yet, with the usual objective.

    Attributes:
        session: The search.
        known: All trials so far, by genes.
    """

    session: Session
    known: dict[tuple[int, ...], Trial]

    def __call__(self, generation: int, parents: Genes, children: Genes) -> list[Trial]:
        """Return the trials of parents and children, fewer if the trials are used up on the way."""
        everybody = np.concatenate([parents, children])
        genes = list(map(tuple, everybody.tolist()))
        new = [row for row, its in zip(everybody, genes, strict=True) if its not in self.known]
        for trial in self.session.evaluate(new, notes=[{"generation": generation}] * len(new)):
            self.known[trial.genes] = trial
        return [self.known[its] for its in genes if its in self.known]
