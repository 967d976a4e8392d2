"""What the documents about embedding show can be run; `tests/docs` sees to all else in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from receiver.flask import ZimSendReceiver
from tests.embedded.conftest import SECRET
from tests.server import ROOT

FLASK = (ROOT / "docs/how-to/embed-flask.md").read_text()


def blocks(document: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ZimSendReceiver]]:
    """The receivers that a block makes; they are closed afterwards."""
    made: list[ZimSendReceiver] = []
    init = ZimSendReceiver.__init__

    def note(self: ZimSendReceiver, *args: Any, **options: Any) -> None:
        made.append(self)
        init(self, *args, **options)

    monkeypatch.setattr(ZimSendReceiver, "__init__", note)
    yield made
    for receiver in made:
        receiver.close()


@pytest.mark.parametrize("block", blocks(FLASK)[:-1])
def test_blocks_of_flask_run(
    block: str, made: list[ZimSendReceiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZIMSEND_WEBHOOK_SECRET", SECRET)
    names: dict[str, Any] = {"__name__": "shop"}
    exec(compile(block, "embed-flask.md", "exec"), names)
    app: Flask = names["create_app"]() if "create_app" in names else names["app"]
    assert app.test_client().get("/sms/healthz").status_code == 200
    assert made
