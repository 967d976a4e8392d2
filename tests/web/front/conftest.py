"""One gunicorn for each module of this folder, and its store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from receiver.store import Store, open_store
from tests.conftest import SECRET, new_database
from tests.server import Server


@pytest.fixture(scope="module")
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("front")
    with new_database("sqlite", request, folder) as url:
        server = Server(
            {
                "ZIMSEND_WEBHOOK_SECRET": SECRET,
                "DATABASE_URL": url,
                "HANDLERS": "tests.handlers",
                "ZIMSEND_API_KEY": "key",
                "ZIMSEND_CLIENT_ID": "client",
            },
            folder,
            SECRET,
        )
        server.start()
        yield server
        server.close()


@pytest.fixture(scope="module")
def kept(server: Server) -> Iterator[Store]:
    """The server's database, read from outside."""
    store = open_store(server.environ["DATABASE_URL"])
    yield store
    store.close()
