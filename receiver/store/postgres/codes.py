"""Cells by error code, in PostgreSQL: the step that brings them, and how numbers are written down.

An older release knows neither these cells nor the messages' codes. What it counts stands in the
table `statistics`, as ever; a cell is the sum of both tables, so the numbers by day, device and
status are right whoever writes. A message without a code (null, not empty) is one that no release
with codes has seen: `see` looks at it later, and takes it from the cell without one into its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from receiver import mirror, status
from receiver.mirror import MOST_CODES, OTHER, Cell
from receiver.store.group import MirroredMessage
from receiver.store.postgres.place import CODES
from receiver.store.postgres.pool import Connection
from receiver.times import DAY

#: Days and providers whose codes a process remembers.
_REMEMBERED = 64

_ENCODE = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class Move(NamedTuple):
    """How the numbers of a cell change."""

    total: int = 0
    live: int = 0

    def plus(self, total: int, live: int) -> Move:
        return Move(self.total + total, self.live + live)


Moves = Mapping[Cell, Move]


def cell(at: int, provider: str, device_id: str, state: str, code: str | None) -> Cell:
    """The cell that a stored message counts in. An older release leaves the code as it was."""
    return Cell(at // DAY, provider, device_id, state, (code or "") if state == "failed" else "")


def moves(messages: Iterable[MirroredMessage]) -> Moves:
    """Each message out of the cell that it has counted in, and into its new one."""
    found: dict[Cell, Move] = {}
    for message in messages:
        assert message.summary is not None
        after, counts = message.summary.cell, not message.is_test
        found[after] = found.get(after, Move()).plus(counts, 1)
        if message.before is not None:
            counted = not message.was_test
            found[message.before] = found.get(message.before, Move()).plus(-counted, -1)
    return found


class Codes:
    """Which codes have cells of their own, as far as a process has read it.

    None is ever taken away: what is remembered stays so. Several threads may read at once.
    """

    def __init__(self) -> None:
        self._read: dict[tuple[int, str], set[str]] = {}

    def counted(self, connection: Connection, moves: Moves) -> Moves:
        """The same moves between the cells that there are; makes room for new codes.

        The lock is held to the end of the transaction, so nothing that somebody else may hold
        meanwhile is waited for after it.
        """
        asked = {(c.day, c.provider, c.code) for c in moves if c.code not in ("", OTHER)}
        read = {place: codes for place, codes in self._read.items() if codes}
        unknown = {
            (day, provider)
            for day, provider, code in asked
            if code not in (codes := read.get((day, provider), set())) and len(codes) < MOST_CODES
        }
        if unknown:
            read |= self._look_up(connection, unknown, asked)
        found: dict[Cell, Move] = {}
        for one, move in moves.items():
            own = one.code == "" or one.code in read.get((one.day, one.provider), ())
            counted = one if own else one._replace(code=OTHER)
            found[counted] = found.get(counted, Move()).plus(*move)
        return found

    def _look_up(
        self,
        connection: Connection,
        places: set[tuple[int, str]],
        asked: set[tuple[int, str, str]],
    ) -> dict[tuple[int, str], set[str]]:
        """The codes of days and providers, with those that are new and find room."""
        connection.execute(f"SELECT pg_advisory_xact_lock({connection.place.lock(CODES)})")
        rows = connection.execute(_CODES_OF, (_ENCODE(sorted(places)),)).fetchall()
        found: dict[tuple[int, str], set[str]] = {place: set() for place in places}
        for day, provider, code in rows:
            found[day, provider].add(code)
        remembered = {} if len(self._read) > _REMEMBERED else self._read
        # What is new is remembered when it is read again: this transaction may yet fail.
        self._read = remembered | {place: set(codes) for place, codes in found.items()}
        new = []
        for day, provider, code in sorted(asked):
            codes = found.get((day, provider))
            if codes is not None and code not in codes and len(codes) < MOST_CODES:
                codes.add(code)
                new.append((day, provider, code))
        if new:
            connection.execute(_NEW_CODES, (_ENCODE(new),))
        return found


def count(connection: Connection, moves: Moves, spread: int, codes: Codes) -> None:
    """Write changed numbers down. The last thing before the commit: others of this spread wait.

    :param spread: which row of each cell is written.
    """
    moves = {cell: move for cell, move in moves.items() if any(move)}
    if not moves:
        return
    rows = [
        {**cell._asdict(), "spread": spread, **move._asdict()}
        for cell, move in sorted(codes.counted(connection, moves).items())
        if any(move)
    ]
    if rows:
        connection.execute(_CELLS, (_ENCODE(rows),))


# --- what an older release has written


def unseen(connection: Connection, limit: int) -> list[str]:
    """The ids of some messages that no release with codes has seen."""
    found = connection.execute("SELECT id FROM messages WHERE code IS NULL LIMIT %s", (limit,))
    return [message_id for (message_id,) in found]


def see(connection: Connection, ids: list[str], spread: int, codes: Codes) -> None:
    """Count messages by their codes, or not at all if they are tests, and index their metadata.

    :param ids: which the transaction has locked.
    """
    found: dict[Cell, Move] = {}
    rows, pairs = [], []
    for message_id, registers, at, provider, device_id, state, tested in connection.execute(
        _UNSEEN, {"ids": ids}
    ):
        row: status.Row = json.loads(registers)
        before = cell(at, provider, device_id, state, None)
        was_test = status.is_test(row)
        if tested and not was_test:
            status.mark_test(row, 0, "")
            registers = _ENCODE(row)
        code = mirror.summarize(row, 0).code
        after = cell(at, provider, device_id, state, code)
        found[before] = found.get(before, Move()).plus(-(not was_test), -1)
        found[after] = found.get(after, Move()).plus(not status.is_test(row), 1)
        rows.append({"id": message_id, "code": code, "registers": registers})
        if told := pairs_of(row):
            pairs.append({"message_id": message_id, "pairs": told})
    connection.execute(_SEEN, {"messages": _ENCODE(rows), "metadata": _ENCODE(pairs)})
    count(connection, found, spread, codes)


# --- metadata


def pairs_of(row: status.Row) -> list[str]:
    """What `metadata` keeps of a message."""
    return [pair(*told) for told in mirror.metadata(row).items()]


def pair(key: str, value: str) -> str:
    """One text for both. No character is free to stand between them, so the length tells."""
    return f"{len(key)}:{key}={value}"


# --- SQL


def take(connection: Any) -> None:
    """The step of the schema. Additive: see above for how an older release goes on."""
    connection.execute(_TABLES)


_TABLES = f"""
-- Why a message is failed, in full (empty: it is not, or nobody has said why); null where only an
-- older release has written it. And who carried it.
ALTER TABLE messages ADD COLUMN code text COLLATE "C";
ALTER TABLE messages ADD COLUMN provider text COLLATE "C" NOT NULL DEFAULT '{mirror.PROVIDER}';

