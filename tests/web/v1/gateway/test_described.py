"""The gateway's calls against docs/reference/openapi.yaml."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    ignored_auth,
    negative_data_rejection,
    positive_data_acceptance,
)

from receiver import times
from receiver.providers.zimsend.simulator import api as simulator
from receiver.providers.zimsend.simulator.running import Simulator
from receiver.providers.zimsend.simulator.world import World
from tests.conftest import SECRET, Clock
from tests.server import free_port
from tests.web.v1.gateway.asking import HEADERS, KEYS, Gateway
from tests.web.v1.openapi import API


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A service that sends through a simulated ZimSend, for which a second of ours is 1000."""
    world = World(began=times.now())
    simulated = Simulator(world, speed=1000, credentials=tuple(KEYS.values()))
    port = free_port()
    close = simulator.serve(simulated, "127.0.0.1", port)
    environ = {
        "ZIMSEND_WEBHOOK_SECRET": SECRET,
        "DATABASE_URL": f"sqlite:///{tmp_path_factory.mktemp('described') / 'receiver.db'}",
        "HANDLERS": "tests.handlers",
        "ZIMSEND_API_URL": f"http://127.0.0.1:{port}/v1",
        **KEYS,
    }
    here = Gateway(environ, Clock())
    yield here.app
    here.close()
    close()


@API.include(tag="gateway").parametrize()
@settings(max_examples=25, derandomize=True, deadline=None)
def test_any_request_is_answered_as_described(case: schemathesis.Case, described: Any) -> None:
    # What is allowed in a request is for ZimSend to say.
    excluded = [ignored_auth, positive_data_acceptance, negative_data_rejection]
    # Nor is it a fault that a provider is not set up (501).
    excluded.append(not_a_server_error)
    answer = case.call_and_validate(app=described, headers=HEADERS, excluded_checks=excluded)
    assert answer.status_code != 500
