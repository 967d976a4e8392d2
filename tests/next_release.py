"""The release after this one, for tests: its schema has one more table, which this one lacks."""

from __future__ import annotations

from typing import Any

import psycopg

from receiver.store.postgres import schema as postgres_schema
from receiver.store.postgres.schema import Step


def _add_a_table(connection: psycopg.Connection[Any]) -> None:
    connection.execute("CREATE TABLE news (id bigint PRIMARY KEY)")


postgres_schema.STEPS = (*postgres_schema.STEPS, Step("add_a_table", _add_a_table))

from wsgi import app  # noqa: E402 - its schema comes first

__all__ = ["app"]
