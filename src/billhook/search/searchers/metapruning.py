"""MetaPruning: a network that generates weights for any widths judges them, evolution finds the best."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from billhook.criteria._base import cross_entropy
from billhook.errors import InputError, StorageError
from billhook.graph.slicing import named_tensors
from billhook.graph.storage import load_tensors, read_tensors
from billhook.options import Above, Number, OneOf, OrNone, option
from billhook.registry import Info
from billhook.search.hypernet.evolution import Evolution, scaled_population
from billhook.search.hypernet.network import PruningNet
from billhook.search.hypernet.objective import GeneratedWeights
from billhook.search.hypernet.training import FILE, train_widths
from billhook.search.problem import SearchProblem
from billhook.search.searcher import Searcher
from billhook.search.session import Session
from billhook.search.shared.fresh import fresh
from billhook.search.studies.trial import Trial
from billhook.train import FitConfig, as_batches
from billhook.train.rng import derive_seed, preserved_rng, seed_rng

INFO = Info(
    "weights generated from widths, evolution within hard limits",
    "Liu et al., MetaPruning, ICCV 2019, arXiv:1903.10258",
    needs_data=True,
    trains=True,
    notes="widths only; first trains a network that generates weights",
)
_COUNT = Number(1, integer=True)
_LR = {"trained": 0.03, "scratch": 0.1}
_SPREAD = {"trained": 0.0, "scratch": 1.0}  # all widths begin with the trained weights; see `make_generator`


@dataclass(frozen=True)
class MetaPruning(Searcher):
    """A PruningNet is trained in random widths, then candidates get the weights that it generates for them.

    References:
        Liu et al., "MetaPruning: Meta Learning for Automatic Neural Network Channel Pruning", ICCV 2019.
        arXiv:1903.10258.
    Differs from the source:
        Generated weights begin with the trained ones, so that little training is enough; `start="scratch"` is
        the paper's. Small VGG, Fashion-MNIST, one epoch: 13 candidates of 40 % MACs have 89.3 % on average,
        from scratch 79.7 %. Rank correlation with training each of 20 candidates from scratch (four
        convolutions, digits, means over three seeds): 0.78 against 0.64 to 0.71 after 100 steps, 0.69 against
        0.66 to 0.76 after 400; inherited weights with new statistics have 0.51.
        The PruningNet is trained in widths that use the budget up, which `widths="all"` undoes. ResNet-20,
        Fashion-MNIST, two epochs, two seeds: the winner has 90.9 % at half of the MACs and 88.8 % at a
        quarter, trained in all widths 88.9 % and 88.1 %.
        Without training, the winner keeps the generated weights; the source trains it from scratch.
        The evolution ends with the trials; with fewer than the paper's 1,050, both the size and the number of
        generations are smaller. Statistics of batch norms are plain averages over the calibration images. See
        also `PruningNet` and `Evolution`.
    """

    population: int | None = option(
        None, OrNone(Number(4, integer=True)), "candidates of a generation; None: 50, fewer for few trials"
    )
    parents: float = option(0.2, Number(0, 1), "fraction of a generation that the next one comes from")
    probability: float = option(0.1, Number(0, 1), "of each gene to mutate")
    epochs: int = option(
        4, _COUNT, "passes over the data that train the PruningNet; ignored if steps is given"
    )
    steps: int | None = option(None, OrNone(_COUNT), "training steps of the PruningNet")
    lr: float | None = option(
        None,
        OrNone(Above(0)),
        "its first learning rate, which falls to 0 along a line; None: 0.03, from scratch 0.1",
    )
    weight_decay: float = option(4e-5, Number(0), "of its training")
    start: str = option(
        "trained",
        OneOf("trained", "scratch"),
        "what generated weights begin with: the trained weights, or random numbers as in the paper",
    )
    widths: str = option(
        "budget",
        OneOf("budget", "all"),
        "which it is trained in: random ones that use the budget up, or all, as in the paper",
    )
    hidden: int = option(32, _COUNT, "outputs of the first generating layers")
    limit: int = option(2**22, _COUNT, "numbers in a second generating layer; larger ones are factorised")

    def check(self, problem: SearchProblem) -> None:
        """Raise `InputError` for a search of densities, and without budget or training data."""
        if problem.space.layers:
            raise InputError(
                "metapruning searches widths only; leave the pattern out, or take 'jcw', which searches both"
            )
        if problem.budget is None:
            raise InputError(
                "metapruning looks for the best network within a budget; give one, e.g. macs=0.5"
            )
        if problem.data is None:
            raise InputError(
                "metapruning trains a network that generates weights: give data=, (inputs, targets)"
            )

    def run(self, session: Session) -> None:
        """Evaluate generation after generation, until there are no new candidates."""
        population = self.population or scaled_population(session.planned)
        evolution = Evolution(
            session.costs,
            population=population,
            parents=max(2, round(self.parents * population)),
            probability=self.probability,
            seed=session.seed,
        )
        key, trials = self.key(session.problem), list[Trial]()
        rows = evolution.first()
        while len(rows):
            trials += session.evaluate(rows, lambda: self._trained(session), key=key)
            rows = evolution.next(trials)

    def judge(self, problem: SearchProblem, folder: Path) -> GeneratedWeights:
        """Return what judges with the trained PruningNet; raises `StorageError` if that is not there."""
        network, file = self._untrained(problem), self._home(problem, folder) / FILE
        if not file.exists():
            raise StorageError(
                f"{file} is missing, the network that generated the weights of this search: bring it back, "
                "or export with other weights (--start)"
            )
        load_tensors(network, read_tensors(file), str(file))
        return GeneratedWeights(problem, network, self.key(problem))

    def _trained(self, session: Session) -> GeneratedWeights:
        """Return the judge of candidates; trains the PruningNet, or reads it where that is done."""
        problem, network = session.problem, self._untrained(session.problem)
        train_widths(
            network,
            problem.data,
            self.config(problem),
            self._home(problem, session.folder),
            fit_to=session.costs if self.widths == "budget" else None,
            loss=None if problem.loss is cross_entropy else problem.loss,
            progress=problem.progress,
        )
        return GeneratedWeights(problem, network, self.key(problem))

    def _untrained(self, problem: SearchProblem) -> PruningNet:
        seed = self.config(problem).seed
        model = fresh(problem.model, seed) if self.start == "scratch" else problem.model
        with preserved_rng():
            seed_rng(derive_seed(seed, 1))
            return PruningNet(
                problem.space,
                dict(named_tensors(model)),
                hidden=self.hidden,
                limit=self.limit,
                spread=_SPREAD[self.start],
            )

    def _home(self, problem: SearchProblem, folder: Path) -> Path:
        return folder / f"pruning-net-{self.key(problem)[-12:]}"

    def config(self, problem: SearchProblem) -> FitConfig:
        """Return how the PruningNet is trained."""
        return FitConfig(
            epochs=self.epochs,
            steps=self.steps,
            lr=self.lr or _LR[self.start],
            schedule="linear",
            nesterov=False,
            weight_decay=self.weight_decay,
            seed=problem.seed,
        )

    def key(self, problem: SearchProblem) -> str:
        """Return a name for the PruningNet and for how candidates are judged with it."""
        told = {
            "form": [self.hidden, self.limit, self.start],
            "widths": problem.budget.to_dict() if self.widths == "budget" and problem.budget else None,
            "training": self.config(problem).identity(),
            "batches": len(as_batches(problem.data)),
            "space": problem.space.signature,
            "judge": [problem.settings.images, problem.settings.calibration],
        }
        return "generated " + hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


ENTRY = MetaPruning
