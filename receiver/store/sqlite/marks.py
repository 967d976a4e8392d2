"""What processes agree on, in SQLite: turns, tokens that they share, and notes."""

from __future__ import annotations

from collections.abc import Mapping

from receiver import bucket
from receiver.store.forgetting import is_about_id, mark
from receiver.store.sqlite.connections import SHORT_PATIENCE, Connections
from receiver.store.sqlite.forgetting import whom
from receiver.times import DAY


class Marks(Connections):
    """See `receiver.store.contract.Marks`."""

    def claim_turn(self, name: str, now: int, until: int) -> bool:
        held = self.turn(name)
        # A time that lies far ahead was written by a clock that was wrong.
        if held is not None and now < held <= now + DAY:
            return False
        with self._transaction(SHORT_PATIENCE) as connection:
            if is_about_id(name):
                name = mark(whom(connection, self._door), name)
            turn = connection.execute(
                "INSERT INTO marks VALUES (:name, :until) ON CONFLICT (name) DO UPDATE"
                " SET value = :until WHERE value <= :now OR value > :now + :day",
                {"name": name, "until": until, "now": now, "day": DAY},
            )
            return turn.rowcount == 1

    def turn(self, name: str) -> int | None:
        with self._reading() as connection:
            found = connection.execute("SELECT value FROM marks WHERE name = ?", (name,)).fetchone()
        return found[0] if found else None

    def keep_turn(self, name: str, until: int, later: int) -> bool:
        with self._transaction(SHORT_PATIENCE) as connection:
            turn = connection.execute(
                "UPDATE marks SET value = ? WHERE name = ? AND value = ?", (later, name, until)
            )
            return turn.rowcount == 1

    def take(self, name: str, now: int, interval: int, room: int | None) -> int:
        # The mark is when the bucket is full again: each token taken moves it on.
        with self._transaction(SHORT_PATIENCE) as connection:
            found = connection.execute("SELECT value FROM marks WHERE name = ?", (name,)).fetchone()
            full_at, wait = bucket.take(found and found[0], now, interval, room)
            if not wait:
                connection.execute("INSERT OR REPLACE INTO marks VALUES (?, ?)", (name, full_at))
        return wait

    def note(self, name: str) -> str | None:
        with self._reading() as connection:
            found = connection.execute("SELECT text FROM notes WHERE name = ?", (name,)).fetchone()
        return found[0] if found else None

    def write_note(self, name: str, text: str) -> None:
        self.write_notes({name: text})

    def notes(self, prefix: str) -> Mapping[str, str]:
        with self._reading() as connection:
            return dict(
                connection.execute(
                    "SELECT name, text FROM notes WHERE substr(name, 1, ?) = ? ORDER BY name",
                    (len(prefix), prefix),
                ).fetchall()
            )

    def write_notes(self, texts: Mapping[str, str | None]) -> None:
        with self._transaction() as connection:
            forgotten = whom(connection, self._door)
            for name, text in texts.items():
                if text is not None:
                    name, text = forgotten.text(name), forgotten.json(text)
                if text is None:
                    connection.execute("DELETE FROM notes WHERE name = ?", (name,))
                else:
                    connection.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, text))
