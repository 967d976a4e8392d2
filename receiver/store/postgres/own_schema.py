"""How a migration comes into a schema of the receiver's own; or it is said what to do."""

from __future__ import annotations

from typing import Any

import psycopg

from receiver.errors import StoreUnavailable
from receiver.store.postgres.place import Place


def enter(connection: psycopg.Connection[Any], place: Place) -> bool:
    """Look for all names in the schema alone, to the end of the transaction. Makes the schema.

    :returns: whether it has our tables already.
    :raises StoreUnavailable: if the user has no right to it, or if a receiver's tables are where
        they were without a schema of their own, and would be left behind without a word.
    """
    ((user, database, may_make, exists, usable, has_tables, elsewhere),) = connection.execute(
        _FOUND, {"schema": f'"{place.schema}"', "steps": f"{place.prefix}schema_steps"}
    )
    if not exists and elsewhere is not None:
        raise StoreUnavailable(
            f"DATABASE_SCHEMA: a receiver's tables are in schema {elsewhere} of this database; "
            "stop it, and move them, as docs/how-to/shared-database.md says. Or run "
            f'CREATE SCHEMA "{place.schema}" for another receiver beside it, which begins empty'
        )
    if not exists and not may_make:
        raise StoreUnavailable(
            f"DATABASE_SCHEMA: {user} may make no schema in {database}; let its owner run "
            f'CREATE SCHEMA "{place.schema}" AUTHORIZATION {user}'
        )
    if not exists:
        connection.execute(f'CREATE SCHEMA "{place.schema}"')
    elif not usable:
        raise StoreUnavailable(
            f"DATABASE_SCHEMA: {user} may not use the schema; let its owner run "
            f'GRANT USAGE, CREATE ON SCHEMA "{place.schema}" TO {user}'
        )
    if not has_tables:
        _make_trigrams(connection, place)
    connection.execute(f"SET LOCAL search_path = {place.search_path}")
    return bool(has_tables)


def _make_trigrams(connection: psycopg.Connection[Any], place: Place) -> None:
    """A database has an extension once: so it is made where its other programs find it, too, and
    stays when our schema goes."""
    ((first,),) = connection.execute("SELECT current_schema()")
    where = " SCHEMA public" if first in (None, place.schema) else ""
    try:
        with connection.transaction():
            connection.execute(f"CREATE EXTENSION IF NOT EXISTS pg_trgm{where}")
    except psycopg.Error:
        pass  # the step of the schema tries once more, in our own


# What makes a table of that name one of ours: its columns, and what is beside it.
_FOUND = """
SELECT quote_ident(current_user), quote_ident(current_database()),
    has_database_privilege(current_database(), 'CREATE'),
    own IS NOT NULL,
    has_schema_privilege(own, 'USAGE'),
    CASE WHEN has_schema_privilege(own, 'USAGE') THEN to_regclass(%(steps)s) IS NOT NULL END,
    (SELECT c.relnamespace::regnamespace::text FROM pg_class AS c
     WHERE c.oid = to_regclass('schema_steps') AND to_regclass('event_seqs') IS NOT NULL
       AND 3 = (SELECT count(*) FROM pg_attribute AS a WHERE a.attrelid = c.oid
                AND a.attname IN ('number', 'breaking', 'taken_at')))
FROM (SELECT to_regnamespace(%(schema)s) AS own) AS asked
"""
