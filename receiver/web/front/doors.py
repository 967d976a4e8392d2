"""Where the service listens, and why it cannot. Loaded by gunicorn's master and the welcome."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from functools import cache

#: What the settings are called that decide it.
_SETTINGS = {
    errno.EADDRINUSE: "another program, or this one already, listens there: stop it, or set PORT",
    errno.EACCES: "only root may listen on this port: set PORT to one above 1023",
    errno.EPERM: "this is not permitted: set PORT to one above 1023",
    errno.EADDRNOTAVAIL: "this machine has no such address: set BIND to one of its own",
    errno.EAFNOSUPPORT: "this machine has no IPv6: set BIND to an IPv4 address",
}


def addresses(bind: str | None, port: int) -> list[str]:
    """What gunicorn is to bind.

    :param bind: an IP address; `None`: all of this machine, by IPv6 as well where it has it.
    """
    hosts = [bind] if bind else ["0.0.0.0", *(["::"] if _has_ipv6() else [])]  # noqa: S104
    return [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host in hosts]


@cache
def _has_ipv6() -> bool:
    """Looked at once: a shortage at a later reading of the settings must not close a door."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
        return True
    except OSError:
        return False


def obstacle(places: Iterable[tuple[str, int] | str | int]) -> str | None:
    """Why one of these places cannot be listened at, in one line; `None`: all can be.

    :param places: as gunicorn has read them; those that are no host and port are not looked at.
    """
    if {"LISTEN_FDS", "GUNICORN_FD"} & set(os.environ):  # opened by somebody else
        return None
    for place in places:
        if not isinstance(place, tuple):
            continue
        host, port = place
        try:
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                _bind(probe, host, port)
        except (OSError, OverflowError) as error:
            number = error.errno if isinstance(error, OSError) else None
            told = _SETTINGS.get(number or 0, f"{error}: set BIND and PORT")
            return f"Port {port} of {host} cannot be listened on: {told}"
    return None


def _bind(listening: socket.socket, host: str, port: int) -> None:
    if listening.family == socket.AF_INET6:
        # IPv4 has a socket of its own, and its clients are seen by their own addresses.
        listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listening.bind((host, port))


def separate_ip_versions() -> None:
    """Let gunicorn's sockets for IPv6 be for IPv6 alone: else the two of all addresses collide."""
    from gunicorn.sock import TCP6Socket

    def bind(self: TCP6Socket, sock: socket.socket) -> None:
        _bind(sock, *self.cfg_addr[:2])

    TCP6Socket.bind = bind
