"""A copy of everything in one file, while the service runs, and the way back.

A backup is always a file of SQLite, whatever the engine. It is complete or not there: it gets its
name when it is on the disk. A restore may be killed at any point and begun again.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from receiver.calling import as_called
from receiver.erasing import forget_again
from receiver.errors import CopyRefused, SchemaMismatch, StoreUnavailable
from receiver.forgetting import Entry
from receiver.store import Selection, Store, Table, copying, open_store
from receiver.store.sqlite.files import BESIDE, copy_checked, identity
from receiver.worker import hold

#: Told what is done, in a few words.
Progress = Callable[[str], None]

#: The notes of reconciliation, whose next passes are due at once after a restore, begin so.
_RECONCILIATION = "reconciliation"


def back_up(store: Store, file: Path, progress: Progress) -> None:
    """Write a consistent copy, 0600, in the place of a file of that name.

    :raises CopyRefused: if the store is damaged, or the file cannot be written.
    """
    file = file.resolve()  # a link stays one
    partial = file.with_name(f".{file.name}.partial")
    try:
        _remove(partial)
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise CopyRefused(f"{file} cannot be written: {error.strerror}") from error
    try:
        if not store.copy_file(str(partial), lambda part: progress(f"{part:.0%}")):
            with closing(_open(partial)) as target:
                target.migrate()
                copying.fill(store, target, lambda what, done: progress(f"{what}: {done:,}"))
        with closing(_open(partial)) as target:
            copying.identify(target)
        _remove(file, only_beside=True)  # the log of the one before: it makes the new one unsound
        _put(partial, file)
    except BaseException:
        _remove(partial)
        raise


def restore(file: Path, url: str, *, replace: bool, progress: Progress) -> dict[str, int]:
    """Put a backup into the place of a store. Handlers wait until somebody lets them run.

    :param url: the store's `DATABASE_URL`.
    :param replace: also where the store holds events; a file of SQLite is kept under another name.
    :returns: how many events and messages there are.
    :raises CopyRefused: if a service runs, the file is no sound backup, or the store is not empty.
    """
    path = url.removeprefix("sqlite:///")
    place = Path(path).resolve() if path != url else None
    scratch = (place or file).with_name(f".{(place or file).name}.restoring")
    _remove(scratch)
    try:
        copy_checked(file, scratch, lambda part: progress(f"{part:.0%}"))
        with closing(_open(scratch)) as source:
            source.migrate()
            _prepare(source)
            if place is None:
                counts = _into_server(source, url, progress)
            else:
                forget_again(source, _forgotten_at(place, url), progress)
                counts = {table.name: _count(source, table) for table in copying.TABLES[:2]}
        if place is not None:
            _make_way(place, url, replace=replace)
            _put(scratch, place)
    finally:
        _remove(scratch)
    return counts


def _prepare(source: Store) -> None:
    """What must be so in the restored store from its first moment on."""
    hold(source)
    # Each reads from where the last pass before the backup has ended: what was missed since then
    # comes back.
    states = source.notes(_RECONCILIATION)
    source.write_notes(
        {name: json.dumps(json.loads(state) | {"next_at": 0}) for name, state in states.items()}
    )


def _forgotten_at(place: Path, url: str) -> list[Entry]:
    """Whom the store that is replaced has forgotten: the backup may be from before that."""
    if not place.exists():
        return []
    with closing(open_store(url)) as old, suppress(StoreUnavailable, SchemaMismatch):
        return old.forgotten()
    return []  # what is damaged, or of a release that could not forget


def _into_server(source: Store, url: str, progress: Progress) -> dict[str, int]:
    with closing(open_store(url)) as target:
        if target.others():
            raise CopyRefused(as_called(_RUNS))
        target.migrate()
        forget_again(source, target.forgotten(), progress)
        return copying.copy(source, target, lambda what, done: progress(f"{what}: {done:,}"))


def _make_way(place: Path, url: str, *, replace: bool) -> None:
    """Nobody has the old file open, and no log of it is left. It is kept under another name."""
    if identity(str(place)) is None:
        _remove(place)  # a log alone would be taken for that of the new file
        return
    with closing(open_store(url)) as old:
        in_the_way = []
        with suppress(StoreUnavailable):  # what is damaged, or of no release, holds nothing
            if next(iter(old.events(Selection())), None) is not None and not replace:
                in_the_way.append(
                    f"{place} holds events: add --replace to keep it as {_kept(place).name}, and "
                    "put the backup in its place"
                )
        if old.others():
            in_the_way.insert(0, as_called(_RUNS))
        if in_the_way:
            raise CopyRefused("; and ".join(in_the_way))
    for ending in BESIDE:  # of a file that could not be opened
        Path(f"{place}{ending}").unlink(missing_ok=True)
    kept = _kept(place)
    kept.unlink(missing_ok=True)
    try:
        os.link(place, kept)
    except OSError:  # a file system without links
        place.rename(kept)


def _kept(place: Path) -> Path:
    """The name for the file that was there. What an earlier restore has kept is kept."""
    for number in itertools.count(1):
        kept = place.with_name(f"{place.name}.before-restore{f'-{number}' if number > 1 else ''}")
        if not kept.exists() or kept.samefile(place):  # a restore was killed here
            break
    return kept


_RUNS = (
    "somebody is connected to the database: stop the service, with `flask work` and all commands, "
    "and try again"
)


def _count(store: Store, table: Table) -> int:
    return sum(len(batch) for batch in copying.batches(store, table))


def _open(file: Path) -> Store:
    return open_store(f"sqlite:///{file.absolute()}")


def _put(partial: Path, file: Path) -> None:
    """Give it its name, once it is on the disk."""
    for name in (partial, file.parent):
        handle = os.open(name, os.O_RDONLY)
        try:
            os.fsync(handle)
            if name is partial:
                os.replace(partial, file)
        finally:
            os.close(handle)


def _remove(file: Path, *, only_beside: bool = False) -> None:
    for ending in (*BESIDE, "-journal", *([] if only_beside else [""])):
        Path(f"{file}{ending}").unlink(missing_ok=True)
