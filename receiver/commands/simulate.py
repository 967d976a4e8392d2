"""`flask simulate`: a ZimSend on this machine, for trying and for testing. It sends no SMS."""

from __future__ import annotations

import math
import random
import re
import signal
import threading
import time
from collections import Counter
from typing import Any

import click

from receiver import times
from receiver.commands.common import command, echo
from receiver.config import is_loopback
from receiver.parts import parts
from receiver.providers.simulating.world import Weather
from receiver.providers.zimsend.simulator import api as simulator
from receiver.providers.zimsend.simulator.running import Simulator
from receiver.providers.zimsend.simulator.world import REPORTS, Webhook, World

#: Where the provider's own API description puts a server for local work.
PORT = 5040
#: What the simulator lets in where the receiver has no credentials of its own.
CREDENTIALS = ("zs_test_simulator", "client_simulator")

#: Most SMS of a campaign: all are planned before the first one is queued.
MOST = 100_000


class _Number(click.FloatRange):
    """Without `nan`, which is in every range, and `inf`."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number")
        return number


_SHARE = _Number(0, 1)


class _Outage(click.ParamType[tuple[int, int]]):
    name = "from..to"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"(\d{1,6})\.\.(\d{1,6})", value, re.ASCII)
        if not found or int(found[1]) > int(found[2]):
            self.fail(f"{value!r}: write seconds after the start, like 60..600")
        return int(found[1]) * times.SECOND, int(found[2]) * times.SECOND


@command()
@click.option("--url", help="the receiver's webhook [default: this receiver on PORT]")
@click.option("--host", default="127.0.0.1", show_default=True, help="where the API listens")
@click.option("--port", type=click.IntRange(1, 65_535), default=PORT, show_default=True,
              help="and on which port")  # fmt: skip
@click.option("--expose", is_flag=True, help="allow a --host that others can reach")
@click.option("--speed", type=_Number(0.1, 1000), default=1.0, show_default=True,
              help="seconds that pass for ZimSend in one real second")  # fmt: skip
@click.option("--seed", type=int, help="the same seed gives the same world [default: a new one]")
@click.option("--devices", type=click.IntRange(1, 100), default=1, show_default=True,
              help="phones; each sends an SMS in 2 to 3 seconds")  # fmt: skip
@click.option("--rate", type=_Number(0.001, 100), default=1.0, show_default=True,
              help="with --count: SMS that are queued in a second")  # fmt: skip
@click.option("--count", type=click.IntRange(1, MOST),
              help="queue so many SMS; stop when all is over")  # fmt: skip
@click.option("--keep", is_flag=True, help="with --count: go on answering when all is over")
@click.option("--for", "for_", type=_Number(0), help="stop after so many real seconds")
@click.option("--failed", type=_SHARE, default=0.0, help="share of SMS that fail")
@click.option("--duplicates", type=_SHARE, default=0.0, help="share of events that come twice")
@click.option("--reorder", type=_SHARE, default=0.0, help="share of events that come late")
@click.option("--drop", type=_SHARE, default=0.0, help="share of tries that never arrive")
@click.option("--lost-answers", type=_SHARE, default=0.0,
              help="share of tries that arrive, and whose answer is lost")  # fmt: skip
@click.option("--outage", type=_Outage(), default=(0, 0),
              help="between these seconds no try arrives, like 60..600")  # fmt: skip
def simulate(
    url: str | None,
    host: str,
    port: int,
    expose: bool,
    speed: float,
    seed: int | None,
    devices: int,
    rate: float,
    count: int | None,
    keep: bool,
    for_: float | None,
    **bad: Any,
) -> None:
    """A ZimSend on this machine: its API, phones, and webhooks. No SMS is sent.

    GET /truth on its port tells what really became of every message and every event."""
    if not expose and not is_loopback(host):
        raise click.UsageError(f"{host} can be reached by others; add --expose if they shall")
    receiver = parts()
    config = receiver.config
    url = url or f"{config.local_url}/webhooks/zimsend"
    seed = random.randrange(1_000_000) if seed is None else seed
    world = World(began=receiver.now(), seed=seed, devices=devices, weather=Weather(**bad))
    world.secret = config.webhook_secret
    world.webhooks["wh_1"] = Webhook("wh_1", url, REPORTS, world.secret)
    credentials = CREDENTIALS
    if config.api_key is not None and config.client_id is not None:
        credentials = (config.api_key.decode(), config.client_id.decode())
    world.campaign(count or 0, rate)

    simulated = Simulator(world, speed=speed, credentials=credentials)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    here = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        close = simulator.serve(simulated, host, port)
    except OSError as error:
        raise click.ClickException(f"cannot listen on {here}: {error}") from error
    echo(f"SIMULATOR, not ZimSend: no SMS is sent. API on http://{here}/v1")
    if speed != 1:
        echo(f"A receiver with ZIMSEND_API_URL=http://{here}/v1 asks by the same clock.")
    echo(f"seed {seed}; webhooks go to {url}; the truth is on http://{here}/truth")
    ends = None if for_ is None else time.monotonic() + for_
    while not stopped.wait(0.05):
        if ends is not None and time.monotonic() >= ends:
            break
        if count is not None and not keep and simulated.at_rest:
            break
    close()
    _report(world)


def _report(world: World) -> None:
    states = Counter(message.status for message in world.messages.values())
    echo(f"{len(world.messages)} messages: {_counted(states) or 'none'}")
    ends = Counter(event.state for event in world.events)
    echo(f"{len(world.events)} events: {_counted(ends) or 'none'}")
    for event in world.events:
        if not event.arrived:
            outcomes = ", ".join(attempt.outcome for attempt in event.tries) or "not tried yet"
            echo(f"lost: {event.id} {event.type} {event.message_id} ({outcomes})")


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
