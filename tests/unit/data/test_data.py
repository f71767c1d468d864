from __future__ import annotations

from pathlib import Path

import pytest

from billhook.data import datasets, load
from billhook.data._sources import DataOptions, cache_dir, roots
from billhook.errors import DataError, NameNotFoundError


def test_names_are_written_with_dashes_and_understood_with_underscores() -> None:
    assert datasets.names() == ["cifar10", "cifar100", "digits", "fashion-mnist", "image-folder"]
    assert datasets.get("fashion_mnist") is datasets.get("fashion-mnist")


@pytest.mark.parametrize("name", datasets.names())
def test_every_data_set_has_a_line_for_the_table(name: str) -> None:
    assert datasets.info(name).title


def test_an_unknown_name_lists_close_ones() -> None:
    with pytest.raises(NameNotFoundError, match="did you mean 'fashion-mnist'"):
        load("fashion-minst")


def test_places_are_searched_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named, environment, system = tmp_path / "named", tmp_path / "environment", Path("/system")
    named.mkdir(), environment.mkdir()
    monkeypatch.setenv("BILLHOOK_DATA", str(environment))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    assert roots(DataOptions(named), system) == [named, environment, system, cache_dir(), Path("data")]
    assert cache_dir() == tmp_path / "billhook" / "data"


def test_a_folder_that_does_not_exist_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"data folder .*nowhere' does not exist"):
        roots(DataOptions(tmp_path / "nowhere"))
    monkeypatch.setenv("BILLHOOK_DATA", str(tmp_path / "gone"))
    with pytest.raises(DataError, match=r"BILLHOOK_DATA .*gone' does not exist"):
        roots(DataOptions())
