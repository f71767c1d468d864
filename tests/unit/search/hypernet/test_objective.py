"""Generated weights judge a candidate as the network that they make of it; statistics are always measured."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from billhook.graph import apply
from billhook.graph.slicing import named_tensors
from billhook.search.hypernet.network import PruningNet
from billhook.search.hypernet.objective import GeneratedWeights
from billhook.search.problem import SearchProblem
from billhook.train import evaluate, recalibrate_batchnorm
from tests.search import batches, problem


def _judge(searched: SearchProblem, spread: float = 0.5) -> GeneratedWeights:
    torch.manual_seed(0)
    tensors = dict(named_tensors(searched.model))
    network = PruningNet(searched.space, tensors, hidden=8, limit=2**22, spread=spread)
    return GeneratedWeights(searched, network, "generated")


def test_a_candidate_is_worth_what_its_module_with_settled_statistics_is() -> None:
    searched = problem("residual", validation=list(batches()), images=64, calibration=64)
    row = searched.space.nearest(np.full(len(searched.space.genes), 0.5))[0]
    found = _judge(searched, spread=0.0).evaluate(row)
    module = apply(searched.model, searched.space.plan(row, searched.model))
    recalibrate_batchnorm(module, list(batches()), 100)
    assert found.loss == pytest.approx(
        evaluate(module, list(batches())).loss, rel=0.02
    )  # bf16, where it is fast


def test_statistics_that_a_network_had_before_do_not_matter() -> None:
    searched = problem("residual")
    first = _judge(searched).evaluate(searched.space.lowest)
    for module in searched.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean += 10
            module.running_var *= 100
    assert _judge(searched).evaluate(searched.space.lowest).loss == first.loss


def test_it_goes_to_other_processes_and_leaves_the_network_alone() -> None:
    judge = _judge(problem("depthwise_squeeze"))
    twin = pickle.loads(pickle.dumps(judge))
    genes = problem("depthwise_squeeze").space.lowest
    before = judge.evaluate(genes).loss
    judge.evaluate(problem("depthwise_squeeze").space.highest)
    assert judge.evaluate(genes).loss == before == twin.evaluate(genes).loss
