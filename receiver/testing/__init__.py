"""For the tests of your own handlers: a ZimSend that sends signed events to a real receiver.

With pytest, put `from receiver.testing import zimsend` into your `conftest.py`. Without it,
`FakeZimSend` does the same.
"""

from __future__ import annotations

from collections.abc import Iterator

from receiver.testing.fake import FakeZimSend, Handlers, Result

__all__ = ["FakeZimSend", "Handlers", "Result", "zimsend"]

try:
    import pytest
except ImportError:  # only the fixture needs it
    __all__.remove("zimsend")
else:

    @pytest.fixture
    def zimsend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeZimSend]:
        """A ZimSend that sends signed events to your handlers."""
        fake = FakeZimSend(tmp_path_factory.mktemp("zimsend"))
        yield fake
        fake.close()
