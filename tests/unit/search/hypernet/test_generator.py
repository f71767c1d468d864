"""Generated weights: the formula, the beginning, and the bound on memory."""

from __future__ import annotations

import pytest
import torch

from billhook.search.hypernet.generator import (
    RANK,
    FactorisedGenerator,
    FullGenerator,
    Generator,
    make_generator,
)

BASE = torch.randn(16, 8, 3, 3, generator=torch.Generator().manual_seed(0))


def _numbers(generator: Generator) -> int:
    """Numbers of the second layer without its bias."""
    named = dict(generator.named_parameters())
    return sum(p.numel() for n, p in named.items() if n in ("second", "outputs", "inputs"))


def test_the_full_form_is_two_linear_layers_with_a_relu_between() -> None:
    generator = make_generator(2, 32, BASE, 10**6, 1.0)
    assert isinstance(generator, FullGenerator)
    second = torch.nn.Linear(32, BASE.numel())
    with torch.no_grad():
        second.weight.copy_(generator.second)
        second.bias.copy_(BASE.flatten())
    fractions = torch.tensor([0.5, 0.25])
    expected = second(torch.relu(generator.first(fractions))).view(BASE.shape)
    torch.testing.assert_close(generator(fractions), expected)


@pytest.mark.parametrize("limit", [10**6, 5000])
def test_without_spread_a_weight_begins_as_it_was_given(limit: int) -> None:
    assert torch.equal(make_generator(1, 32, BASE, limit, 0.0)(torch.tensor([0.3])), BASE)


def test_spread_says_how_far_weights_are_from_what_was_given() -> None:
    far = [make_generator(2, 32, BASE, 10**6, s)(torch.tensor([0.5, 0.5])) - BASE for s in (0.1, 1.0)]
    assert 0 < far[0].square().mean() < far[1].square().mean() < BASE.square().mean()


@pytest.mark.parametrize(("limit", "rank"), [(32 * 88 * RANK, RANK), (32 * 88 * 2 + 1, 2), (7, 1)])
def test_a_large_weight_is_factorised_and_keeps_to_the_limit(limit: int, rank: int) -> None:
    generator = make_generator(2, 32, BASE, limit, 0.5)
    assert isinstance(generator, FactorisedGenerator)
    assert generator.rank == rank
    assert _numbers(generator) <= max(limit, 32 * 88)  # 16 outputs and 72 inputs; rank 1 is the least


def test_a_weight_at_the_limit_is_not_factorised() -> None:
    generator = make_generator(2, 32, BASE, 32 * BASE.numel(), 0.5)
    assert isinstance(generator, FullGenerator)
    assert _numbers(generator) == 32 * BASE.numel()


def test_a_factorised_weight_learns_to_differ_with_its_widths() -> None:
    torch.manual_seed(0)
    generator = make_generator(1, 32, torch.zeros(8, 8), 10, 0.5)
    small, large = torch.tensor([0.2]), torch.tensor([1.0])
    wanted = torch.outer(torch.ones(8), torch.arange(8.0))
    optimizer = torch.optim.Adam(generator.parameters(), lr=0.02)
    for _ in range(400):
        loss = (generator(small) - wanted).square().mean() + (generator(large) + wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
