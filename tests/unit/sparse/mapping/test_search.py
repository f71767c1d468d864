from __future__ import annotations

import builtins
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from billhook.errors import InputError, MissingExtraError
from billhook.graph.patterns import Pattern, parse_pattern
from billhook.sparse.mapping import (
    LatencyTable,
    Mapping,
    MappingProblem,
    Trial,
    environment,
    legal,
    random_search,
    search,
)
from tests.unit.sparse.mapping.made_layers import conv, linear

pytest.importorskip("gymnasium", reason="gymnasium is not installed; run scripts/setup --tests")

LAYERS = [conv("a", 32, 16), conv("dw", 32, 32, groups=32), conv("b", 32, 32, 1)]
FOUR: list[Pattern | None] = [None, *map(parse_pattern, ("4x1", "8x1", "8x4"))]


def _worth(mapping: Mapping) -> float:
    """An accuracy that depends on every choice and on pairs of them."""
    picked = [FOUR.index(p) for p in mapping.choices.values()]
    return float(np.random.default_rng(picked).random())


def _problem(evaluate: Any = _worth, latency: float = 0.6, count: int = 3, **more: Any) -> MappingProblem:
    layers = [conv(f"l{i}", 32, 32, 1) for i in range(count)]
    bound = latency * LatencyTable.default().network(layers, {})
    return MappingProblem(layers, evaluate, bound, options={la.tensor: FOUR for la in layers}, **more)


def test_the_search_finds_the_best_of_all_mappings() -> None:
    found = 0
    for seed in range(10):

        def worth(mapping: Mapping, seed: int = seed) -> float:
            picked = [FOUR.index(p) for p in mapping.choices.values()]
            table = np.random.default_rng(seed).random((3, 4))
            return float(sum(table[i, a] for i, a in enumerate(picked)))

        best = max(_problem(worth).trial(a).reward for a in product(range(4), repeat=3))
        result = search(environment(_problem(worth)), episodes=150, seed=seed)
        found += result.reward == best
        assert result.evaluations < 64
    assert found >= 8


def test_the_search_beats_random_mappings_with_as_many_evaluations() -> None:
    wins = 0
    for seed in range(5):
        table = np.random.default_rng(seed).random((10, 4))

        def worth(mapping: Mapping, table: Any = table) -> float:
            return float(sum(table[i, FOUR.index(p)] for i, p in enumerate(mapping.choices.values())))

        env = environment(_problem(worth, latency=1.0, count=10))
        learned = search(env, episodes=120, evaluations=40, seed=seed)
        drawn = random_search(env, evaluations=learned.evaluations, seed=seed)
        assert drawn.evaluations == learned.evaluations
        wins += learned.reward > drawn.reward
    assert wins >= 4


def test_the_same_seed_gives_the_same_search_and_leaves_torch_alone() -> None:
    before = torch.random.get_rng_state()
    first, second, other = (search(environment(_problem()), episodes=12, seed=s).history for s in (3, 3, 4))
    assert first == second != other
    assert torch.equal(before, torch.random.get_rng_state())
    draws = [random_search(environment(_problem()), evaluations=12, seed=s).history for s in (3, 3, 4)]
    assert draws[0] == draws[1] != draws[2]


def test_the_policy_never_takes_what_a_layer_does_not_have() -> None:
    options = {la.tensor: FOUR[: 1 if la.depthwise else 4] for la in LAYERS}
    env = environment(MappingProblem(LAYERS, _worth, 1.0, options=options))
    step, taken = env.step, []
    env.step = lambda action: (taken.append(action), step(action))[1]  # type: ignore[method-assign,func-returns-value]
    search(env, episodes=50, exploration=0.0)
    assert set(taken[1::3]) == {0}
    assert len(set(taken[::3])) > 1


def test_a_mapping_is_evaluated_once() -> None:
    asked: list[Mapping] = []

    def evaluate(mapping: Mapping) -> float:
        asked.append(mapping)
        return 0.5

    result = search(environment(_problem(evaluate)), episodes=80)
    assert len(asked) == len(set(map(str, asked))) == result.evaluations < 80
    assert len(result.history) == 80


def test_a_search_stops_at_the_number_of_evaluations_and_reports_every_trial() -> None:
    seen: list[tuple[int, Trial]] = []
    result = search(
        environment(_problem()), episodes=500, evaluations=5, on_trial=lambda i, t: seen.append((i, t))
    )
    assert result.evaluations == 5
    assert [i for i, _ in seen] == list(range(len(result.history)))
    assert result.reward == max(t.reward for _, t in seen)
    assert result.mapping == result.best.mapping


def test_a_problem_may_take_the_place_of_its_environment() -> None:
    first = search(_problem(), evaluations=6, seed=1)
    second = search(environment(_problem()), evaluations=6, seed=1)
    assert first.history == second.history
    assert first.evaluations == 6
    drawn = [random_search(s, evaluations=6).history for s in (_problem(), environment(_problem()))]
    assert drawn[0] == drawn[1]


