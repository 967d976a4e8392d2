"""Clients beside a server that answers as a test says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from receiver.providers.zimsend.api import ZimSend
from tests.canned import Canned
from tests.providers.zimsend.api.calls import ID, KEY, Naps


@pytest.fixture
def server(fresh_canned: Canned) -> Canned:
    return fresh_canned


@pytest.fixture(scope="module")
def all_naps() -> Naps:
    return Naps()


@pytest.fixture
def naps(all_naps: Naps) -> Naps:
    all_naps.taken.clear()
    return all_naps


@pytest.fixture(scope="module")
def once(canned: Canned) -> Iterator[ZimSend]:
    """A client that tries once."""
    with ZimSend(KEY, ID, base_url=f"{canned.url}/v1", tries=1) as zimsend:
        yield zimsend


@pytest.fixture(scope="module")
def patient(canned: Canned, all_naps: Naps) -> Iterator[ZimSend]:
    """A client whose sleep takes no time."""
    with ZimSend(
        KEY, ID, base_url=f"{canned.url}/v1", sleep=all_naps.sleep, clock=all_naps.clock, tries=4
    ) as zimsend:
        yield zimsend
