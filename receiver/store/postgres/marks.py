"""What processes agree on, in PostgreSQL: turns, tokens that they share, and notes."""

from __future__ import annotations

from collections.abc import Mapping

from receiver import bucket
from receiver.store.forgetting import is_about_id, mark
from receiver.store.postgres.forgetting import whom
from receiver.store.postgres.transactions import SHORT_PATIENCE, Transactions
from receiver.times import DAY


class Marks(Transactions):
    """See `receiver.store.contract.Marks`."""

    def claim_turn(self, name: str, now: int, until: int) -> bool:
        held = self.turn(name)
        # A time that lies far ahead was written by a clock that was wrong.
        if held is not None and now < held <= now + DAY:
            return False
        with self._transaction(lock_patience=SHORT_PATIENCE) as connection:
            if is_about_id(name):
                name = mark(whom(connection, self._door), name)
            turn = connection.execute(
                "INSERT INTO marks AS m VALUES (%(name)s, %(until)s) ON CONFLICT (name) DO UPDATE"
                " SET value = %(until)s WHERE m.value <= %(now)s OR m.value > %(now)s + %(day)s",
                {"name": name, "until": until, "now": now, "day": DAY},
            )
        return turn.rowcount == 1

    def turn(self, name: str) -> int | None:
        (value,) = self._row("SELECT max(value) FROM marks WHERE name = %s", (name,))
        return None if value is None else int(value)

    def keep_turn(self, name: str, until: int, later: int) -> bool:
        with self._transaction(lock_patience=SHORT_PATIENCE) as connection:
            turn = connection.execute(
                "UPDATE marks SET value = %s WHERE name = %s AND value = %s", (later, name, until)
            )
        return turn.rowcount == 1

    def take(self, name: str, now: int, interval: int, room: int | None) -> int:
        # The mark is when the bucket is full again: each token taken moves it on. One that nobody
        # has used yet must be there to be locked.
        with self._transaction(lock_patience=SHORT_PATIENCE) as connection:
            connection.execute(
                "INSERT INTO marks VALUES (%s, 0) ON CONFLICT (name) DO NOTHING", (name,)
            )
            ((found,),) = connection.execute(
                "SELECT value FROM marks WHERE name = %s FOR UPDATE", (name,)
            )
            full_at, wait = bucket.take(found, now, interval, room)
            if not wait:
                connection.execute("UPDATE marks SET value = %s WHERE name = %s", (full_at, name))
        return wait

    def note(self, name: str) -> str | None:
        # Workers ask, and must not wait for readers.
        (text,) = self._row("SELECT max(text) FROM notes WHERE name = %s", (name,))
        return None if text is None else str(text)

    def write_note(self, name: str, text: str) -> None:
        self.write_notes({name: text})

    def notes(self, prefix: str) -> Mapping[str, str]:
        with self._worker_reads() as connection:
            found = connection.execute(
                "SELECT name, text FROM notes WHERE starts_with(name, %s) ORDER BY name", (prefix,)
            )
            return dict(found.fetchall())

    def write_notes(self, texts: Mapping[str, str | None]) -> None:
        gone = sorted(name for name, text in texts.items() if text is None)
        with self._transaction() as connection:
            forgotten = whom(connection, self._door)
            written = sorted(
                (forgotten.text(name), forgotten.json(text))
                for name, text in texts.items()
                if text is not None
            )
            if gone:
                connection.execute("DELETE FROM notes WHERE name = ANY(%s)", (gone,))
            if written:
                connection.execute(
                    "INSERT INTO notes SELECT * FROM unnest(%s::text[], %s::text[])"
                    " ON CONFLICT (name) DO UPDATE SET text = excluded.text",
                    ([name for name, _ in written], [text for _, text in written]),
                )
