"""`flask simulate`: a provider on this machine, for trying and for testing. It sends no SMS."""

from __future__ import annotations

import errno
import math
import random
import re
import signal
import threading
import time
from typing import Any

import click

from receiver import times
from receiver.commands.common import command, echo
from receiver.commands.simulated import KINDS, Wanted, address
from receiver.parts import parts
from receiver.providers.simulating.world import Weather
from receiver.setting_values import is_loopback

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
@click.option("--provider", type=click.Choice([*KINDS]), default="zimsend", show_default=True,
              help="who is simulated")  # fmt: skip
@click.option("--url", help="the receiver's webhook [default: this receiver on PORT]")
@click.option("--host", default="127.0.0.1", show_default=True, help="where the API listens")
@click.option("--port", type=click.IntRange(1, 65_535),
              help="and on which port [default: 5040, SMS.CX 5041, sipgate 5042]")  # fmt: skip
@click.option("--expose", is_flag=True, help="allow a --host that others can reach")
@click.option("--speed", type=_Number(0.1, 1000), default=1.0, show_default=True,
              help="seconds that pass for the provider in one real second")  # fmt: skip
@click.option("--seed", type=int, help="the same seed gives the same world [default: a new one]")
@click.option("--devices", type=click.IntRange(1, 100), default=1, show_default=True,
              help="ZimSend's phones; each sends an SMS in 2 to 3 seconds")  # fmt: skip
@click.option("--rate", type=_Number(0.001, 100), default=1.0, show_default=True,
              help="with --count: SMS that are queued in a second")  # fmt: skip
@click.option("--count", type=click.IntRange(1, MOST),
              help="queue so many SMS; stop when all is over")  # fmt: skip
@click.option("--keep", is_flag=True, help="with --count: go on answering when all is over")
@click.option("--for", "for_", type=_Number(0), help="stop after so many real seconds")
@click.option("--failed", type=_SHARE, default=0.0, help="share of SMS that fail")
@click.option(
    "--duplicates",
    type=_SHARE,
    default=0.0,
    help="share of events that come twice; of sipgate's history, entries",
)
@click.option(
    "--reorder", type=_SHARE, default=0.0, help="share of events that come late; likewise"
)
@click.option("--drop", type=_SHARE, default=0.0,
              help="share of tries that never arrive; of sipgate, requests to send")  # fmt: skip
@click.option("--lost-answers", type=_SHARE, default=0.0,
              help="share of tries that arrive, and whose answer is lost")  # fmt: skip
@click.option("--outage", type=_Outage(), default=(0, 0),
              help="between these seconds no try arrives, like 60..600")  # fmt: skip
def simulate(
    provider: str,
    url: str | None,
    host: str,
    port: int | None,
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
    """A provider on this machine: its API, and the reports that it sends. No SMS is sent.

    GET /truth on its port tells what really became of every message and every event. The SMS of
    --count are those of a customer; sipgate's are written in its app."""
    if not expose and not is_loopback(host):
        raise click.UsageError(f"{host} can be reached by others; add --expose if they shall")
    receiver, kind = parts(), KINDS[provider]
    if bad["failed"] and not kind.reports:
        raise click.UsageError(f"{kind.title} never tells that an SMS failed: leave --failed out")
    url, port = address(provider, receiver.config, url), port or kind.port
    seed = random.randrange(1_000_000) if seed is None else seed
    wanted = Wanted(receiver.now(), seed, speed, devices, Weather(**bad), url)
    simulated = kind.begin(receiver.config, wanted)
    simulated.world.campaign(count or 0, rate)

    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    here = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        close = kind.api.serve(simulated, host, port)
    except OSError as error:
        advice = "; take another --port" if error.errno == errno.EADDRINUSE else ""
        raise click.ClickException(f"cannot listen on {here}: {error}{advice}") from error
    echo(f"SIMULATOR, not {kind.title}: no SMS is sent. API on http://{here}{kind.base}")
    if speed != 1:
        echo(f"A receiver with {kind.setting}=http://{here}{kind.base} asks by the same clock.")
    goes = "it sends no reports" if url is None else f"webhooks go to {_without_secret(url)}"
    echo(f"seed {seed}; {goes}; the truth is on http://{here}/truth")
    ends = None if for_ is None else time.monotonic() + for_
    while not stopped.wait(0.05):
        if ends is not None and time.monotonic() >= ends:
            break
        if count is not None and not keep and simulated.at_rest:
            break
    close()
    for line in simulated.world.report():
        echo(line)


def _without_secret(url: str) -> str:
    """SMS.CX's address ends in one."""
    return re.sub(r"(/webhooks/smscx/).+", r"\1***", url)
