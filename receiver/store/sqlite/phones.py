"""What alerts ask SQLite about the phones that send."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from receiver.store.contract import WAS_TRIED
from receiver.store.sqlite.connections import Connections

# From each phone to the next: the index of messages by phone has all of it.
_LAST_HEARD = f"""
WITH RECURSIVE phone (id) AS (
    SELECT min(device_id) FROM messages WHERE device_id > ''
    UNION ALL
    SELECT (SELECT min(device_id) FROM messages WHERE device_id > phone.id)
    FROM phone WHERE id IS NOT NULL)
SELECT id, at FROM (
    SELECT id, (SELECT at FROM messages WHERE device_id = phone.id AND {WAS_TRIED}
                ORDER BY at DESC LIMIT 1) AS at
    FROM phone WHERE id IS NOT NULL)
WHERE at IS NOT NULL
"""

_HEARD = f"""
SELECT (SELECT count(*) FROM (
    SELECT 1 FROM messages
    WHERE device_id = json_extract(span.value, '$[0]') AND {WAS_TRIED}
      AND at > json_extract(span.value, '$[1]') AND at <= json_extract(span.value, '$[2]')
    LIMIT :most))
FROM json_each(:spans) AS span ORDER BY span.key
"""


class Phones(Connections):
    """See `receiver.store.contract.Phones`."""

    def last_heard(self) -> Mapping[str, int]:
        with self._reading() as connection:
            return dict(connection.execute(_LAST_HEARD).fetchall())

    def heard(self, spans: Sequence[tuple[str, int, int]], most: int) -> list[int]:
        asked = {"spans": json.dumps(spans), "most": most}
        with self._reading() as connection:
            return [count for (count,) in connection.execute(_HEARD, asked)]
