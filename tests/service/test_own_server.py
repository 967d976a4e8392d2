"""deploy/: systemd's units, and nginx and Caddy in front of a real service."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from receiver.providers.zimsend.webhook import sign
from receiver.web.bodies import LARGEST_PASSED_ON
from receiver.worker import Worker
from tests.conftest import SECRET
from tests.server import ROOT, Server, cannot_run, eventually, free_port

DEPLOY = ROOT / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))
TOKEN = "0123456789abcdef0123456789abcdef"
PASSWORD = "correct horse battery"


# --- systemd


def entries(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_takes_the_unit(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        cannot_run("systemd's units, for systemd-analyze is not here")
    there = unit.read_text().replace(
        "/opt/zimsend-receiver/.venv/bin", str(Path(sys.executable).parent)
    )
    (tmp_path / unit.name).write_text(there)
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / unit.name)],
        capture_output=True,
        text=True,
    )
    assert (verified.returncode, verified.stderr) == (0, "")


def test_units_stop_as_the_service_needs_it_and_are_locked_up_alike() -> None:
    web, worker = (entries(DEPLOY / f"zimsend-receiver{name}.service") for name in ("", "-worker"))
    assert web["ExecStart"] == ["/opt/zimsend-receiver/.venv/bin/gunicorn wsgi:app"]
    assert worker["ExecStart"] == ["/opt/zimsend-receiver/.venv/bin/flask work"]
    assert float(*web["TimeoutStopSec"]) > Worker.DRAIN + 5
    own = {"Description", "After", "Type", "ExecStart", "ExecReload", "TimeoutStartSec"}
    assert {k: v for k, v in web.items() if k not in own} == {
        k: v for k, v in worker.items() if k not in own
    }
    assert (web["KillMode"], web["KillSignal"], web["Restart"]) == (
        ["mixed"], ["SIGTERM"], ["always"],
    )  # fmt: skip
    assert web["ProtectSystem"] == ["strict"]


def test_gunicorn_tells_systemd_when_it_is_there(environ: dict[str, str], tmp_path: Path) -> None:
    """What `Type=notify` waits for, and not before the port can be reached."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(tmp_path / "notify"))
        told.settimeout(30)
        server = Server(
            {**environ, "HANDLERS": "handlers.log", "NOTIFY_SOCKET": str(tmp_path / "notify")},
            tmp_path,
            SECRET,
        )
        try:
            server.spawn(["-m", "gunicorn", "-c", str(ROOT / "gunicorn.conf.py"), "wsgi:app"])
            assert b"READY=1" in told.recv(1_000)
            socket.create_connection(("127.0.0.1", server.port), 5).close()
        finally:
            server.close()


# --- proxies


@dataclass
class Proxied:
    """A real proxy in front of a service, and all that the proxy wrote."""

    https: httpx.Client
    http: httpx.Client
    logs: Callable[[], str]


def certificate(folder: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=sms.example.com", "-keyout", folder / "privkey.pem",
         "-out", folder / "fullchain.pem"],
        check=True,
        capture_output=True,
    )  # fmt: skip


def nginx(folder: Path, https: int, http: int, upstream: int) -> list[str]:
    """deploy/nginx.conf, with other ports and a certificate of its own."""
    site = (DEPLOY / "nginx.conf").read_text()
    site = re.sub(r" *listen \[::\].*\n", "", site)
    for was, instead in (
        ("listen 443 ssl", f"listen 127.0.0.1:{https} ssl"),
        ("listen 80", f"listen 127.0.0.1:{http}"),
        ("/etc/letsencrypt/live/sms.example.com", str(folder)),
        ("127.0.0.1:3000", f"127.0.0.1:{upstream}"),
    ):
        assert was in site
        site = site.replace(was, instead)
    certificate(folder)
    (folder / "site.conf").write_text(site)
    user = "user root;" if os.geteuid() == 0 else ""
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"{user} daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
        f"http {{ access_log {folder}/access.log; {temporary} include {folder}/site.conf; }}\n"
    )
    command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    tested = subprocess.run([*command, "-t"], capture_output=True, text=True)
    assert tested.returncode == 0, tested.stderr
    assert "[warn]" not in tested.stderr
    return command


def caddy(folder: Path, https: int, http: int, upstream: int) -> list[str]:
    """deploy/Caddyfile, with other ports and the certificate of an authority of its own."""
    site = (DEPLOY / "Caddyfile").read_text()
    for was, instead in (
        ("\nsms.example.com {", f"\nhttps://127.0.0.1:{https} {{\n\ttls internal"),
        ("127.0.0.1:3000", f"127.0.0.1:{upstream}"),
    ):
        assert was in site
        site = site.replace(was, instead)
    assert "\n{\n" in site
    options = f"\n{{\n\tadmin off\n\tskip_install_trust\n\thttp_port {http}\n\thttps_port {https}\n"
    (folder / "Caddyfile").write_text(site.replace("\n{\n", options, 1))
    return ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


