"""`/metrics`: what Prometheus scrapes, and who may."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import platform
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flask import Blueprint, Response, current_app, request
from flask.blueprints import BlueprintSetupState

from receiver import times
from receiver.errors import Refused
from receiver.figures import Snapshots, Told, Work
from receiver.metrics import (
    ACCEPTED,
    CAUSES,
    DELIVERIES,
    ENDS,
    KINDS,
    METRICS,
    MISSED,
    OTHER,
    PREFIX,
    REFUSED,
    Key,
    Metric,
    histogram,
)
from receiver.parts import Receiver, parts
from receiver.providers import PROVIDERS
from receiver.status import STATES
from receiver.web import paths

if TYPE_CHECKING:
    from prometheus_client.core import Metric as Family

blueprint = Blueprint("metrics", __name__)

#: Beside `X-Forwarded-…`: headers that proxies and tunnels add to a request that is not theirs.
_FORWARDING = {
    *("forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip"),
    *("fly-client-ip", "x-envoy-external-address", "x-original-forwarded-for"),
}


@blueprint.record_once
def _begin(state: BlueprintSetupState) -> None:
    receiver: Receiver = state.app.extensions["receiver"]
    state.app.extensions["metrics"] = Snapshots(receiver.store, receiver.now)


@blueprint.get(paths.METRICS)
def scrape() -> Response:
    """What the store tells of the whole service, in Prometheus' text format."""
    _authorize(parts())
    snapshots: Snapshots = current_app.extensions["metrics"]
    latest = snapshots.latest()
    if latest is None:
        raise Refused(503, "the store cannot be read yet; the log says why")
    return Response(render(latest), content_type="text/plain; version=0.0.4; charset=utf-8")


def render(told: Told) -> bytes:
    """The numbers in Prometheus' text format."""
    # Not at the start: most processes are never asked.
    from prometheus_client.exposition import generate_latest

    return generate_latest(_Collector(told))


def _authorize(receiver: Receiver) -> None:
    """
    :raises Refused: 401 without the right token; 403 where there is none, and who asks may be
        anybody.
    """
    token = receiver.config.metrics_token
    if token is None:
        if receiver.config.public_url is None and _is_this_machine():
            return
        raise Refused(403, "set METRICS_TOKEN, and send it as a bearer token")
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    shown = hashlib.sha256(given.strip().encode("utf-8", "surrogatepass")).digest()
    is_right = hmac.compare_digest(shown, hashlib.sha256(token).digest())
    if scheme.lower() != "bearer" or not is_right:
        raise Refused(
            401, "METRICS_TOKEN is asked for, as a bearer token", {"WWW-Authenticate": "Bearer"}
        )


def _is_this_machine() -> bool:
    """Whether it is not only a proxy or tunnel on this machine that passes on who asks."""
    try:
        peer = ipaddress.ip_address(request.environ.get("REMOTE_ADDR") or "")
    except ValueError:
        return False
    if isinstance(peer, ipaddress.IPv6Address):
        peer = peer.ipv4_mapped or peer
    names = [name.lower() for name in request.headers.keys()]  # noqa: SIM118
    forwarded = any(n in _FORWARDING or n.startswith("x-forwarded") for n in names)
    return peer.is_loopback and not forwarded


class _Collector:
    """All samples of one snapshot, as the library wants them."""

    def __init__(self, told: Told) -> None:
        self._counters, self._figures, self._age = told
        # All that ever ran, or that a process has: whoever is asked tells of the same.
        ran = {key[1] for key in self._counters if key[0] == DELIVERIES}
        self._handlers: list[Key] = [(name,) for name in sorted(ran | self._figures.work.keys())]

    def collect(self) -> Iterator[Family]:
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        states = self._states()
        for metric in METRICS:
            name, labels = PREFIX + metric.name, metric.labels
            if metric.kind == "histogram":
                told = HistogramMetricFamily(name, metric.meaning, labels=labels)
                for key in self._handlers if labels else [()]:
                    told.add_metric(key, *histogram(metric.name, key, self._counters))
                yield told
                continue
            family = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            samples = family(name, metric.meaning, labels=labels)
            values = self._counted(metric) if metric.kind == "counter" else states[metric.name]
            for key, value in sorted(values.items()):
                samples.add_metric(key, value)
            yield samples

    def _counted(self, metric: Metric) -> dict[Key, float]:
        """With a 0 for what has not happened yet: else nobody could tell of its first time."""
        zeros: dict[str, list[Key]] = {
            ACCEPTED: [
                (provider.name, kind)
                for provider in PROVIDERS.values()
                for kind in (*provider.samples, OTHER)
            ],
            REFUSED: [(cause,) for cause in CAUSES],
            MISSED: [(name, kind) for name in PROVIDERS for kind in KINDS],
            DELIVERIES: [(*handler, end) for handler in self._handlers for end in ENDS],
        }
        found: dict[Key, float] = dict.fromkeys(zeros.get(metric.name, [()]), 0)
        return found | {
            key[1:]: value for key, value in self._counters.items() if key[0] == metric.name
        }

    def _states(self) -> dict[str, dict[Key, float]]:
        figures = self._figures
        work = {key: figures.work.get(key[0], Work()) for key in self._handlers}
        version = times.iso(times.RELEASED).partition("T")[0]
        return {
            "work_due": {key: one.due for key, one in work.items()},
            "work_oldest_due_seconds": {key: one.oldest for key, one in work.items()},
            "work_dead": {key: one.dead for key, one in work.items()},
            "messages": {(state,): figures.messages.get(state, 0) for state in STATES},
            "reconciliation_last_success_timestamp_seconds": {
                (name,): at for name, at in figures.successes.items()
            },
            "store_bytes": {(): figures.size},
            "snapshot_age_seconds": {(): self._age},
            "build_info": {(version, platform.python_version()): 1},
        }
