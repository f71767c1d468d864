"""Labels: what is unified leaves together, what is frozen stays, and the first reason is told."""

from __future__ import annotations

import numpy as np

from billhook.graph.groups import Reason
from billhook.graph.labels import FIXED, LabelStore

WHY, LATER = Reason("first"), Reason("second")


def test_fresh_labels_are_new_and_never_the_fixed_one() -> None:
    store = LabelStore()
    labels = np.concatenate((store.fresh(3), store.fresh(0), store.fresh(2)))
    assert len(set(labels)) == 5
    assert FIXED not in labels


def test_unification_is_transitive() -> None:
    store = LabelStore()
    a, b, c, d = (store.fresh(4) for _ in range(4))
    store.unify(a, b, WHY)
    store.unify(b[::-1], c, WHY)
    of = store.components().of
    assert (of[a] == of[c[::-1]]).all()
    assert len(set(of[a])) == 4
    assert not set(of[d]) & set(of[a])


def test_one_label_broadcasts_over_many() -> None:
    store = LabelStore()
    a, b = store.fresh(6), store.fresh(2)
    store.unify(b[:, None], a.reshape(2, 3), WHY)
    of = store.components().of
    assert len(set(of[a])) == 2


def test_what_meets_an_index_that_cannot_leave_is_frozen() -> None:
    store = LabelStore()
    a, b = store.fresh(3), store.fresh(3)
    mixed = a.copy()
    mixed[1] = FIXED
    store.unify(mixed, b, WHY)
    parts = store.components()
    assert [parts.frozen[parts.of[x]] >= 0 for x in b] == [False, True, False]
    assert parts.frozen[parts.of[a[1]]] < 0


def test_the_first_reason_is_the_one_that_is_told() -> None:
    store = LabelStore()
    a, b = store.fresh(2), store.fresh(2)
    store.freeze(a[:1], WHY)
    store.unify(a, b, WHY)
    store.freeze(b, LATER)
    parts = store.components()
    assert [parts.reasons[parts.frozen[parts.of[x]]] for x in a] == [WHY, LATER]


def test_mixing_is_noted_apart_from_freezing() -> None:
    store = LabelStore()
    a = store.fresh(2)
    store.mark_mixed(a[:1], WHY)
    parts = store.components()
    assert parts.reasons[parts.mixed[parts.of[a[0]]]] == WHY
    assert parts.mixed[parts.of[a[1]]] == -1
    assert (parts.frozen == -1).all()


def test_a_store_without_unifications_works() -> None:
    store = LabelStore()
    a = store.fresh(3)
    assert len(set(store.components().of[a])) == 3