PROXIES = {"nginx": nginx, "caddy": caddy}


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service as own-server.md sets it up."""
    folder = tmp_path_factory.mktemp("service")
    settings = {
        "ZIMSEND_WEBHOOK_SECRET": SECRET,
        "SMSCX_WEBHOOK_TOKEN": TOKEN,
        "DATABASE_URL": f"sqlite:///{folder / 'receiver.db'}",
        "HANDLERS": "handlers.log",
        "BIND": "127.0.0.1",
        "TRUSTED_PROXIES": "1",
        "V1_API_KEY": "key",
        "ADMIN_PASSWORD": PASSWORD,
        "SECRET_KEY": "s" * 32,
    }
    server = Server(settings, folder, SECRET)
    server.start()
    yield server
    server.close()


@contextlib.contextmanager
def running(name: str, folder: Path, upstream: int) -> Iterator[Proxied]:
    if shutil.which(name) is None:
        cannot_run(f"deploy/ with {name}, for it is not installed")
    https, http = free_port(), free_port()
    command = PROXIES[name](folder, https, http, upstream)
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    with (folder / "output.log").open("wb") as output:
        process = subprocess.Popen(
            command, env=environ, stdout=output, stderr=output, start_new_session=True
        )
    logs = lambda: "".join(p.read_text() for p in folder.glob("*.log"))  # noqa: E731
    with (
        httpx.Client(base_url=f"https://127.0.0.1:{https}", verify=False, timeout=10) as secure,
        httpx.Client(base_url=f"http://127.0.0.1:{http}", timeout=10) as plain,
    ):

        def ready() -> bool:
            assert process.poll() is None, logs()
            with contextlib.suppress(httpx.HTTPError):
                return secure.get("/healthz").status_code in (200, 502)
            return False

        try:
            eventually(ready)
            yield Proxied(secure, plain, logs)
        finally:
            process.terminate()
            process.wait(10)


@pytest.fixture(scope="module", params=PROXIES)
def proxied(
    request: pytest.FixtureRequest, behind: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxied]:
    with running(request.param, tmp_path_factory.mktemp(request.param), behind.port) as proxied:
        yield proxied


def post(proxied: Proxied, body: bytes) -> httpx.Response:
    headers = {"X-Webhook-Signature": sign(SECRET.encode(), body)}
    return proxied.https.post("/webhooks/zimsend", content=body, headers=headers)


def test_an_event_comes_through(proxied: Proxied) -> None:
    for _ in range(3):
        answer = post(proxied, json.dumps({"event": "fax.sent", "data": {}}).encode())
        assert answer.status_code == 200, answer.text


def test_the_service_says_what_is_too_large_and_nginx_only_for_the_largest(
    proxied: Proxied,
) -> None:
    answer = post(proxied, b'{"event": "fax.sent", "x": "' + b"x" * 300_000 + b'"}')
    assert answer.status_code == 413
    assert answer.headers["Content-Type"] == "application/problem+json"
    send = {"content": b" " * (LARGEST_PASSED_ON - 1_000), "headers": {"X-API-Key": "key"}}
    answer = proxied.https.post("/v1/sms/send-bulk", **send)  # type: ignore[arg-type]
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.status_code != 413
    send["content"] = b" " * (LARGEST_PASSED_ON + 100_000)
    with contextlib.suppress(httpx.WriteError):  # it need not read all of it
        assert proxied.https.post("/v1/sms/send-bulk", **send).status_code == 413  # type: ignore[arg-type]


def test_one_signs_in_through_it_and_the_cookie_is_for_https(proxied: Proxied) -> None:
    """Browsers that say no `Sec-Fetch-Site` are known by host and port."""
    form = proxied.https.get("/sign-in").text
    (token,) = re.findall(r'name="form" value="([^"]*)"', form)
    origin = str(proxied.https.base_url).rstrip("/")
    fields = {"form": token, "password": PASSWORD}
    foreign = proxied.https.post("/sign-in", data=fields, headers={"Origin": "https://evil.test"})
    assert foreign.status_code == 403
    answer = proxied.https.post("/sign-in", data=fields, headers={"Origin": origin})
    assert answer.status_code == 303, answer.text
    assert "Secure" in answer.headers["Set-Cookie"]
    assert proxied.https.get("/").status_code == 200


def test_nobody_is_asked_for_a_password_over_http(proxied: Proxied) -> None:
    answer = proxied.http.get("/sign-in", headers={"Host": "127.0.0.1"})
    assert answer.status_code in (301, 308)
    assert answer.headers["Location"].startswith("https://")


def test_a_secret_in_an_address_is_in_no_log(proxied: Proxied) -> None:
    address = f"/webhooks/smscx/{TOKEN}"
    assert proxied.https.post(address, json={"event": "x", "data": [{}]}).status_code == 200
    proxied.http.post(address, json={}, headers={"Host": "127.0.0.1"})
    assert TOKEN not in proxied.logs()


@pytest.mark.parametrize("name", PROXIES)
def test_nor_is_it_where_the_service_is_away(name: str, tmp_path: Path) -> None:
    """An error is written then."""
    with running(name, tmp_path, upstream=free_port()) as proxied:
        assert proxied.https.post(f"/webhooks/smscx/{TOKEN}", json={}).status_code == 502
        assert proxied.https.post("/webhooks/zimsend", json={}).status_code == 502
        eventually(lambda: "/webhooks/zimsend" in proxied.logs(), 5)
        assert TOKEN not in proxied.logs()
