"""Which widths a weight is generated from, by hand."""

from __future__ import annotations

import torch
from torch import nn

from billhook.search.hypernet.encoding import encodings
from billhook.search.problem import SearchProblem
from tests.networks import build
from tests.search import problem_of


def _told(problem: SearchProblem) -> dict[str, list[str]]:
    names = [g.target for g in problem.space.genes]
    return {t: [names[i] for i in genes] for t, genes in encodings(problem.space).items()}


def test_a_weight_is_told_of_its_outputs_and_its_inputs() -> None:
    assert _told(problem_of(*build("residual"))) == {
        "stem.weight": ["stem"],
        "inner1.weight": ["inner1", "stem"],
        "outer1.weight": ["stem", "inner1"],
        "inner2.weight": ["inner2", "stem"],
        "outer2.weight": ["outer2", "inner2"],
        "project.weight": ["outer2", "stem"],
        "head.weight": ["outer2"],
    }


def test_a_weight_behind_a_concatenation_is_told_of_all_that_it_reads() -> None:
    told = _told(problem_of(*build("concat")))
    assert told["dense2.weight"] == ["dense2", "stem", "dense1"]
    assert told["head.weight"] == ["stem", "dense1", "dense2"]


def test_a_depthwise_weight_is_told_of_its_only_width() -> None:
    told = _told(problem_of(*build("depthwise_squeeze")))
    assert told["depth.weight"] == ["expand"]
    assert told["squeeze.weight"] == ["squeeze", "expand"]


def test_weights_whose_sizes_no_gene_sets_are_left_out() -> None:
    layers = [nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)]
    problem = problem_of(nn.Sequential(*layers), torch.zeros(1, 4))  # 3 is no multiple of 4
    assert _told(problem) == {"2.weight": ["2"], "4.weight": ["2"]}
