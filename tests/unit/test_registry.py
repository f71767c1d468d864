from __future__ import annotations

import sys

import pytest

from billhook.errors import InputError, NameNotFoundError
from billhook.registry import Info, Registry


@pytest.fixture
def registry() -> Registry[object]:
    return Registry("criterion", "billhook.criteria")


def test_entries_are_the_files(registry: Registry[object]) -> None:
    assert {"l1", "l2", "fpgm", "taylor", "bn_scale", "random"} <= set(registry.names())
    assert not any(name.startswith("_") for name in registry.names())


def test_listing_imports_no_entry() -> None:
    before = set(sys.modules)
    Registry("allocator", "billhook.allocate.families").names()
    assert not {m for m in set(sys.modules) - before if m.startswith("billhook.allocate.families.")}


def test_an_unknown_name_lists_close_ones(registry: Registry[object]) -> None:
    with pytest.raises(NameNotFoundError, match="did you mean 'fpgm'"):
        registry.get("fpmg")


def test_an_entry_can_be_added_and_taken_back(registry: Registry[object]) -> None:
    entry = object()
    registry.add("mine", entry, Info("a criterion of my own"))
    assert registry.get("mine") is entry
    assert registry.info("mine").title == "a criterion of my own"
    with pytest.raises(InputError, match="exists already"):
        registry.add("mine", entry, Info("again"))
    with pytest.raises(InputError, match="exists already"):
        registry.add("l2", entry, Info("in the way of a file"))
    registry.remove("mine")
    with pytest.raises(NameNotFoundError):
        registry.get("mine")
