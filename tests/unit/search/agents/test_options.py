from __future__ import annotations

import pytest

from billhook.errors import InputError
from billhook.search.agents.options import AgentOptions


@pytest.mark.parametrize(("trials", "episodes"), [(1000, 100), (800, 100), (200, 25), (3, 0)])
def test_the_warm_up_is_that_of_the_source_or_an_eighth(trials: int, episodes: int) -> None:
    assert AgentOptions().random_episodes(trials) == episodes


def test_numbers_that_are_given_are_used() -> None:
    options = AgentOptions(warmup=7, replay=2000)
    assert options.random_episodes(800) == 7
    assert options.kept(12) == 2000
    assert AgentOptions().kept(12) == 1200


@pytest.mark.parametrize(
    "wrong", [{"agent": "a2c"}, {"warmup": -1}, {"sigma_decay": 1.5}, {"batch": 1}, {"updates": 0}]
)
def test_values_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match=f"option {next(iter(wrong))}="):
        AgentOptions(**wrong)  # type: ignore[arg-type]
