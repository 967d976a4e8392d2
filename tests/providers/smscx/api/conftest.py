"""Clients beside a server that answers as a test says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from receiver import times
from receiver.providers.smscx.api import SmsCx
from tests.canned import Canned
from tests.providers.smscx.api.calls import KEY
from tests.providers.zimsend.api.calls import Naps

NOW = 1_795_162_542


@pytest.fixture
def server(fresh_canned: Canned) -> Canned:
    return fresh_canned


@pytest.fixture
def naps() -> Naps:
    return Naps()


@pytest.fixture
def patient(server: Canned, naps: Naps) -> Iterator[SmsCx]:
    """A client whose sleep takes no time."""
    with SmsCx(
        KEY,
        sender="Default",
        base_url=server.url,
        sleep=naps.sleep,
        clock=naps.clock,
        now=lambda: NOW * times.SECOND,
    ) as smscx:
        yield smscx
