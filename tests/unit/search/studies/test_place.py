from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

from billhook.errors import InputError, MissingExtraError
from billhook.search.studies.place import Place


def test_a_path_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "s.db"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for place in (file, str(file), "s.db", "~/s.db", f"sqlite:///{file}", "sqlite:///s.db"):
        assert Place.of(place).path == file
    assert str(Place.of("s.db")) == "s.db"
    odd = tmp_path / "a {b} 100%?c=d.db"
    assert Place.of(odd).path == odd


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://me@db.lab:5433/studies", "postgresql+pg8000://me@db.lab:5433/studies"),
        ("postgres://me:p%40ss@db.lab/studies", "postgresql+pg8000://me:p%40ss@db.lab/studies"),
        ("postgresql+pg8000://db.lab/studies", "postgresql+pg8000://db.lab/studies"),
    ],
)
def test_a_url_is_a_server_and_gets_a_driver(url: str, expected: str) -> None:
    place = Place.of(url)
    assert (place.url, place.path) == (expected, None)


def test_a_password_is_never_shown() -> None:
    assert str(Place.of("postgresql://me:secret@db.lab/studies")) == "postgresql://me@db.lab:5432/studies"


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("", "'' names no file"),
        ("/tmp", "'/tmp' names no file"),
        ("/no/such/folder/s.db", "the folder /no/such/folder does not exist; create it"),
        ("sqlite://", "a study cannot be kept in sqlite://…: give the path of a file, sqlite:///FILE or"),
        ("sqlite:///s.db?timeout=3", "a study cannot be kept in sqlite://…"),
        ("mysql://me@host/name", "a study cannot be kept in mysql://…"),
        ("s3://bucket/s.db", "a study cannot be kept in s3://…"),
        ("postgresql://me@host", "lacks a host or the name of a data base"),
        ("postgresql:///name", "lacks a host or the name of a data base"),
        ("postgresql://me:secret@host:port/name", "cannot be read: Port could not be cast"),
        ("postgresql+nodriver://me:secret@host/name", "the driver 'nodriver' is not installed"),
    ],
)
def test_what_is_neither_is_refused(place: str, message: str) -> None:
    with pytest.raises(InputError) as raised:
        Place.of(place)
    assert message in str(raised.value)
    assert "secret" not in str(raised.value)


def test_without_the_driver_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = PathFinder.find_spec
    without = classmethod(lambda cls, name, *rest: None if name == "pg8000" else find(name, *rest))
    monkeypatch.setattr(PathFinder, "find_spec", without)
    monkeypatch.delitem(sys.modules, "pg8000", raising=False)
    with pytest.raises(MissingExtraError, match=r"a study in PostgreSQL needs.*billhook\[postgres\]"):
        Place.of("postgresql://me@host/name")


def test_each_study_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Place.of(tmp_path / "s.db")
    names = ["search", "..", ".", "a/b", "a b", "ü"]
    folders = {file.folder(name) for name in names}
    assert len(folders) == len(names)
    assert {folder.parent for folder in folders} == {tmp_path / "s.db.d"}
    assert not any(folder.name in (".", "..") for folder in folders)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    here, there = (Place.of(f"postgresql://me@{host}/studies").folder("search") for host in ("a", "b"))
    assert here != there
    assert here.is_relative_to(tmp_path / "billhook" / "studies")
