"""The simulated providers that `flask simulate` can run: what each needs of the settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import click

from receiver.config import Config
from receiver.errors import ConfigError
from receiver.providers import PROVIDERS
from receiver.providers.simulating.running import Running
from receiver.providers.simulating.world import Weather
from receiver.providers.sipgate.simulator import api as sipgate_api
from receiver.providers.sipgate.simulator import running as sipgate
from receiver.providers.sipgate.simulator import world as sipgate_world
from receiver.providers.smscx.simulator import api as smscx_api
from receiver.providers.smscx.simulator import running as smscx
from receiver.providers.smscx.simulator import world as smscx_world
from receiver.providers.zimsend.simulator import api as zimsend_api
from receiver.providers.zimsend.simulator import running as zimsend
from receiver.providers.zimsend.simulator import world as zimsend_world

#: What a simulator lets in where the receiver has no credentials of its own.
ZIMSEND_CREDENTIALS = ("zs_test_simulator", "client_simulator")
SMSCX_API_KEY = "smscx_test_simulator"
SIPGATE_CREDENTIALS = ("token-SIM001", "simulator")


class Wanted(NamedTuple):
    """What was asked for.

    :param began: the world's first moment; microseconds.
    :param url: where its reports go; `None` where it sends none.
    """

    began: int
    seed: int
    speed: float
    devices: int
    weather: Weather
    url: str | None


class Kind(NamedTuple):
    """One provider.

    :param port: where it listens by default.
    :param base: what follows its address in the setting of that name.
    :param reports: whether it sends reports.
    :param begin: from the settings.
    :param api: the module that serves it.
    """

    title: str
    port: int
    base: str
    setting: str
    reports: bool
    begin: Callable[[Config, Wanted], Running[Any]]
    api: Any


def _zimsend(config: Config, wanted: Wanted) -> Running[Any]:
    world = zimsend_world.World(
        began=wanted.began, seed=wanted.seed, devices=wanted.devices, weather=wanted.weather
    )
    world.secret = config.webhook_secret
    assert wanted.url is not None
    reports = zimsend_world.REPORTS
    world.webhooks["wh_1"] = zimsend_world.Webhook("wh_1", wanted.url, reports, world.secret)
    credentials = ZIMSEND_CREDENTIALS
    if config.api_key is not None and config.client_id is not None:
        credentials = (config.api_key.decode(), config.client_id.decode())
    return zimsend.Simulator(world, speed=wanted.speed, credentials=credentials)


def _smscx(config: Config, wanted: Wanted) -> Running[Any]:
    world = smscx_world.World(
        began=wanted.began, seed=wanted.seed, weather=wanted.weather, callback_url=wanted.url
    )
    key = config.smscx_api_key
    key_text = SMSCX_API_KEY if key is None else key.decode()
    return smscx.Simulator(world, speed=wanted.speed, api_key=key_text)


def _sipgate(config: Config, wanted: Wanted) -> Running[Any]:
    # It reports nothing, so what is bad is its history: entries twice, and late ones.
    habits = sipgate_world.Habits(
        twice=wanted.weather.duplicates, late=wanted.weather.reorder, national=0.2, archived=0.1
    )
    world = sipgate_world.World(
        began=wanted.began,
        seed=wanted.seed,
        weather=wanted.weather,
        habits=habits,
        extensions=(config.sipgate_sms_id,),
    )
    token_id, token = SIPGATE_CREDENTIALS
    if config.sipgate_token_id is not None and config.sipgate_token is not None:
        token_id, token = config.sipgate_token_id.decode(), config.sipgate_token.decode()
    return sipgate.Simulator(world, speed=wanted.speed, token_id=token_id, token=token)


#: By the provider's name; the ports are that of ZimSend's own API description, and the next ones.
KINDS = {
    "zimsend": Kind("ZimSend", 5040, "/v1", "ZIMSEND_API_URL", True, _zimsend, zimsend_api),
    "smscx": Kind("SMS.CX", 5041, "", "SMSCX_API_URL", True, _smscx, smscx_api),
    "sipgate": Kind("sipgate", 5042, "", "SIPGATE_API_URL", False, _sipgate, sipgate_api),
}


def address(name: str, config: Config, url: str | None) -> str | None:
    """Where a provider's reports go: as it was asked for, else to this receiver.

    :returns: `None` where it sends none.
    :raises ConfigError: if this receiver would take none of it.
    """
    if not KINDS[name].reports:
        if url is not None:
            raise click.UsageError(f"{KINDS[name].title} sends no reports: leave --url out")
        return None
    provider = PROVIDERS[name]
    if url is None and name == "smscx" and not config.smscx_tokens:
        raise ConfigError("SMSCX_WEBHOOK_TOKEN", "not set, and this needs it, or --url")
    assert provider.door is not None
    return url or f"{config.local_url}{provider.door.address(config)}"
