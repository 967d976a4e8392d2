"""What a migration would do to a file of SQLite's, read without writing anything."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from urllib.parse import quote

from sqlite_utils import Database

from receiver.store.contract import Outlook
from receiver.store.sqlite.connections import PATIENCE, as_unavailable
from receiver.store.sqlite.files import BESIDE, identity
from receiver.store.sqlite.schema import migrations, refuse_newer, step_names


def outlook(path: str) -> Outlook:
    """See `Store.outlook`."""
    if identity(path) is None:
        return Outlook(list(step_names()), breaking=True, events=0, size=0)
    with as_unavailable(), closing(_open(path)) as connection:
        db = Database(connection, execute_plugins=False)
        refuse_newer(db)
        steps = [migration.name for migration in migrations.pending(db)]
        events = 0
        if len(steps) < len(step_names()):
            ((events,),) = db.execute("SELECT count(*) FROM events").fetchall()
    size = sum(_size(path + ending) for ending in ("", BESIDE[0]))
    return Outlook(steps, bool(steps), events, size)


def _open(path: str) -> sqlite3.Connection:
    """For reading alone. Without a log nobody has it open: then it is read as it lies there, since
    SQLite would make a log, which may be another user's than the service's."""
    real = os.path.realpath(path)
    how = "mode=ro" if identity(real + BESIDE[0]) else "mode=ro&immutable=1"
    return sqlite3.connect(f"file:{quote(real)}?{how}", uri=True, timeout=PATIENCE)


def _size(name: str) -> int:
    try:
        return os.stat(os.path.realpath(name)).st_size
    except OSError:
        return 0
