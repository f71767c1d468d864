"""The data base that studies are kept in: opened, and its errors made readable.

Optuna makes the tables and checks their version; `Study` fills them.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from billhook.errors import MissingExtraError, StorageError
from billhook.search.studies.place import Place

try:
    import optuna
    import sqlalchemy
    from sqlalchemy import event, exc
except ImportError:
    raise MissingExtraError("optuna", "search", "a search") from None

LOCKED_AFTER = 5.0
"""Seconds to wait for another process to let go of a file."""

_ANSWER_WITHIN = 10.0  # seconds for a server, to connect and for each answer
_TABLES = {"studies", "trials", "alembic_version"}  # a few of Optuna's
_NOTHING = "there is no study here; check what names it, or begin a search"
_RACES = 5  # how often processes that make the same tables may get in each other's way


def open_storage(place: Place, *, create: bool) -> sqlalchemy.Engine:
    """Return the engine of a data base with Optuna's tables.

    A transaction takes the write lock of a file when it begins, unless it has the execution option `reads`.

    Args:
        place: Where it is.
        create: Make what is missing.
    Raises:
        StorageError: if it cannot be opened or is something else; says what to do.
    """
    options: dict[str, Any] = {}
    if place.path is None:
        options["connect_args"] = _limits(place.url)
        options["pool_pre_ping"] = True  # a server may have been restarted between two trials
    else:
        _check_file(place, place.path, create)
        options["creator"] = lambda path=str(place.path): _connect(path)
        options["poolclass"] = sqlalchemy.QueuePool
    with readable(place):
        return _open(place, options, create)


@contextmanager
def readable(place: Place) -> Generator[None]:
    """Turn errors of the data base into a `StorageError` that names the place and says what to do."""
    try:
        yield
    except optuna.exceptions.StorageInternalError as e:
        raise StorageError(_message(place, e.__cause__ or e)) from None
    except (exc.SQLAlchemyError, sqlite3.Error, OSError) as e:
        raise StorageError(_message(place, e)) from None


def _open(place: Place, options: dict[str, Any], create: bool) -> sqlalchemy.Engine:
    for attempt in range(_RACES):
        # In two steps, so that what it has opened can be closed if it fails.
        storage = object.__new__(optuna.storages.RDBStorage)
        try:
            # Optuna formats its URLs; of a file it need not know the path, the creator does.
            url = place.url.replace("{", "{{").replace("}", "}}")
            optuna.storages.RDBStorage.__init__(storage, url, options, skip_table_creation=not create)
        except Exception as e:
            if hasattr(storage, "engine"):
                storage.engine.dispose()
            if isinstance(e, RuntimeError):  # the tables are those of another version of Optuna
                raise StorageError(f"{place}: {e}") from None
            if not create or not _is_race(e) or attempt == _RACES - 1:
                raise
            time.sleep(0.1 * 2**attempt)  # another process makes the tables right now
        else:
            break
    engine = storage.engine
    if engine.dialect.name == "sqlite":
        event.listen(engine, "begin", _begin)
    return engine


def _is_race(error: Exception) -> bool:
    if not isinstance(error, exc.SQLAlchemyError):
        return False
    return any(sign in str(error) for sign in ("already exists", "duplicate key", "UNIQUE constraint"))


def _begin(connection: sqlalchemy.Connection) -> None:
    reads = connection.get_execution_options().get("reads", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _connect(path: str) -> sqlite3.Connection:
    # Transactions are begun by `_begin`, not by the module.
    connection = sqlite3.connect(path, timeout=LOCKED_AFTER, isolation_level=None, check_same_thread=False)
    try:
        # Commits need not wait for the disk, and dashboards may read meanwhile. A process that is killed
        # loses nothing; a power failure may lose the last trials, which are then evaluated again.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
    except sqlite3.OperationalError as e:
        if "locked" in str(e):
            connection.close()
            raise
        # A file system that cannot do it, or a file that must not be written, which shows when it is.
    return connection


def _check_file(place: Place, path: Path, create: bool) -> None:
    """Raise if the file is missing, or not one for studies."""
    if place.empty:
        if create:
            return
        raise StorageError(f"{place}: {_NOTHING}")
    with readable(place), closing(sqlite3.connect(path, timeout=LOCKED_AFTER)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")}
    if (tables or not create) and not tables >= _TABLES:
        raise StorageError(f"{place}: is a data base of something else, not of studies; name another file")


def _limits(url: str) -> dict[str, Any]:
    return {"timeout" if "+pg8000" in url else "connect_timeout": int(_ANSWER_WITHIN)}


def _message(place: Place, error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    text = _said(cause)
    if 'relation "' in text and "does not exist" in text:
        return f"{place}: {_NOTHING}"
    for sign, advice in _ADVICE.items():
        if sign in text:
            return f"{place}: {advice}"
    if place.path is None and isinstance(error, (exc.InterfaceError, OSError)):
        return f"{place}: the server does not answer ({text}); check that it runs and can be reached"
    return f"{place}: the data base cannot be used: {text}"


_ADVICE = {
    "database is locked": "another process has locked it for more than "
    f"{LOCKED_AFTER:g} s; end that process, or wait until it is done",
    "file is not a database": "is not a SQLite data base; name another file",
    "malformed": "is damaged (SQLite: database disk image is malformed); name another file",
    "readonly database": "must not be written; change its permissions and those of its folder, or copy it",
    "unable to open database file": "cannot be opened or created; check the permissions of the file and of "
    "its folder",
    "disk is full": "cannot be written: the disk is full; make room and resume the search",
}


def _said(error: BaseException) -> str:
    """Return what a driver says, on one line; PostgreSQL's answers come as tables of fields."""
    first = error.args[0] if error.args else error
    said = first.get("M", first) if isinstance(first, dict) else error
    return " ".join(str(said).split())
