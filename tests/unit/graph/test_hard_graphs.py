"""Every hard graph of the benchmark is pruned right, and its hard construct is really prunable."""

from __future__ import annotations

import pytest

from benchmarks.hard_graphs import CASES, run


@pytest.mark.parametrize("name", CASES)
def test_half_of_a_hard_graph_leaves(name: str) -> None:
    outcome = run(CASES[name])
    assert outcome.agrees, outcome
    assert outcome.exact, outcome
    assert outcome.oracle <= 1e-4, outcome
    assert outcome.effect > 1e-3, "the removed channels do not matter to the output"
    assert outcome.wrongly == (), "prunable or held against expectation"
    assert outcome.right
