"""A data base that cannot be used gives one message, with its name and what to do."""

from __future__ import annotations

import gc
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from billhook.errors import StorageError
from billhook.search.studies import storage
from billhook.search.studies.study import Study
from tests.arch.source import ROOT
from tests.unit.search.studies.trials import carry_out, facts, genes_of

Open = Callable[[Path], Study]
OPENINGS = [
    pytest.param(lambda file: Study.of(file, "search", facts()), id="of"),
    pytest.param(lambda file: Study.open(file), id="open"),
]


@pytest.mark.parametrize("begin", OPENINGS)
def test_a_file_that_is_no_data_base(begin: Open, tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text('[search]\nmethod = "amc"\n' * 100)
    with pytest.raises(StorageError, match=rf"^{file}: is not a SQLite data base; name another file$"):
        begin(file)
    assert file.read_text().startswith("[search]")


@pytest.mark.parametrize("begin", OPENINGS)
def test_a_data_base_of_something_else_is_left_alone(begin: Open, tmp_path: Path) -> None:
    file = tmp_path / "places.sqlite"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    before = file.read_bytes()
    with pytest.raises(StorageError, match=rf"^{file}: is a data base of something else, not of studies"):
        begin(file)
    assert file.read_bytes() == before


def test_a_study_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=rf"^{tmp_path}/s.db: there is no study here; check what names it"):
        Study.open(tmp_path / "s.db")
    assert not list(tmp_path.iterdir()), "opening makes nothing"
    (tmp_path / "empty.db").touch()
    with pytest.raises(StorageError, match="there is no study here"):
        Study.open(tmp_path / "empty.db")
    assert Study.find(tmp_path / "empty.db") is None
    with Study.of(tmp_path / "empty.db", "search", facts()) as study:
        carry_out(study, 0)


def test_a_damaged_file(tmp_path: Path) -> None:
    file = tmp_path / "s.db"
    with Study.of(file, "search", facts()) as study:
        for number in range(20):
            carry_out(study, number)
    content = bytearray(file.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    file.write_bytes(content)
    with pytest.raises(StorageError, match=rf"^{file}: is damaged"):
        Study.open(file)


@pytest.mark.parametrize("begin", [OPENINGS[0]])
def test_a_locked_file(begin: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "s.db"
    Study.of(file, "search", facts()).close()
    monkeypatch.setattr(storage, "LOCKED_AFTER", 0.3)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        with pytest.raises(StorageError, match=rf"^{file}: another process has locked it for more than 5 s"):
            begin(file)
        assert time.monotonic() - began < 5.0
    begin(file).close()


def test_a_file_that_is_locked_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "s.db"
    monkeypatch.setattr(storage, "LOCKED_AFTER", 0.3)
    with Study.of(file, "search", facts()) as study:
        carry_out(study, 0)
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert sorted(study.finished()) == [0], "it may still be read"
            with pytest.raises(StorageError, match="another process has locked it"):
                study.claim(1, genes_of(1))
        carry_out(study, 1)


@pytest.fixture
def user() -> Iterator[Path]:
    """A folder; the test is nobody in particular, whom permissions bind."""
    folder = Path(tempfile.mkdtemp(prefix="billhook-test-"))
    is_root = os.geteuid() == 0
    Study.of(None, "search", facts()).close()  # imports what nobody in particular may not be allowed to read
    if is_root:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o700)
        shutil.rmtree(folder)


def test_a_file_that_must_not_be_written(user: Path) -> None:
    file = user / "s.db"
    Study.of(file, "search", facts()).close()
    file.chmod(0o444)
    with pytest.raises(StorageError, match=rf"^{file}: must not be written; change its permissions"):
        Study.of(file, "search", facts())


def test_a_folder_that_must_not_be_written(user: Path) -> None:
    file = user / "s.db"
    user.chmod(0o555)
    with pytest.raises(StorageError, match=rf"^{file}: cannot be opened or created; check the permissions"):
        Study.of(file, "search", facts())


def test_a_file_that_must_not_be_read(user: Path) -> None:
    file = user / "s.db"
    Study.of(file, "search", facts()).close()
    file.chmod(0)
    with pytest.raises(StorageError, match=rf"^{file}: cannot be opened or created; check the permissions"):
        Study.open(file)


def test_odd_names_of_files_are_fine(tmp_path: Path) -> None:
    file = tmp_path / "a {b} 100%?c=d#.db"
    with Study.of(file, "search", facts()) as study:
        carry_out(study, 0)
    with Study.open(file) as study:
        assert sorted(study.finished()) == [0]


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # pg8000 leaves its socket open
def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_ANSWER_WITHIN", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        for port, why in ((1, "refused|connection"), (deaf.getsockname()[1], "network error|timed out")):
            began = time.monotonic()
            with pytest.raises(StorageError) as raised:
                Study.of(f"postgresql://me:secret@127.0.0.1:{port}/studies", "search", facts())
            assert time.monotonic() - began < 5.0
            message = str(raised.value)
            assert message.startswith(f"postgresql://me@127.0.0.1:{port}/studies: the server does not answer")
            assert re.search(why, message)
            assert "secret" not in message
    del raised  # whose traceback holds the sockets
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


RACER = """
import sys
from billhook.search.studies.study import Study
from tests.unit.search.studies.trials import facts
print("ready", flush=True)
sys.stdin.readline()
Study.of(sys.argv[1], "search", facts()).close()
"""


def test_processes_that_begin_the_same_study_at_once_get_the_same(tmp_path: Path) -> None:
    file = tmp_path / "s.db"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "src")))}
    command = [sys.executable, "-c", RACER, str(file)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    racers = [subprocess.Popen(command, env=environment, **pipes) for _ in range(3)]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    ends = [racer.communicate()[1] for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0, 0], ends
    with Study.open(file) as study:
        assert study.facts["method"] == "random"


def test_what_is_left_by_a_search_that_ended_is_one_file(tmp_path: Path) -> None:
    with Study.of(tmp_path / "s.db", "search", facts()) as study:
        carry_out(study, 0)
    assert [p.name for p in tmp_path.iterdir()] == ["s.db"]
