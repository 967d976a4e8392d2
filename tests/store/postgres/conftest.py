"""Stores on a PostgreSQL database, and others that are connected to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from receiver.store.postgres import PostgresStore
from tests.postgres import Databases, PostgresServer


@pytest.fixture
def postgres_url(databases: Databases) -> Iterator[str]:
    # New: what an earlier test has left running knows the address of one that it was lent.
    url = databases.create()
    yield url
    databases.drop(url)


@pytest.fixture
def store(postgres_url: str) -> Iterator[PostgresStore]:
    store = PostgresStore(postgres_url)
    yield store
    store.close()


@pytest.fixture
def other(postgres_url: str) -> Iterator[PostgresStore]:
    """Another process's store on the same database."""
    store = PostgresStore(postgres_url)
    yield store
    store.close()


@pytest.fixture
def outside(postgres_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Somebody else's connection."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server that a test may stop and kill."""
    server = PostgresServer()
    server.start()
    yield server
    server.remove()
