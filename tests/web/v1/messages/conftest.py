"""A service that knows all the messages, and a client of it."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient

from receiver.parts import Receiver
from tests.conftest import Provider, new_database
from tests.web.v1.messages.known import CREDENTIALS, reports, start


@pytest.fixture(scope="module")
def service(
    engine: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Flask]:
    """A service that knows all the messages; of half of them the search index does not know."""
    with new_database(engine, request, tmp_path_factory.mktemp("openapi")) as url:
        app = start(url, **CREDENTIALS)
        parts: Receiver = app.extensions["receiver"]
        parts.store.migrate()
        provider = Provider(app.test_client())
        bodies = reports()
        random.Random(1).shuffle(bodies)  # the mirror is the same in any order
        for number, body in enumerate(bodies):
            assert provider.post(body).status_code == 200
            if number == len(bodies) // 2:
                while parts.store.index_texts(1):
                    pass
        yield app
        parts.store.close()


@pytest.fixture(scope="module")
def client(service: Flask) -> FlaskClient:
    return service.test_client()