-- History by what a failure was.
CREATE INDEX messages_by_code ON messages (code, at DESC, id) WHERE code <> '';
-- What only an older release has written: soon nothing.
CREATE INDEX messages_unseen ON messages (id) WHERE code IS NULL;

-- By what of its metadata a message is found (receiver/mirror.py). Apart from the messages, as
-- their texts are, and with a list as short as theirs of what the index has yet to take in.
CREATE TABLE metadata (
    message_id text   COLLATE "C" PRIMARY KEY,
    pairs      text[] COLLATE "C" NOT NULL
);
CREATE INDEX metadata_by_pair ON metadata USING gin (pairs) WITH (gin_pending_list_limit = 512);

-- The codes that have cells of their own: at most {MOST_CODES} a day and provider. None is taken
-- away, so a code has a cell of its own or counts as {OTHER}, and never changes from one to the
-- other.
CREATE TABLE codes (
    day      integer NOT NULL,
    provider text    COLLATE "C" NOT NULL,
    code     text    COLLATE "C" NOT NULL,
    PRIMARY KEY (day, provider, code)
);

-- As `statistics`, with provider and code: `total` counts messages that have expired, too, and
-- none of which tests alone have told; `live` the other way round.
CREATE TABLE cells (
    day       integer  NOT NULL,
    provider  text     COLLATE "C" NOT NULL,
    device_id text     COLLATE "C" NOT NULL,
    status    text     COLLATE "C" NOT NULL,
    code      text     COLLATE "C" NOT NULL,
    spread    smallint NOT NULL,
    total     bigint   NOT NULL,
    live      bigint   NOT NULL,
    PRIMARY KEY (day, provider, device_id, status, code, spread)
) WITH (fillfactor = 70);

-- What has been counted, by this release and by older ones.
CREATE VIEW counted AS
    SELECT day, provider, device_id, status, code, total, live FROM cells
    UNION ALL
    SELECT day, '{mirror.PROVIDER}', device_id, status, '', total, live FROM statistics;
"""

_CODES_OF = """
SELECT c.day, c.provider, c.code FROM jsonb_array_elements(%s::jsonb) AS place
JOIN codes AS c ON c.day = (place ->> 0)::integer AND c.provider = place ->> 1
"""

_NEW_CODES = """
INSERT INTO codes (day, provider, code)
SELECT (new ->> 0)::integer, new ->> 1, new ->> 2 FROM jsonb_array_elements(%s::jsonb) AS new
"""

_CELLS = """
INSERT INTO cells AS s (day, provider, device_id, status, code, spread, total, live)
SELECT day, provider, device_id, status, code, spread, total, live
FROM jsonb_to_recordset(%s::jsonb) AS c (
    day integer, provider text, device_id text, status text, code text, spread smallint,
    total bigint, live bigint)
ON CONFLICT (day, provider, device_id, status, code, spread) DO UPDATE SET
    total = s.total + excluded.total, live = s.live + excluded.live
"""

# Older releases know tests by their ids alone.
_UNSEEN = """
SELECT id, registers, at, provider, device_id, status,
       starts_with(id, 'msg_test') OR coalesce((
           SELECT bool_and(starts_with(e.id, 'evt_test')) FROM events AS e
           WHERE e.message_id = m.id AND NOT e.loose), false)
FROM messages AS m WHERE id = ANY (%(ids)s) AND code IS NULL ORDER BY id
"""

_SEEN = """
WITH indexed AS (
    INSERT INTO metadata (message_id, pairs)
    SELECT message_id, pairs FROM jsonb_to_recordset(%(metadata)s::jsonb) AS d (
        message_id text, pairs text[])
    ON CONFLICT (message_id) DO UPDATE SET pairs = excluded.pairs
)
UPDATE messages AS m SET code = seen.code, registers = seen.registers
FROM jsonb_to_recordset(%(messages)s::jsonb) AS seen (id text, code text, registers text)
WHERE m.id = seen.id
"""
