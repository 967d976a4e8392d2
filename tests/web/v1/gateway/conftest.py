"""A ZimSend that answers as a test says, and receivers in front of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.canned import Canned
from tests.conftest import Clock
from tests.web.v1.gateway.asking import KEYS, PUBLIC, Gateway


@pytest.fixture
def zimsend(fresh_canned: Canned) -> Canned:
    return fresh_canned


@pytest.fixture
def start(
    environ: dict[str, str], clock: Clock, zimsend: Canned
) -> Iterator[Callable[..., Gateway]]:
    started = []

    def start(**settings: str) -> Gateway:
        url = {"ZIMSEND_API_URL": f"{zimsend.url}/v1", "PUBLIC_URL": PUBLIC}
        started.append(Gateway({**environ, **KEYS, **url, **settings}, clock))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture
def here(start: Callable[..., Gateway]) -> Gateway:
    return start()
