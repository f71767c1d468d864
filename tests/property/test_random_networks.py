"""Any network that is made of known blocks can be pruned, and the result is right."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from tests.property.random_networks import DESCRIPTIONS, RESIDUAL, Description, mismatches, problem_of


@settings(max_examples=30, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(DESCRIPTIONS)
def test_half_of_a_random_network_leaves(description: Description) -> None:
    assert problem_of(description) is None


@settings(max_examples=20, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(RESIDUAL)
def test_branches_of_a_random_network_leave(description: Description) -> None:
    assert problem_of(description, branches=True) is None


@pytest.mark.slow
@pytest.mark.zoo
def test_two_hundred_random_networks() -> None:
    assert mismatches(200) == []
