"""To have a provider asked now for the reports that did not come."""

from __future__ import annotations

from flask import Response, abort

from receiver.parts import parts
from receiver.web.dashboard.pages import blueprint, done


@blueprint.post("/losses/now")
def reconcile_now() -> Response:
    """Whichever process makes the passes makes one within seconds: nobody waits for it here."""
    accounts = parts().reconciliations.values()
    if not accounts:
        abort(404)
    for passes in accounts:
        passes.want()
    return done("losses.wanted")
