"""What candidates are worth: repair helps, densities count, and nothing touches the network."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

from billhook.errors import InputError
from billhook.graph import apply
from billhook.search.objective import InheritedWeights
from billhook.train import evaluate, fit
from billhook.train.config import FitConfig
from tests.search import batches, problem, problem_of


@pytest.fixture(scope="module")
def trained() -> torch.nn.Module:
    model = problem("plain").model
    config = FitConfig(epochs=30, lr=0.05, precision="32-true")
    fit(model, list(batches()), config=config, progress=False)
    return model.eval()


def test_the_whole_network_is_worth_what_evaluation_says(trained: torch.nn.Module) -> None:
    searched = problem("plain", model=trained, repair="none")
    found = InheritedWeights(searched).evaluate(searched.space.highest)
    expected = evaluate(trained, searched.validation)
    assert found.accuracy == pytest.approx(expected.accuracy, abs=0.07)  # bf16, where the machine has it
    assert found.loss == pytest.approx(expected.loss, rel=0.05)


def test_a_candidate_is_worth_what_its_module_is(trained: torch.nn.Module) -> None:
    searched = problem("plain", model=trained, repair="none", pattern="4x1|dense")
    genes = searched.space.random(np.random.default_rng(0), 1)[0]
    found = InheritedWeights(searched).evaluate(genes)
    small = apply(trained, searched.space.plan(genes, trained))
    assert found.loss == pytest.approx(evaluate(small, searched.validation).loss, rel=0.05)


@pytest.mark.parametrize("repair", ["reconstruct", "recalibrate", "both"])
def test_repair_brings_loss_down(trained: torch.nn.Module, repair: str) -> None:
    losses = {}
    for how in ("none", repair):
        searched = problem("plain", model=trained, repair=how, validation=list(batches()))
        genes = searched.space.nearest(np.full(len(searched.space.genes), 0.5))[0]
        losses[how] = InheritedWeights(searched).evaluate(genes).loss
    assert losses[repair] < losses["none"]


def test_the_network_is_left_as_it_was(trained: torch.nn.Module) -> None:
    before = copy.deepcopy(trained.state_dict())
    for repair in ("reconstruct", "recalibrate"):
        searched = problem("plain", model=trained, repair=repair, pattern="4x1|dense")
        InheritedWeights(searched).evaluate(searched.space.lowest)
    assert all(torch.equal(before[n], t) for n, t in trained.state_dict().items())


def test_an_objective_goes_to_other_processes() -> None:
    searched = problem("plain")
    objective = InheritedWeights(searched)
    genes = searched.space.lowest
    twin = pickle.loads(pickle.dumps(objective))
    assert twin.evaluate(genes).loss == objective.evaluate(genes).loss


def test_missing_data_are_asked_for() -> None:
    with pytest.raises(InputError, match="give validation="):
        InheritedWeights(problem("plain", validation=None))
    with pytest.raises(InputError, match="training data are needed"):
        InheritedWeights(problem("plain", data=None, repair="reconstruct"))


def test_a_network_of_one_batch_size_is_told_which_batches_it_needs() -> None:
    class Fixed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = torch.nn.Conv2d(3, 16, 3), torch.nn.Linear(16 * 100, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.conv(x).relu().reshape(2, -1))

    searched = problem_of(Fixed().eval(), torch.randn(2, 3, 12, 12), repair="none")
    with pytest.raises(InputError, match=r"Fixed works only for the batch size of the example inputs, 2"):
        InheritedWeights(searched)
    pairs = [(x[:2], y[:2]) for x, y in batches()]
    given = {"repair": "none", "validation": pairs, "data": pairs}
    fitting = problem_of(Fixed().eval(), torch.randn(2, 3, 12, 12), **given)
    assert 0 <= InheritedWeights(fitting).evaluate(fitting.space.highest).accuracy <= 1
