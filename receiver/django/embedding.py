"""The one receiver of a Django project, made from `settings.ZIMSEND` when it is first used."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

from django.conf import ENVIRONMENT_VARIABLE, settings
from django.core import checks
from django.core.exceptions import PermissionDenied
from django.db import close_old_connections, reset_queries
from django.http import Http404, HttpRequest, HttpResponseBase, HttpResponseNotFound
from django.urls import NoReverseMatch, reverse
from django.utils.module_loading import import_string

from receiver.django import registry
from receiver.embedded import Embedded
from receiver.errors import ConfigError, told_where, where


@dataclass
class Visit:
    """A request that is being answered.

    :param answer: what the project's AUTHORIZE answers it, in the receiver's place.
    """

    request: HttpRequest
    answer: HttpResponseBase | None = None


at_hand: ContextVar[Visit] = ContextVar("zimsend_visit")

_made: Embedded | None = None
_making = threading.RLock()  # what is imported meanwhile may ask for it, too


def _renew() -> None:
    """In a fork, where the thread that may have had it has not come along."""
    global _making
    _making = threading.RLock()


os.register_at_fork(after_in_child=_renew)


def receiver() -> Embedded:
    """The receiver of this process.

    :raises ConfigError: if a setting is missing or wrong.
    """
    global _made
    with _making:
        if _made is None:
            try:
                _made = _make()
            except ConfigError as error:
                # Django shows the frames of an error with what is in them, and mails them.
                raise ConfigError(error.name, error.problem) from None
            except Exception as error:  # its words may hold a setting
                problem = f"a defect of this program, {type(error).__name__} ({where(error)})"
                raise ConfigError("ZIMSEND", problem) from None
        return _made


def forget(*, setting: str, **_: Any) -> None:
    """A test has changed a setting: what is asked next is a receiver with the new one."""
    global _made
    if setting == "ZIMSEND":
        with _making:
            made, _made = _made, None
        if made is not None:
            made.close()


def check(**_: Any) -> list[checks.CheckMessage]:
    """Django's own check of the settings: `manage.py check`, and before most commands."""
    try:
        receiver()
    except ConfigError as error:
        hint = f"Set {error.name} in settings.ZIMSEND, or in the environment if there is none."
        return [checks.Error(str(error), hint=hint, id="zimsend.E001")]
    return []


def _make() -> Embedded:
    given = getattr(settings, "ZIMSEND", None)
    if given is not None and not isinstance(given, Mapping):
        raise ConfigError("ZIMSEND", "must be a dictionary, like {'ZIMSEND_WEBHOOK_SECRET': '…'}")
    names = dict(given or {})
    authorize = names.pop("AUTHORIZE", None)
    embedded_worker = names.pop("EMBEDDED_WORKER", False)
    if not isinstance(embedded_worker, bool):
        raise ConfigError("EMBEDDED_WORKER", "must be True or False")
    # Django shows settings in its error pages and mails, but for what a function returns.
    values = {name: _value(name, value) for name, value in names.items()}
    return Embedded(
        None if given is None else values,
        folder=_folder(),
        inside=fresh_connections,
        authorize=_asking(authorize) if authorize else None,
        embedded_worker=embedded_worker,
        called="manage.py zimsend",
        here=_here,
        registry=registry,
    )


def _value(name: str, value: object) -> object:
    """What a setting says, or the function that is given in its place."""
    if not callable(value):
        return value
    try:
        return value()
    except Exception as error:
        problem = f"the function that tells it has failed: {told_where(error, __file__)}"
        raise ConfigError(name, problem) from None


def _folder() -> Path:
    """What relative paths count from: the project's folder, else that of its settings."""
    if base := getattr(settings, "BASE_DIR", None):
        return Path(base)
    module = sys.modules.get(os.environ.get(ENVIRONMENT_VARIABLE, ""))
    file = getattr(module, "__file__", None)
    return Path(file).parent if file else Path.cwd()


def _here() -> str:
    """Where `manage.py runserver` serves it."""
    try:
        path = reverse("zimsend:receive", kwargs={"rest": ""})
    except NoReverseMatch:  # it has a namespace of the project's, or what a prefix needs is unknown
        path = ""
    return f"http://127.0.0.1:8000{path.rstrip('/')}"


@contextmanager
def fresh_connections() -> Iterator[None]:
    """What each handler is called in, as Django calls a view.

    A connection that is too old, or that has broken, is closed before and after; the next query
    makes another one.
    """
    reset_queries()  # with DEBUG, Django remembers them
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()


def _asking(named: object) -> Callable[[], bool]:
    """Ask the project's function whether whoever sends this request may see the dashboard.

    It says `True`, or returns an answer of its own, as a redirect to where one signs in.

    :param named: the function, or its dotted path.
    """
    try:
        may = import_string(named) if isinstance(named, str) else named
    except Exception as error:
        raise ConfigError(
            "AUTHORIZE", f"cannot import {named}: {told_where(error, __file__)}"
        ) from None
    if not callable(may) or iscoroutinefunction(may):
        raise ConfigError("AUTHORIZE", f"{named!r} is no plain function of a request")

    def authorize() -> bool:
        visit = at_hand.get()
        try:
            answer = may(visit.request)
        except PermissionDenied:
            return False
        except Http404:
            answer = HttpResponseNotFound("Not Found", content_type="text/plain")
        if isinstance(answer, HttpResponseBase):
            visit.answer = answer
            return False
        return answer is True

    return authorize
