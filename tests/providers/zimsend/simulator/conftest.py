"""An API of its own for each test, and a web server that gets the webhooks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.providers.zimsend.simulator.asking import Api
from tests.providers.zimsend.simulator.network import Hook
from tests.providers.zimsend.simulator.worlds import hooked


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api(hooked(devices=2))
    yield api
    api.simulated.stop()


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()
    yield hook
    hook.close()
