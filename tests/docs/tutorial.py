"""The tutorial, done as a reader does it: each of its shell blocks is run, one after the other."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from receiver.store import Selection, open_store
from tests.docs.markdown import Page
from tests.server import ROOT, eventually, free_port

#: The pages, in the order in which they are read.
PAGES = ("README.md", "docs/start/handler.md")
#: Only so much of the project: what `make run` and the commands need.
_NEEDED = ("Makefile", "app.py", "wsgi.py", "gunicorn.conf.py", "receiver", "handlers")
#: A command that runs on, until the reader stops it.
_SERVICE = "make run\n"
#: Stands for Heroku's command line and for the push there: it writes down what it was asked for.
HEROKU = """#!/usr/bin/env bash
set -eu
if [ "${0##*/} ${1-}" != "git push" ] && [ "${0##*/}" = git ]; then exec "$GIT" "$@"; fi
printf '%s' "${0##*/}" >> "$ASKED"
printf '\\t%s' "$@" >> "$ASKED"
echo >> "$ASKED"
"""


class Team:
    """Stands for ntfy: takes what is posted, and keeps the keys of the requests."""

    def __init__(self) -> None:
        keys = self.keys = list[str]()

        class Taken(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                keys.append(self.headers["Idempotency-Key"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Taken)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Reader:
    """Somebody at two terminals in a fresh copy of the project.

    :param team: who is told, in the place of ntfy; its message is waited for before a replay.
    """

    def __init__(self, folder: Path, team: Team) -> None:
        self.folder, self.team = folder, team
        self.log = folder / "first-terminal.log"
        self.told: list[str] = []
        self.port = free_port()
        self._service: subprocess.Popen[bytes] | None = None
        _copy(folder)

    def read(self, page: Page) -> None:
        """Do what the page says: write the files, run the commands."""
        for block in page.blocks:
            text = block.text.replace("https://ntfy.sh", self.team.url)
            if block.language == "python":
                name = text.partition("\n")[0].removeprefix("# ")
                (self.folder / name).write_text(text)
            elif text == _SERVICE:
                self._serve()
            elif block.language == "sh":
                if "flask replay" in text:
                    eventually(self.settled, within=180)  # a call that failed is tried again
                self._run(text, fails="# it fails" in text, place=f"{page.name}:{block.line}")

    def _run(self, text: str, *, fails: bool, place: str) -> None:
        done = subprocess.run(
            ["bash", "-eu", "-c", text],
            cwd=self.folder,
            env=self._environ(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.told.append(done.stdout + done.stderr)
        assert (done.returncode != 0) == fails, f"{place} {text}\n{self.told[-1]}"

    def asked_of_heroku(self) -> list[list[str]]:
        """What was typed for Heroku, word by word."""
        return [line.split("\t") for line in (self.folder / "asked").read_text().splitlines()]

    def _environ(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k in ("HOME", "LANG", "TMPDIR")}
        return {
            **kept,
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "PORT": str(self.port),
            "FLASK_SKIP_DOTENV": "1",
            "ASKED": str(self.folder / "asked"),
            "GIT": shutil.which("git") or "git",
        }

    def _serve(self) -> None:
        """In the first terminal, instead of what ran there."""
        self.stop()
        before = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._service = subprocess.Popen(
                ["make", "run"],
                cwd=self.folder,
                env=self._environ(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        eventually(lambda: b"Listening at" in self.log.read_bytes()[before:])

    def seen(self) -> str:
        """What stands in the first terminal."""
        return self.log.read_text()

    def settled(self) -> bool:
        """Whether no handler has work left, as a reader sees it on the screen."""
        store = open_store(f"sqlite:///{self.folder / 'receiver.db'}")
        events = list(store.events(Selection()))
        store.close()
        return all(work["state"] == "done" for event in events for work in event["deliveries"])

    def stop(self) -> None:
        """Ctrl-C goes to all that run in the terminal."""
        if self._service is not None:
            os.killpg(self._service.pid, signal.SIGINT)
            try:
                self._service.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self._service.pid, signal.SIGKILL)
                self._service.wait()
            self._service = None


def _copy(folder: Path) -> None:
    """The project, and a virtual environment in which make has nothing to install."""
    for name in _NEEDED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name)  # and what Python has compiled
        else:
            shutil.copy(source, folder / name)
    for source in ROOT.glob("requirements*.txt"):
        shutil.copy(source, folder / source.name)
    for name in ("heroku", "git"):
        stands_for = folder / "bin" / name
        stands_for.parent.mkdir(exist_ok=True)
        stands_for.write_text(HEROKU)
        stands_for.chmod(0o755)
    environment = folder / ".venv"
    environment.mkdir()
    for part in Path(sys.prefix).iterdir():
        if part.name not in (".run", ".test", ".dotenv"):
            (environment / part.name).symlink_to(part)
    for stamp in (".dotenv", ".run"):
        (environment / stamp).touch()


@contextmanager
def reading(folder: Path) -> Iterator[tuple[Reader, Team]]:
    """A reader and the team that is told; both are gone in the end."""
    team = Team()
    reader = Reader(folder, team)
    try:
        yield reader, team
    finally:
        reader.stop()
        team.close()
