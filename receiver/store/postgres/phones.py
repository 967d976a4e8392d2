"""What alerts ask PostgreSQL about the phones that send."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from receiver.store.contract import WAS_TRIED
from receiver.store.postgres.transactions import Transactions

# From each phone to the next: the index of messages by phone has all of it.
_LAST_HEARD = f"""
WITH RECURSIVE phone (id) AS (
    (SELECT device_id FROM messages WHERE device_id > '' ORDER BY device_id LIMIT 1)
    UNION ALL
    SELECT (SELECT m.device_id FROM messages AS m WHERE m.device_id > phone.id
            ORDER BY m.device_id LIMIT 1)
    FROM phone WHERE phone.id IS NOT NULL)
SELECT phone.id, last.at FROM phone CROSS JOIN LATERAL (
    SELECT at FROM messages WHERE device_id = phone.id AND {WAS_TRIED}
    ORDER BY at DESC LIMIT 1) AS last
WHERE phone.id IS NOT NULL
"""

_HEARD = f"""
SELECT (SELECT count(*) FROM (
    SELECT 1 FROM messages
    WHERE device_id = span.id AND {WAS_TRIED} AND at > span.after AND at <= span.up_to
    LIMIT %(most)s) AS heard)
FROM unnest(%(ids)s::text[], %(after)s::bigint[], %(up_to)s::bigint[])
    WITH ORDINALITY AS span (id, after, up_to, number)
ORDER BY number
"""


class Phones(Transactions):
    """See `receiver.store.contract.Phones`."""

    def last_heard(self) -> Mapping[str, int]:
        with self._reader() as connection:
            return dict(connection.execute(_LAST_HEARD).fetchall())

    def heard(self, spans: Sequence[tuple[str, int, int]], most: int) -> list[int]:
        ids, after, up_to = zip(*spans, strict=True) if spans else ((), (), ())
        asked = {"ids": list(ids), "after": list(after), "up_to": list(up_to), "most": most}
        with self._reader() as connection:
            return [count for (count,) in connection.execute(_HEARD, asked)]