def test_random_search_ends_when_there_is_nothing_left() -> None:
    result = random_search(environment(_problem(count=1)), evaluations=100)
    assert result.evaluations == 4
    assert result.reward == max(_problem(count=1).trial([a]).reward for a in range(4))


def test_the_reward_is_the_accuracy_less_what_is_over_the_bound() -> None:
    problem = _problem(lambda mapping: 0.9, latency=0.5, weight=2.0)
    dense, sparse = problem.trial([0, 0, 0]), problem.trial([2, 2, 2])
    assert dense.latency == pytest.approx(LatencyTable.default().network(problem.layers, {}))
    assert dense.reward == pytest.approx(0.9 - 2 * (1 / 0.5 - 1))
    assert sparse.latency <= problem.latency
    assert sparse.reward == 0.9
    assert sparse.mapping.sparsities == {f"l{i}.weight": 0.8 for i in range(3)}


def test_by_default_a_layer_may_get_what_is_legal_for_its_type() -> None:
    problem = MappingProblem(
        LAYERS, lambda mapping: 0.0, 1.0, {"a.weight": 0.9, "dw.weight": 0, "b.weight": 0.8}
    )
    assert problem.of(LAYERS[0]) == (
        None,
        *[p for p in legal(LAYERS[0]) if p.sparsities((32, 16, 9))[1] >= 0.9],
    )
    assert problem.of(LAYERS[1]) == (None,)
    assert problem.counts[1] == 1


@pytest.mark.filterwarnings("ignore:.*Not able to test alternative render modes:UserWarning")
def test_gymnasium_accepts_the_environment() -> None:
    from gymnasium.utils.env_checker import check_env

    layers = [*LAYERS, linear("fc", 10, 32)]
    options = {layer.tensor: FOUR[: 1 if layer.depthwise else 4] for layer in layers}
    check_env(
        environment(MappingProblem(layers, lambda mapping: 0.5, 1.0, options=options)), skip_render_check=True
    )


def _steps(env: Any, actions: list[int]) -> Iterator[tuple[Any, ...]]:
    for action in actions:
        yield env.step(action)


def test_an_episode_is_one_pass_over_the_layers() -> None:
    options = {layer.tensor: FOUR[: 1 if layer.depthwise else 4] for layer in LAYERS}
    env = environment(MappingProblem(LAYERS, lambda mapping: 0.25, 1.0, options=options))
    first, info = env.reset(seed=0)
    assert info["action_mask"].tolist() == [1, 1, 1, 1]
    steps = list(_steps(env, [2, 3, 1]))
    assert [s[1] for s in steps] == [0.0, 0.0, 0.25]
    assert [s[2] for s in steps] == [False, False, True]
    assert steps[0][4]["action_mask"].tolist() == [1, 0, 0, 0]
    assert all(env.observation_space.contains(s[0]) for s in steps)
    assert not np.array_equal(first, steps[0][0])
    # The depthwise layer has one option: another index counts as that one.
    assert list(steps[-1][4]["trial"].mapping.choices.values()) == [FOUR[2], None, FOUR[1]]


def test_without_gymnasium_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = builtins.__import__

    def absent(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("gymnasium"):
            raise ImportError(name)
        return genuine(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingExtraError, match=r"billhook\[search\]"):
        environment(_problem())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": []}, "no layer to map"),
        ({"latency": 0.0}, "latency=0.0 must be"),
        ({"latency": float("nan")}, "latency=nan must be"),
        ({"weight": -1.0}, "weight=-1.0 must be"),
        ({"sparsity": 1.0}, "below 1"),
        ({"sparsity": {"a.weight": 0.5}}, "no sparsity is given for 'dw.weight'"),
        ({"options": {"a.weight": FOUR}}, "dw.weight has none"),
        ({"options": {la.tensor: FOUR for la in LAYERS}}, "does not fit dw.weight"),
    ],
)
def test_a_wrong_problem_is_refused(options: dict[str, Any], message: str) -> None:
    given = {"layers": LAYERS, "evaluate": lambda mapping: 0.5, "latency": 1.0, **options}
    with pytest.raises(InputError, match=message):
        MappingProblem(**given)


@pytest.mark.parametrize("accuracy", [float("nan"), float("inf")])
def test_an_accuracy_that_is_none_is_refused(accuracy: float) -> None:
    with pytest.raises(InputError, match="evaluate returned"):
        search(environment(_problem(lambda mapping: accuracy)), episodes=1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"episodes": 0},
        {"evaluations": True},
        {"episodes": 1, "lr": 0.0},
        {"episodes": 1, "exploration": 1.0},
    ],
)
def test_wrong_options_of_a_search_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        search(environment(_problem()), **options)
    with pytest.raises(InputError, match="evaluations=0"):
        random_search(environment(_problem()), evaluations=0)
