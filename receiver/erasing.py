"""A number is taken out of everything that is kept, while the service runs.

First the number gets on the list of whom to redact: from then on nothing comes in with it. Then all
that there is is gone through, in small batches with a rest after each, as in `receiver.upkeep`.
Killed at any point, the next run does the rest.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

from receiver import forgetting
from receiver.calling import call
from receiver.errors import StoreUnavailable
from receiver.forgetting import Entry, Forgotten
from receiver.phone import Number
from receiver.store import PARTS, Store
from receiver.upkeep import patiently

#: Seconds that a batch waits for other writers.
_PATIENCE = 2.0
#: How often it is tried to leave nothing of what was, while others write and read.
_WIPES = 20_000
#: How often what is found in files is overwritten.
_SCRUBS = 5
#: So many digits are looked for inside of others.
_SURE = 10

#: Told what is done, in a few words.
Progress = Callable[[str], None]


def count(store: Store, number: Number, progress: Progress) -> Mapping[str, int]:
    """How many rows of each part of the store hold a number. Changes nothing."""
    entries = forgetting.entries(number, secrets.token_hex(32))
    return _go_through(store, Forgotten(1, entries), progress, dry_run=True)


def forget(store: Store, number: Number, progress: Progress) -> Mapping[str, int]:
    """Take a number out of the store, and remember to redact it.

    :returns: how many rows of each part held it.
    """
    known = store.forgotten()
    key = known[0].key if known else secrets.token_hex(32)
    entries = forgetting.entries(number, key)
    patiently(lambda: store.forget(entries, _PATIENCE))
    found = _go_through(store, Forgotten(1, entries), progress, dry_run=False)
    wipe(store, progress)
    return found


def forget_again(store: Store, entries: list[Entry], progress: Progress) -> None:
    """Take out of a store what was forgotten in another one."""
    known = set(store.forgotten())
    new = [entry for entry in entries if entry not in known]
    if not entries:
        return
    if new:
        store.forget(new, _PATIENCE)
    _go_through(store, Forgotten(1, entries), progress, dry_run=False)
    wipe(store, progress)
    rewrite(store, progress)


def rewrite(store: Store, progress: Progress) -> str | None:
    """Write the database anew, where an earlier release has left traces in it.

    :returns: what has to be done before that, if somebody else is connected.
    """
    if not store.leaves_traces():
        return None
    if store.others():
        return (
            "an earlier release has made this database, and deleting left traces in its file: stop "
            f"the service, with `{call('work')}`, and run this command again; then it writes the "
            "file anew, once (VACUUM), for which it needs as much free disk as the file has"
        )
    progress("writing the file anew")
    store.rewrite()
    return None


def prove(store: Store, number: Number, progress: Progress) -> str | None:
    """See to it that no file holds a number any more, by reading them.

    :returns: what has to be done for that; `None` if it is so.
    """
    whom = Forgotten(1, forgetting.entries(number, secrets.token_hex(32)))
    spellings = (number.international, *number.others)
    digits = [spelling for spelling in spellings if len(spelling) >= _SURE]
    todo = rewrite(store, progress)
    if todo is not None:
        return todo
    for number_of_try in range(_SCRUBS):
        progress(f"reading the files{', again' if number_of_try else ''}")
        files = store.traces(whom, digits)
        if not files:
            return None
        patiently(lambda: store.scrub(whom, digits))
    return (
        f"its digits are still in {', '.join(files)}: run this command again when fewer write; if "
        "they stay, they are part of another number, or of a time"
    )


def wipe(store: Store, progress: Progress) -> None:
    """Leave nothing of what the rows held before.

    :raises StoreUnavailable: if somebody reads for so long that it cannot be done.
    """
    progress("indexing texts")
    while patiently(lambda: store.index_texts(_PATIENCE)):
        pass
    for number in range(_WIPES):
        progress(f"overwriting, step {number + 1}")
        if not patiently(partial(store.wipe, number == 0, _PATIENCE)):
            return
    raise StoreUnavailable(
        "somebody reads the database for long, so what was deleted cannot be overwritten: end "
        "that program, and run this command again"
    )


def _go_through(
    store: Store, whom: Forgotten, progress: Progress, *, dry_run: bool
) -> Mapping[str, int]:
    found: Counter[str] = Counter()
    for part in PARTS:
        after = None
        while True:
            sweep = partial(store.sweep, part, after, whom, _PATIENCE, dry_run=dry_run)
            changed, after = sweep() if dry_run else patiently(sweep)
            found[part] += changed
            progress(f"{part}: {found[part]:,}")
            if after is None:
                break
    return found
