"""How little may be left of a layer."""

from __future__ import annotations

from billhook.search.evolution.least import least_fractions
from tests.search import problem


def test_channels_and_densities_have_bounds_of_their_own() -> None:
    space = problem("residual", pattern="4x1|dense").space
    least = least_fractions(space, 0.5, 0.3)
    assert {(g.kind, least(i)) for i, g in enumerate(space.genes)} == {("channels", 0.5), ("density", 0.3)}


def test_stem_strides_and_shared_widths_are_protected_as_published() -> None:
    space = problem("residual", pattern="4x1|dense").space
    least = least_fractions(space, 0.5, 0.3, protect=True)
    found = {g.name: least(i) for i, g in enumerate(space.genes)}
    assert {
        "channels stem": 0.8,  # also the trunk to which outer1 adds
        "channels inner1": 0.5,
        "channels inner2": 0.6,  # has a stride
        "channels outer2": 0.9,  # is added to project
        "density stem.weight": 0.8,
        "density inner1.weight": 0.3,
        "density inner2.weight": 0.8,
        "density project.weight": 0.8,
        "density outer2.weight": 0.3,
    }.items() <= found.items()
    high = least_fractions(space, 0.95, 0.95, protect=True)
    assert {high(i) for i in range(len(space.genes))} == {0.95}, "the plain bounds are bounds too"
