"""Databases with months of messages in them, such as a shop that sends through ZimSend has.

The messages are made up, and come in as events through the store's own `ingest`, in the order in
which they would have arrived. Of all that is made it is remembered how much there is of each kind,
so that whoever asks the database knows the right answer.
"""

from __future__ import annotations

import json
import os
import random
import string
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flask.testing import FlaskClient

from app import create_app
from benchmarks.load import SECRET
from receiver import times
from receiver.event import Incoming
from receiver.providers.zimsend.samples import SAMPLES
from receiver.providers.zimsend.webhook import parse
from receiver.store import Store
from receiver.store.sqlite import SqliteStore

RETENTION = 90 * times.DAY
DEVICES = ("dev_a15", "dev_s21", "dev_pixel7", "dev_redmi9")
#: One message in a hundred goes to the shop's own phone: a number with many pages of history.
OWN_NUMBER = "+33600000001"

#: In half of all messages.
WORD = "commande"
_NAMES = """
Amélie Antoine Arthur Aurélie Baptiste Béatrice Brigitte Camille Cécile Charlotte Chloé Clément
Dominique Édouard Élodie Étienne Fabrice Florence François Geneviève Grégoire Guillaume Hélène
Isabelle Jérôme Joséphine Juliette Laurence Lucille Ludovic Maëlys Margaux Mathilde Mickaël
Monique Nathalie Océane Patricia Quentin Raphaël Rodolphe Sébastien Solène Stéphane Thibault
Valérie Véronique Virginie Xavier Zoé
"""
#: Each in about one message of a hundred; none is a part of another, or of the texts.
NAMES = tuple(_NAMES.split())

#: The texts and how often they are sent, of a hundred.
_TEXTS = {
    "Bonjour {name}, votre commande {order} est prête. Code de retrait : {code}": 25,
    "{name}, votre commande {order} est partie. Elle arrive demain avant midi, merci !": 25,
    "Votre code de connexion est {code}. Ne le donnez à personne.": 35,
    "Rappel : {name}, nous vous attendons jeudi à {hour} h. Pour changer d'heure, répondez ici.": 8,
    "{name}, -{hour} % sur tout le magasin ce week-end ! STOP au 36180": 7,
}
_STATES = {"delivered": 93, "failed": 5, "sent": 2}
_ERRORS = ("NETWORK_ERROR", "INVALID_NUMBER", "NO_CREDIT", "TIMEOUT")

_GROUP = 400
#: Of so many messages one is remembered, to be asked for by its id, its number, its order.
_REMEMBER_ONE_IN = 250
_FIRST_ORDER = 1_200_000


@dataclass(frozen=True, slots=True)
class Message:
    """One SMS and how it ended. Times are microseconds."""

    id: str
    to: str
    text: str
    device_id: str
    state: str
    sent_at: int
    ended_at: int
    order: str | None


