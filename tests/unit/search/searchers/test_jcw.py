"""JCW against brute force on a table, and on a small network with shared weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from billhook.allocate.budget import Budget
from billhook.errors import BudgetError, InputError
from billhook.graph import capture
from billhook.graph.patterns import parse_pattern
from billhook.search.costs import SearchCosts
from billhook.search.driver import SearchResult, search
from billhook.search.pareto import front, hypervolume
from billhook.search.searchers.jcw import Jcw
from billhook.search.session import StopSearch
from billhook.search.shared import training
from billhook.search.space import Floats, Genes, Space
from billhook.search.studies.trial import Trial
from tests.search import problem
from tests.small_net import net

LEVELS = 11
SHORT = {"population": 4, "slice_steps": 4, "mask_steps": 3, "settling": 1, "precision": "32-true"}


class Latency:
    """Two layers; zeros save less than channels, and nothing is free."""

    original = 1.0

    def __init__(self, space: Space) -> None:
        self._space = space

    def of(self, rows: Genes) -> Floats:
        first, second, *rest = self._space.fractions(rows).T
        dense = (*rest, *[np.ones_like(first)] * (2 - len(rest)))
        return np.asarray(first * (0.1 + 0.2 * dense[0]) + first * second * (0.3 + 0.4 * dense[1]))


def _loss(fractions: Floats) -> Floats:
    """Return what is lost: channels and zeros of the second layer matter more."""
    first, second, sparse, sparser = fractions.T
    narrow = 0.4 * (1 - first) ** 2 + 0.9 * (1 - second) ** 2
    zeros = 0.2 * (1 - sparse) ** 3 + 0.5 * (1 - sparser) ** 2
    return np.asarray(0.5 + narrow + zeros + 0.3 * (1 - first) * (1 - sparser))


@pytest.fixture(scope="module")
def space() -> Space:
    """Two layers of 11 channels and 11 densities: 14,641 candidates."""
    model = net(
        lambda m, x: m.head(m.b(m.a(x).relu()).relu().mean((2, 3))),
        a=nn.Conv2d(3, LEVELS, 1),
        b=nn.Conv2d(LEVELS, LEVELS, 1),
        head=nn.Linear(LEVELS, 2),
    )
    graph = capture(model, torch.zeros(1, 3, 4, 4))
    widths, densities = range(1, LEVELS + 1), [(i + 1) / LEVELS for i in range(LEVELS)]
    groups = {g.id: list(widths) for g in graph.groups.prunable}
    tensors = ("a.weight", "b.weight")
    return Space(
        graph,
        groups,
        {g: np.arange(LEVELS) for g in groups},
        dict.fromkeys(tensors, densities),
        dict.fromkeys(tensors, parse_pattern("1x1")),
    )


class Bench:
    """A session without a study: candidates are worth what the formula says."""

    metric, seed = "latency", 0

    def __init__(self, space: Space, trials: int, budget: Budget | None = None, seed: int = 0) -> None:
        self.space, self.trials, self.seed = space, trials, seed
        self.costs = SearchCosts(space, budget, Latency(space))
        self.done: list[Trial] = []

    @property
    def remaining(self) -> int:
        return self.trials - len(self.done)

    def evaluate(self, rows: Any, notes: Any) -> list[Trial]:
        if not self.remaining:
            raise StopSearch
        rows = np.array(rows)[: self.remaining]
        losses, latencies = _loss(self.space.fractions(rows)), self.costs.of(rows, ("latency",))["latency"]
        found = [
            Trial(len(self.done) + i, tuple(map(int, row)), 1 - loss, loss, {"latency": ms}, notes=note)
            for i, (row, loss, ms, note) in enumerate(zip(rows, losses, latencies, notes, strict=False))
        ]
        self.done += found
        return found


def _evolved(searcher: Jcw, bench: Bench) -> Genes:
    """Return every row that was evaluated."""
    with suppress(StopSearch):
        searcher.run(bench)  # type: ignore[arg-type]
    return np.array([t.genes for t in bench.done])


def _share_of_front(bench: Bench, low: Genes) -> float:
    """Return the hypervolume that was found relative to that of all candidates from `low` on."""
    every = np.array(list(product(*(range(a, b + 1) for a, b in zip(low, bench.space.highest, strict=True)))))
    every = every[bench.costs.within(every)]
    costs = np.stack([_loss(bench.space.fractions(every)), bench.costs.of(every, ("latency",))["latency"]], 1)
    reference = tuple(costs.max(0) + 1e-9)
    found = [(t.loss, t.costs["latency"]) for t in bench.done]
    return hypervolume(found, reference) / hypervolume(costs[front(costs)], reference)


@pytest.mark.parametrize("selection", ["unds", "nsga2", "individual"])
@pytest.mark.parametrize(("generations", "channels", "density"), [(30, 0.0, 0.0), (10, 0.5, 0.3)])
def test_evolution_finds_98_percent_of_the_exhaustive_front_in_30_generations(
    space: Space, generations: int, channels: float, density: float, selection: str
) -> None:
    bench = Bench(space, 64 * (generations + 1))
    searcher = Jcw(evaluation="inherited", selection=selection, channels=channels, density=density)
    rows = _evolved(searcher, bench)
    least = [channels, channels, density, density]
    low = np.array([[v >= f - 1e-9 for v in np.arange(1, 12) / LEVELS].index(True) for f in least])
    assert ((rows >= low) & (rows <= space.highest)).all(), "it left the bounds"
    assert len(np.unique(rows, axis=0)) == len(rows), "a candidate was asked for twice"
    assert _share_of_front(bench, low) >= 0.98


def test_a_short_search_beats_random_candidates(space: Space) -> None:
    """With 160 evaluations, of 14,641: over ten seeds."""
    better = 0
    for seed in range(10):
        bench = Bench(space, 160, seed=seed)
        _evolved(Jcw(evaluation="inherited", population=16, channels=0.0, density=0.0), bench)
        blind = Bench(space, 160)
        blind.evaluate(space.random(np.random.default_rng(seed), 160), [{}] * 160)
        better += _share_of_front(bench, space.lowest) > _share_of_front(blind, space.lowest)
    assert better >= 9


def test_with_a_budget_every_candidate_uses_it_up_and_the_best_is_found(space: Space) -> None:
    """The best of all 14,641, or one of the ten next, in 200 evaluations, for 8 of 10 seeds."""
    every = np.array(list(product(range(LEVELS), repeat=4)))
    found = 0
    for seed in range(10):
        bench = Bench(space, 200, Budget(latency=0.4), seed)
        rows = _evolved(Jcw(evaluation="inherited", population=10, channels=0.0, density=0.0), bench)
        assert bench.costs.within(rows).all()
        one_more = [
            row + step for row in rows for step in np.eye(4, dtype=int) if (row + step < LEVELS).all()
        ]
        assert not bench.costs.within(np.array(one_more)).any()
        losses = np.sort(_loss(space.fractions(every[bench.costs.within(every)])))
        found += min(t.loss for t in bench.done) <= losses[10]
    assert found >= 8


def test_a_budget_below_the_bounds_names_what_can_be_reached(space: Space) -> None:
    bench = Bench(space, 64, Budget(latency=0.4))
    with pytest.raises(
        BudgetError,
        match=r"=0.9 and density=0.9: the least latency is \d\d\.\d% of the original, the bound 40.0%",
    ):
        _evolved(Jcw(evaluation="inherited", channels=0.9, density=0.9), bench)


def test_a_budget_that_everything_keeps_changes_nothing(space: Space) -> None:
    searcher = Jcw(evaluation="inherited", population=16, channels=0.0, density=0.0)
    with_budget, without = (_evolved(searcher, Bench(space, 100, b)) for b in (Budget(latency=1.0), None))
    assert (with_budget == without).all()


def test_a_budget_on_another_metric_leaves_the_front_whole(space: Space) -> None:
    bench = Bench(space, 640, Budget(params=0.6))
    rows = _evolved(Jcw(evaluation="inherited", channels=0.0, density=0.0), bench)
    assert bench.costs.within(rows).all()
    latencies = bench.costs.of(rows, ("latency",))["latency"]
    assert latencies.min() < 0.05 < 0.5 < latencies.max()


def test_targets_may_be_drawn(space: Space) -> None:
    bench = Bench(space, 640)
    _evolved(Jcw(evaluation="inherited", spread="random", targets=6, channels=0.0, density=0.0), bench)
    assert _share_of_front(bench, space.lowest) >= 0.95


def test_a_space_that_is_used_up_ends_the_search() -> None:
    searched = problem("plain", lowest=0.7)
    assert np.prod(searched.space.sizes) < 40
    found = search(searched, "jcw", trials=200, options={"evaluation": "inherited", "population": 50})
    assert len({t.genes for t in found.trials}) == len(found.trials) <= np.prod(searched.space.sizes)


def _searched(budget: Budget | None = None, **given: Any) -> SearchResult:
    options = {**SHORT, **given.pop("options", {})}
    searched = problem("plain", budget, round_to=1, **given.pop("problem", {}))
    return search(searched, "jcw", trials=given.pop("trials", 24), options=options, **given)


def test_a_generation_judges_parents_and_children_with_the_same_weights() -> None:
    found = _searched()
    by_generation = [[t for t in found.trials if t.notes["generation"] == g] for g in range(3)]
    assert [len(trials) for trials in by_generation] == [8, 8, 8]
    assert [{t.key for t in trials} for trials in by_generation] == [
        {f"shared, generation {g}"} for g in range(3)
    ]
    for before, after in pairwise(by_generation):
        assert {t.genes for t in after[:4]} <= {t.genes for t in before}
        assert not {t.genes for t in after[4:]} & {t.genes for t in after[:4]}
    # Who came back is judged anew, by other weights.
    (again,) = [t for t in by_generation[1] if t.genes == by_generation[1][0].genes]
    first = next(t for t in by_generation[0] if t.genes == again.genes)
    assert first.loss != again.loss


def test_only_results_of_one_network_are_compared() -> None:
    found = _searched()
    last = [t for t in found.trials if t.notes["generation"] == 2]
    assert found.best in last
    assert found.front
    assert all(trial in last for trial in found.front)


def test_the_same_seed_is_the_same_study_and_another_another() -> None:
    first, second = (_searched(trials=16) for _ in range(2))
    assert [(t.genes, t.loss) for t in first.trials] == [(t.genes, t.loss) for t in second.trials]
    other = _searched(trials=16, problem={"seed": 1})
    assert [t.genes for t in other.trials] != [t.genes for t in first.trials]


def test_shared_weights_go_to_other_processes() -> None:
    alone, together = (_searched(trials=8, workers=n, parallel=2) for n in (1, 2))
    assert [(t.genes, t.loss) for t in alone.trials] == [(t.genes, t.loss) for t in together.trials]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Return the generations whose shared weights were trained, step by step."""
    steps: list[int] = []
    before_step = training.Sampling.before_step

    def counted(self: Any, context: Any) -> None:
        steps.append(context.step)
        before_step(self, context)

    monkeypatch.setattr(training.Sampling, "before_step", counted)
    return steps


