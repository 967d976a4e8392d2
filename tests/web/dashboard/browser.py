"""A real browser before a real HTTP server, with a store that pages have something to show of."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask import Flask
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from werkzeug.serving import WSGIRequestHandler, make_server

from app import create_app
from receiver import times
from receiver.parts import Receiver
from receiver.web.dashboard.tokens import Tokens
from tests.web.dashboard.world import fill

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
#: A browser that waits longer for something has found a defect.
PATIENCE = 5_000


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_: Any, **__: Any) -> None:
        pass


@dataclass
class Site:
    """The service, and whoever looks at it."""

    url: str
    app: Flask
    receiver: Receiver
    browser: Browser

    @contextmanager
    def visit(self, *, signed_in: bool = True, **options: Any) -> Iterator[BrowserContext]:
        """A new profile of the browser, by default of one who has signed in."""
        context = self.browser.new_context(base_url=self.url, **options)
        context.set_default_timeout(PATIENCE)
        if signed_in:
            token = Tokens(self.receiver.config, self.receiver.now).session()
            context.add_cookies([{"name": "zimsend_session", "value": token, "url": self.url}])
        try:
            yield context
        finally:
            context.close()


class Watch:
    """What a page must not do: complain, break its policy, or ask another host."""

    def __init__(self, page: Page, url: str) -> None:
        self.told: list[str] = []
        page.on("console", lambda m: m.type in ("error", "warning") and self.told.append(m.text))
        page.on("pageerror", lambda error: self.told.append(str(error)))
        page.on("dialog", lambda dialog: (self.told.append(dialog.message), dialog.dismiss()))
        page.on(
            "request",
            lambda request: request.url.startswith(url) or self.told.append(request.url),
        )


@contextmanager
def site(
    folder: Path, *, days: int, hostile: bool, at: int | None = None, **settings: str
) -> Iterator[Site]:
    """
    :param days: so many have left something.
    :param at: the service's clock stands still there; by default at the time of the start.
    """
    assert CHROMIUM is not None
    environ = {
        "ZIMSEND_WEBHOOK_SECRET": "whsec_0123456789abcdef0123456789abcdef",
        "DATABASE_URL": f"sqlite:///{folder / 'receiver.db'}",
        "HANDLERS": "tests.handlers",
        "ADMIN_PASSWORD": "corrêct horse battery staple",
        "SECRET_KEY": "0123456789abcdef0123456789abcdef",
        **settings,
    }
    now = times.now() if at is None else at
    app = create_app(environ, lambda: now)
    receiver: Receiver = app.extensions["receiver"]
    receiver.store.migrate()
    fill(receiver, days=days, hostile=hostile)
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield Site(f"http://127.0.0.1:{server.server_port}", app, receiver, browser)
        browser.close()
    server.shutdown()
    server.server_close()
    thread.join()
    receiver.store.close()