class Traffic:
    """Makes messages, always the same ones for the same calls."""

    def __init__(self) -> None:
        self.random = random.Random(1)
        #: How many messages there are by `state`, `device`, `day`, `name` and so on.
        self.tally: Counter[tuple[str, ...]] = Counter()
        self.made = 0
        #: Some of the messages.
        self.remembered: list[Message] = []

    def messages(self, count: int, since: int, until: int) -> list[Message]:
        """Messages that are sent between two times, the earliest first."""
        # Each number gets about five messages, and one that is added later gets a new number.
        numbers = range(self.made // 5, max(self.made + count, 5) // 5 + 1)
        texts = self.random.choices(list(_TEXTS), list(_TEXTS.values()), k=count)
        states = self.random.choices(list(_STATES), list(_STATES.values()), k=count)
        moments = sorted(self.random.randrange(since, until) for _ in range(count))
        return [
            self._message(text, state, moment, numbers)
            for text, state, moment in zip(texts, states, moments, strict=True)
        ]

    def _message(self, text: str, state: str, moment: int, numbers: range) -> Message:
        number = self.random.choice(numbers) * 7_654_321 % 10**8
        name = self.random.choice(NAMES)
        order = f"CMD-{_FIRST_ORDER + self.made}" if "{order}" in text else None
        sent_at = moment - moment % times.SECOND
        message = Message(
            id=self.id("msg"),
            to=OWN_NUMBER if self.random.random() < 0.01 else f"+337{number:08}",
            text=text.format(
                name=name,
                order=order,
                code=f"{self.random.randrange(10**6):06}",
                hour=self.random.randrange(9, 19),
            ),
            device_id=self.random.choice(DEVICES),
            state=state,
            sent_at=sent_at,
            ended_at=sent_at + self.random.randrange(2, 30) * times.SECOND,
            order=order,
        )
        if self.made % _REMEMBER_ONE_IN == 0:
            self.remembered.append(message)
        self.made += 1
        day = times.iso(sent_at)[:10]
        self.tally.update(
            [
                ("state", state),
                ("device", message.device_id),
                ("state and device", state, message.device_id),
                ("to", message.to),
                ("day", day),
                ("day and device", day, message.device_id),
                ("day and state", day, state),
            ]
        )
        if "{name}" in text:
            self.tally["name", name] += 1
        if WORD in text:
            self.tally["word", WORD] += 1
        return message

    def id(self, kind: str) -> str:
        """An id like the provider's: no order is in it, so an index gets it anywhere."""
        return f"{kind}_{''.join(self.random.choices(_ID_CHARACTERS, k=16))}"

    def events(self, messages: Sequence[Message]) -> list[Incoming]:
        """What ZimSend reports of these messages, parsed, in the order of arrival."""
        arrivals = []
        for message in messages:
            arrivals.append((message.sent_at, self._body("sms.sent", message, message.sent_at)))
            if message.state != "sent":
                body = self._body(f"sms.{message.state}", message, message.ended_at)
                arrivals.append((message.ended_at, body))
        arrivals.sort()
        return [
            parse(body, received_at=moment + times.SECOND, retention=RETENTION)
            for moment, body in arrivals
        ]

    def _body(self, event_type: str, message: Message, moment: int) -> bytes:
        data = SAMPLES[event_type](message.id, message.to, moment)
        data["message"] = message.text
        data["device_id"] = message.device_id
        data["metadata"] = {"order_id": message.order} if message.order else None
        if event_type == "sms.delivered":
            data["sent_at"] = times.iso(message.sent_at)
        if event_type == "sms.failed":
            code = self.random.choice(_ERRORS)
            data["error"] = {"code": code, "message": code.replace("_", " ").capitalize()}
        envelope = {
            "event": event_type,
            "event_id": self.id("evt"),
            "timestamp": times.iso(moment),
            "data": data,
        }
        return json.dumps(envelope, ensure_ascii=False).encode()


_ID_CHARACTERS = string.ascii_lowercase + string.digits


def no_handlers(event_type: str) -> Sequence[str]:
    return ()


def fill(
    database: Path,
    traffic: Traffic,
    count: int,
    *,
    since: int,
    until: int,
    days: int = 90,
) -> None:
    """Add messages, spread evenly over a period, and make their texts searchable.

    :param days: the number of parts in which they come, each in the order of time.
    """
    store = SqliteStore(str(database))
    store.migrate()
    began = time.monotonic()
    with _hurried(store):
        for day in range(days):
            start, end = (since + (until - since) * part // days for part in (day, day + 1))
            share = count * (day + 1) // days - count * day // days
            events = traffic.events(traffic.messages(share, start, end))
            for group in groups(events, _GROUP):
                store.ingest(group, no_handlers, 5.0)
            if (day + 1) % 15 == 0:
                done = count * (day + 1) // days
                _say(f"{done:,} of {count:,} messages after {time.monotonic() - began:,.0f} s")
        index(store)
    # What the disk has not got yet would be written while something is measured.
    with database.open("rb+") as file:
        os.fsync(file.fileno())
    _say(
        f"filled and indexed after {time.monotonic() - began:,.0f} s: {megabytes(database):,.0f} MB"
    )


def index(store: Store) -> None:
    """Make all texts searchable, as the service's upkeep does."""
    while store.index_texts(5.0):
        pass


@contextmanager
def _hurried(store: SqliteStore) -> Iterator[None]:
    """Nothing is synced and much is cached; a crash costs no more than filling once more."""
    with store._transaction():
        pass  # connects
    assert store._writer is not None
    store._writer.execute("PRAGMA synchronous = OFF")
    store._writer.execute("PRAGMA cache_size = -262144")
    try:
        yield
    finally:
        store.close()  # the next connection has the store's own settings


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def groups(events: Sequence[Incoming], size: int) -> Iterator[Sequence[Incoming]]:
    for start in range(0, len(events), size):
        yield events[start : start + size]


def megabytes(database: Path) -> float:
    """The size of the file, with what is still beside it in the write-ahead log."""
    log = database.with_name(database.name + "-wal")
    return sum(path.stat().st_size for path in (database, log) if path.exists()) / 1e6


def client(database: Path) -> FlaskClient:
    """Asks the service's own `/v1`, inside this process: no network, and no background threads."""
    environ = {
        "ZIMSEND_WEBHOOK_SECRET": SECRET,
        "ZIMSEND_API_KEY": "zs_test_benchmark",
        "ZIMSEND_API_URL": "http://127.0.0.1:9/v1",  # nobody is there
        "ZIMSEND_CLIENT_ID": "client_benchmark",
        "DATABASE_URL": f"sqlite:///{database}",
        "HANDLERS": "benchmarks.handlers",
        "EMBEDDED_WORKER": "0",
    }
    asking = create_app(environ).test_client()
    asking.environ_base["HTTP_X_API_KEY"] = environ["ZIMSEND_API_KEY"]
    asking.environ_base["HTTP_X_CLIENT_ID"] = environ["ZIMSEND_CLIENT_ID"]
    return asking
