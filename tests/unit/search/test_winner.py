"""The module of a candidate is what was judged."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from billhook.search.objective import InheritedWeights
from billhook.search.winner import repaired
from billhook.train import FitConfig, evaluate, fit
from tests.search import batches, problem


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    model = problem("plain").model
    fit(model, list(batches()), config=FitConfig(epochs=10, lr=0.05, precision="32-true"), progress=False)
    return model.eval()


@pytest.mark.parametrize("repair", ["none", "reconstruct", "recalibrate", "both"])
@pytest.mark.parametrize("pattern", [None, "4x1|dense"])
def test_the_module_of_a_candidate_is_worth_what_was_judged(
    trained: nn.Module, repair: str, pattern: str | None
) -> None:
    searched = problem("plain", model=trained, repair=repair, pattern=pattern)
    genes = searched.space.random(np.random.default_rng(2), 1)[0]
    judged = InheritedWeights(searched).evaluate(genes)
    before = {name: t.clone() for name, t in trained.state_dict().items()}
    small = repaired(searched, searched.space.plan(genes, trained))
    assert evaluate(small, searched.validation).loss == pytest.approx(judged.loss, rel=0.1)
    assert all(torch.equal(t, before[name]) for name, t in trained.state_dict().items())
