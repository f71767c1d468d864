"""Noise falls from episode to episode; trusted policies begin without; warm-ups are learnt from."""

from __future__ import annotations

import numpy as np
import pytest

from billhook.allocate.budget import Budget
from billhook.search.encoder.decoder_search import Noise, search_with_decoder
from billhook.search.encoder.graphs import NetworkGraph
from tests.search_candidates import Judged, NoTrialsLeft, mlp_space
from tests.unit.search.encoder.test_decoder_training import trainer_of


def test_noise_is_even_at_first_then_falls_to_its_least() -> None:
    noise = Noise(warmup=2, sigma=0.5, decay=0.5, least=0.1)
    assert [noise.of(e) for e in range(6)] == [None, None, 0.5, 0.25, 0.125, 0.1]


def test_a_trusted_policy_begins_without_noise() -> None:
    noise = Noise(warmup=0, sigma=0.2, decay=1.0, trusted=True)
    assert [noise.of(e) for e in range(3)] == [0.0, 0.2, 0.2]


def test_nothing_is_learnt_before_the_warm_up_ends_and_then_from_all_of_it() -> None:
    trainer = trainer_of()
    learnt: list[tuple[int, int]] = []
    space = mlp_space((16, 16, 16), 4)
    trainer.graph = NetworkGraph(space.graph, space.genes)
    judged = Judged(space, lambda row: 0.5, Budget(macs=0.5), 14)
    trainer.learn = lambda episodes: learnt.append((len(judged.done), episodes))  # type: ignore[method-assign]
    with pytest.raises(NoTrialsLeft):
        search_with_decoder(
            lambda rows: judged.evaluate(np.stack(rows)),
            judged.costs,
            trainer,
            Noise(warmup=10),
            parallel=2,
            seed=0,
        )
    assert learnt == [(10, 10), (12, 2), (14, 2)]
