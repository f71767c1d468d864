"""Scopes: patterns over names of groups, layers and tensors; one that matches nothing is an error."""

from __future__ import annotations

import numpy as np
import pytest

from billhook.errors import ScopeError
from billhook.graph import ChannelGroup, Groups, Member, Reason, Scope
from billhook.graph.weights import WeightLayer


def group(name: str, *tensors: str, reads: str = "", frozen: bool = False) -> ChannelGroup:
    index = np.arange(4)[:, None]
    members = [Member(t, 0, "out", index) for t in tensors]
    members += [Member(reads, 1, "in", index)] if reads else []
    return ChannelGroup(name, 4, tuple(members), Reason("model output") if frozen else None)


GROUPS = Groups((
    group("stem.conv", "stem.conv.weight", "stem.bn.weight", reads="layer1.0.conv.weight"),
    group("layer1.0.conv", "layer1.0.conv.weight", reads="layer2.0.conv.weight"),
    group("layer2.0.conv", "layer2.0.conv.weight", reads="fc.weight"),
    group("fc", "fc.weight", frozen=True),
))  # fmt: skip


def names(scope: Scope) -> list[str]:
    return [g.id for g in scope.select(GROUPS)]


def test_everything_prunable_is_in_scope_by_default() -> None:
    assert names(Scope()) == ["stem.conv", "layer1.0.conv", "layer2.0.conv"]


def test_a_layer_stands_for_all_groups_it_makes() -> None:
    assert names(Scope(include=("layer1",))) == ["layer1.0.conv"]
    assert names(Scope(include=("layer?.0",))) == ["layer1.0.conv", "layer2.0.conv"]
    assert names(Scope(include=("stem.bn",))) == ["stem.conv"]
    assert names(Scope(include=("stem.bn.weight",))) == ["stem.conv"]


def test_exclusion_wins() -> None:
    assert names(Scope(include=("layer*",), exclude=("layer2*",))) == ["layer1.0.conv"]


def test_frozen_groups_are_known_but_never_selected() -> None:
    assert names(Scope(include=("fc", "stem"))) == ["stem.conv"]


def test_a_group_does_not_belong_to_the_layer_that_reads_it() -> None:
    assert names(Scope(exclude=("layer2",))) == ["stem.conv", "layer1.0.conv"]


def test_patterns_that_match_nothing_are_all_named_with_close_names() -> None:
    with pytest.raises(ScopeError) as caught:
        Scope(include=("layer3", "stem"), exclude=("head.*",)).select(GROUPS)
    text = str(caught.value)
    assert "'layer3' matches no group, layer or tensor; did you mean" in text
    assert "'layer1'" in text
    assert "'head.*'" in text
    assert "'stem'" not in text


def names_of_weights(scope: Scope) -> list[str]:
    layers = [
        WeightLayer("a.conv.weight", "a.conv", "conv", (4, 4, 3, 3), others=("b.conv.weight", "b.conv")),
        WeightLayer("c.weight", "c", "linear", (4, 4)),
    ]
    return [layer.tensor for layer in scope.select_weights(layers)]


@pytest.mark.parametrize("name", ["a", "a.conv", "a.conv.weight", "b", "b.conv", "b.conv.weight"])
def test_a_shared_weight_goes_by_every_name(name: str) -> None:
    assert names_of_weights(Scope(include=(name,))) == ["a.conv.weight"]
    assert names_of_weights(Scope(exclude=(name,))) == ["c.weight"]


def test_case_matters() -> None:
    with pytest.raises(ScopeError):
        Scope(include=("Stem",)).select(GROUPS)
