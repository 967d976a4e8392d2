"""Pictures of all pages for docs/: `make screenshots`, or into another folder.

    python -m tests.web.dashboard.screenshots [FOLDER [all]]

`all` takes every page in both languages, light and dark, on a desktop and a phone.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlencode

from receiver import times
from tests.server import ROOT
from tests.web.dashboard.browser import site
from tests.web.dashboard.every_page import GROUP

#: Friday afternoon.
MOMENT = times.parse("2026-11-27T15:42:10Z")
PAGES = {
    "overview": "/",
    "messages": "/messages?status=failed",
    "message": "/messages/msg_01_003",
    "settings": "/settings",
    "quarantine": "/quarantine",
    "events": "/events?state=dead",
    "event": "/events/evt_failed_msg_00_014",
    "failures": "/failures",
    "group": f"/failures/group?{urlencode(GROUP)}",
    "losses": "/losses",
    "live": "/live",
}
#: For the documents: what a page shows there, in which language, scheme and width.
DOCUMENTED = (
    ("overview", "en", "light", 1280),
    ("overview", "fr", "dark", 390),
    ("messages", "en", "dark", 1280),
    ("message", "fr", "light", 1280),
    ("group", "en", "light", 1280),
)
#: Of these the whole page is taken, and not what fits onto a screen.
_WHOLE = ("overview-en-light-1280",)


def take(folder: Path, pictures: list[tuple[str, str, str, int]], *, whole: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as data,
        site(Path(data), days=30, hostile=False, at=MOMENT, TIMEZONE="Europe/Paris") as shop,
    ):
        for name, language, scheme, width in pictures:
            with shop.visit(
                locale=language,
                color_scheme=scheme,
                viewport={"width": width, "height": 800},
                device_scale_factor=2 if width < 600 else 1,
            ) as context:
                page = context.new_page()
                answer = page.goto(PAGES[name])
                if answer is not None and answer.status == 200:
                    title = f"{name}-{language}-{scheme}-{width}"
                    page.screenshot(
                        path=folder / f"{title}.png", full_page=whole or title in _WHOLE
                    )


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "screenshots"
    every = itertools.product(PAGES, ("en", "fr"), ("light", "dark"), (1280, 390))
    if sys.argv[2:] == ["all"]:
        take(where, list(every))
    else:
        take(where, list(DOCUMENTED), whole=False)