@pytest.mark.parametrize("stop", [8, 13, 16, 18])
def test_a_search_goes_on_and_trains_no_finished_generation_again(
    tmp_path: Path, trained: list[int], stop: int
) -> None:
    whole = _searched()
    assert len(trained) == 3 * 4
    trained.clear()
    _searched(trials=stop, study=tmp_path / "s.db")
    begun = len(trained)
    found = _searched(study=tmp_path / "s.db")
    assert [(t.genes, t.loss) for t in found.trials] == [(t.genes, t.loss) for t in whole.trials]
    assert begun == (4 if stop < 13 else 8)
    assert len(trained) == 3 * 4, "weights were trained again that were there already"


def test_densities_are_searched_with_masks() -> None:
    found = _searched(trials=16, problem={"pattern": "4x1|dense"})
    assert len(found.trials) == 16
    cheapest = min(found.trials, key=lambda t: t.costs["macs"])
    structures = found.plan(cheapest).patterns
    assert structures
    for tensor, structure in structures.items():
        assert 1 - structure.sparsity >= 0.3 - 0.05, tensor


def test_too_few_trials_for_a_generation_and_missing_data_are_told() -> None:
    with pytest.raises(InputError, match="trials=4 are too few for one generation of a population of 4"):
        _searched(trials=4)
    searched = replace(problem("plain", repair="none", criterion="l1"), data=None)
    with pytest.raises(InputError, match="evaluation='inherited'"):
        search(searched, "jcw", trials=20)
    options = {"evaluation": "inherited", "population": 4}
    assert len(search(searched, "jcw", trials=9, options=options).trials) == 9
