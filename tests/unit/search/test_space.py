"""Rows of genes as widths and densities, and the plans they stand for."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from billhook.errors import InputError, ScopeError, StorageError
from billhook.graph import Scope, apply, verify
from tests.search import problem


def test_a_gene_of_channels_is_a_group_and_the_numbers_that_the_runtime_likes() -> None:
    space = problem("residual", lowest=0.3).space
    sizes = {g.id: g.size for g in space.groups}
    assert [g.name for g in space.genes] == [f"channels {g.id}" for g in space.groups]
    for gene in space.genes:
        assert gene.values[-1] == gene.full == sizes[gene.target]
        assert all(v % 4 == 0 and v >= 0.3 * gene.full for v in gene.values)
        assert all(a < b for a, b in pairwise(gene.values))


def test_densities_come_after_channels_and_only_where_the_pattern_fits() -> None:
    space = problem("plain", pattern="4x1|dense", least_density=0.3).space
    kinds = [g.kind for g in space.genes]
    assert kinds == sorted(kinds)
    assert "density" in kinds
    for gene in space.genes[len(space.groups) :]:
        assert gene.values[0] == pytest.approx(0.3)
        assert gene.values[-1] == 1


def test_rows_become_values_and_back() -> None:
    space = problem("residual").space
    rows = space.random(np.random.default_rng(0), 50)
    assert rows.shape == (50, len(space.genes))
    assert (space.nearest(space.fractions(rows)) == rows).all()
    assert (rows >= space.lowest).all()
    assert (rows <= space.highest).all()
    seen = [len(np.unique(column)) for column in space.random(np.random.default_rng(0), 500).T]
    assert seen == list(space.sizes)


def test_a_plan_keeps_the_best_units_and_leads_back_to_its_genes() -> None:
    searched = problem("residual", criterion="l1")
    space = searched.space
    genes = space.random(np.random.default_rng(3), 1)[0]
    plan = space.plan(genes, searched.model)
    assert plan.counts == {g.id: round(v) for g, v in zip(space.groups, space.values(genes)[0], strict=True)}
    assert (space.of_plan(plan) == genes).all()
    for group in space.groups:
        kept = np.flatnonzero(plan.keep[group.id])
        assert set(kept) == set(space.order[group.id][: len(kept)])
    assert verify(searched.model, plan, searched.example_inputs).agrees
    other = problem("residual", criterion="first").space
    first = other.plan(genes, searched.model)
    assert all(k[: k.sum()].all() for k in first.keep.values())


def test_densities_become_structures_of_what_is_left() -> None:
    searched = problem("plain", pattern="4x1|dense")
    space = searched.space
    genes = space.random(np.random.default_rng(1), 1)[0]
    plan = space.plan(genes, searched.model)
    small = apply(searched.model, plan)
    weights = dict(small.named_parameters())
    for layer, density in zip(space.layers, space.values(genes)[0][len(space.groups) :], strict=True):
        if density < 1:
            zeros = float((weights[layer.tensor] == 0).float().mean())
            assert zeros == pytest.approx(1 - density, abs=0.12), layer.tensor
        else:
            assert layer.tensor not in plan.patterns


def test_other_values_or_another_network_are_another_space() -> None:
    assert problem("plain").space.signature == problem("plain").space.signature
    assert problem("plain").space.signature != problem("plain", lowest=0.5).space.signature
    assert problem("plain").space.signature != problem("residual").space.signature


def test_a_plan_with_other_numbers_is_refused() -> None:
    fine = problem("plain", round_to=1)
    genes = fine.space.lowest + 1
    plan = fine.space.plan(genes, fine.model)
    with pytest.raises(StorageError, match="none of the numbers"):
        problem("plain").space.of_plan(plan)


def test_a_search_with_nothing_to_choose_says_so() -> None:
    with pytest.raises(InputError, match="nothing to search"):
        _ = problem("plain", round_to=1024).space
    with pytest.raises(ScopeError, match="matches no"):
        _ = problem("plain", scope=Scope(include=("stem*",))).space


def test_scores_decide_who_stays() -> None:
    searched = problem("plain")
    with torch.no_grad():
        searched.model.conv1.weight[:4].mul_(100)  # type: ignore[operator, union-attr]
    space = searched.space
    assert set(space.order["conv1"][:4]) == {0, 1, 2, 3}
