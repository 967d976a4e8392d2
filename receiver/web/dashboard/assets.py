"""The stylesheet, the script and the icon: of this folder alone, each with a digest in its name."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

_FOLDER = Path(__file__).with_name("assets")
_TYPES = {
    "dashboard.css": "text/css; charset=utf-8",
    "dashboard.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


class Asset(NamedTuple):
    body: bytes
    content_type: str


@cache
def assets() -> dict[str, Asset]:
    """By the names under which they are served."""
    found = {}
    for name, content_type in _TYPES.items():
        body = (_FOLDER / name).read_bytes()
        stem, _, suffix = name.rpartition(".")
        digest = hashlib.sha256(body).hexdigest()[:16]
        found[f"{stem}.{digest}.{suffix}"] = Asset(body, content_type)
    return found


@cache
def served_as() -> dict[str, str]:
    """The name under which each file is served."""
    return dict(zip(_TYPES, assets(), strict=True))
