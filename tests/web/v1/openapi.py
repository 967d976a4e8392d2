"""docs/reference/openapi.yaml, read."""

from __future__ import annotations

from typing import Any

import schemathesis

from tests.server import ROOT


def load() -> schemathesis.BaseSchema:
    api = schemathesis.openapi.from_path(
        ROOT / "docs/reference/openapi.yaml", config=schemathesis.Config()
    )
    # The headers are given with each call; they are tried apart.
    api.config.generation.update(deterministic=True, with_security_parameters=False)
    return api


API = load()
DESCRIPTION: dict[str, Any] = API.raw_schema
SCHEMAS: dict[str, Any] = DESCRIPTION["components"]["schemas"]
