"""Clients beside a server that answers as a test says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from receiver.providers.sipgate.api import Sipgate
from tests.canned import Canned
from tests.providers.sipgate.api.calls import TOKEN, TOKEN_ID
from tests.providers.zimsend.api.calls import Naps


@pytest.fixture
def server(fresh_canned: Canned) -> Canned:
    return fresh_canned


@pytest.fixture
def patient(server: Canned) -> Iterator[Sipgate]:
    """A client whose sleep takes no time."""
    naps = Naps()
    with Sipgate(
        TOKEN_ID, TOKEN, base_url=server.url, sleep=naps.sleep, clock=naps.clock
    ) as sipgate:
        yield sipgate
