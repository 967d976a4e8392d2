"""A simulated sipgate: SMS that go out, and a history that tells of them. No clock, no network.

It reports nothing by itself and says of no SMS which one it is, so what it is bad at is its
history: entries come late, are archived, tell numbers in the national form, or not whose they are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from receiver.providers.simulating.world import SimulatedWorld, Weather
from receiver.times import MINUTE, SECOND, iso

#: Numbers of this country may be told in their national form.
_COUNTRY = "+49"


@dataclass(frozen=True, slots=True)
class Habits:
    """How its history is. Shares are from 0 to 1.

    :param late: entries that come up to `lag` after the SMS went.
    :param lag: microseconds.
    :param archived: entries that are archived some minutes later.
    :param national: entries that tell the number in its national form.
    :param twice: answers that hold an entry twice.
    :param silent: entries without their text.
    :param behind: how much its clock is behind; microseconds.
    :param in_app: SMS that are written in the app to the same number, for each that came through
        the API; and the share of these that have the same text.
    """

    late: float = 0.0
    lag: int = 20 * MINUTE
    archived: float = 0.0
    national: float = 0.0
    twice: float = 0.0
    silent: float = 0.0
    behind: int = 0
    in_app: float = 0.0
    same_text: float = 0.5


@dataclass(slots=True)
class SimulatedSms:
    """One SMS, as it really is. Times are microseconds.

    :param source: `api` or `app`.
    :param answer_lost: it was sent, and who asked for it did not hear so.
    :param created: the time of its entry, by sipgate's clock.
    :param listed_at: from when on the history has it.
    """

    id: str
    number: int
    source: str
    sms_id: str
    to: str
    text: str
    asked_at: int
    send_at: int | None
    answer_lost: bool
    created: int
    listed_at: int
    tells_schedule: bool
    archived: bool = False
    deleted: bool = False

    @property
    def goes_at(self) -> int:
        return self.asked_at if self.send_at is None else self.send_at


class World(SimulatedWorld):
    """What happens at sipgate.

    :param balance: SMS that can still be paid; `None`: as many as one likes.
    """

    def __init__(
        self,
        *,
        began: int,
        seed: int,
        weather: Weather | None = None,
        habits: Habits | None = None,
        extensions: Collection[str] = ("s0", "s1"),
        balance: int | None = None,
        history_life_time: str = "THIRTY_DAYS",
    ) -> None:
        super().__init__(began=began, seed=seed, weather=weather, tries=(0,))
        self.habits = habits or Habits()
        self.extensions = tuple(extensions)
        self.balance = balance
        self.history_life_time = history_life_time
        self.sent: dict[str, SimulatedSms] = {}
        #: Requests to send that came through the API, with those that were lost on the way.
        self.requests = 0

    # --- what happens

    def loses_request(self) -> bool:
        """Whether the next request to send never arrives (`Weather.drop`)."""
        self.requests += 1
        return self.chance("request", self.requests).random() < self.weather.drop

    def send(
        self, sms_id: str, to: str, text: str, send_at: int | None = None, *, source: str = "api"
    ) -> SimulatedSms:
        """An SMS is taken. Who asked hears so, unless `answer_lost`.

        :param to: E.164.
        :param send_at: microseconds.
        """
        number = len(self.sent)
        chance, habits = self.chance("sms", number), self.habits
        by_request, before = chance.random() < 0.5, chance.random() < 0.5
        goes_at = self.now if send_at is None else send_at
        made_at = self.now if by_request else goes_at
        lag = int(chance.uniform(0, habits.lag)) if chance.random() < habits.late else 0
        sms = SimulatedSms(
            id=str(5_005_443_120 + 7 * number),
            number=number,
            source=source,
            sms_id=sms_id,
            to=to,
            text=text,
            asked_at=self.now,
            send_at=send_at,
            answer_lost=source == "api" and chance.random() < self.weather.lost_answers,
            created=made_at - habits.behind,
            listed_at=(self.now if before else goes_at) + lag,
            tells_schedule=send_at is not None and (by_request or chance.random() < 0.5),
        )
        self.sent[sms.id] = sms
        # So that it is not over before the history tells it.
        self.plan(max(sms.listed_at, goes_at), lambda: None)
        if chance.random() < habits.archived:
            self.plan(self.now + int(chance.uniform(0, 9) * MINUTE), lambda: _archive(sms))
        if source == "api" and chance.random() < habits.in_app:
            other = text if chance.random() < habits.same_text else f"{text} (app)"
            wait = int(chance.uniform(0, 90) * SECOND)
            self.plan(self.now + wait, lambda: _ignore(self.send(sms_id, to, other, source="app")))
        return sms

    def campaign(self, count: int, rate: float, sms_id: str = "s0") -> None:
        """Plan SMS that are written in the app.

        :param rate: SMS a second.
        """
        self.plan_campaign(
            count, rate, lambda to, text, number: self.send(sms_id, to, text, source="app")
        )

    # --- what the history tells

    def entries(self) -> list[SimulatedSms]:
        """What is in the history now, newest first."""
        if self.history_life_time == "NONE":
            return []
        listed = [s for s in self.sent.values() if s.listed_at <= self.now and not s.deleted]
        return sorted(listed, key=lambda sms: (-sms.created, -sms.number))

    def find(self, entry_id: str) -> SimulatedSms | None:
        sms = self.sent.get(entry_id)
        if sms is None or sms.deleted or sms.listed_at > self.now:
            return None
        return sms

    def view(self, sms: SimulatedSms) -> dict[str, Any]:
        """The entry of an SMS."""
        chance = self.chance("entry", sms.number)
        target = sms.to
        if chance.random() < self.habits.national and target.startswith(_COUNTRY):
            digits = target.removeprefix(_COUNTRY)
            target = f"0{digits[:4]}-{digits[4:]}"
        silent = chance.random() < self.habits.silent
        millis = chance.random() < 0.5
        created = sms.created - sms.created % (1_000 if millis else SECOND)
        entry = {
            "id": sms.id,
            "type": "SMS",
            "direction": "OUTGOING",
            "incoming": chance.random() < 0.5,
            "source": "+4915799000001",
            "target": target,
            "sourceAlias": "SMS",
            "targetAlias": "",
            "created": iso(created),
            "lastModified": iso(created),
            "status": chance.choice(["PICKUP", "NOPICKUP", "BUSY"]),
            "connectionIds": [sms.sms_id],
            "read": True,
            "archived": sms.archived,
            "note": None,
            "endpoints": [],
            "starred": False,
            "labels": [],
            "smsContent": sms.text,
            "scheduled": iso(sms.send_at) if sms.send_at and sms.tells_schedule else None,
        }
        if silent:
            del entry["smsContent"]
        return entry

    def page(self, found: Sequence[SimulatedSms], offset: int, limit: int) -> dict[str, Any]:
        """A part of the history."""
        rows = [self.view(sms) for sms in found[offset : offset + limit]]
        if rows and self.chance("page", self.now, offset).random() < self.habits.twice:
            rows.append(rows[0])
        return {"items": rows, "totalCount": len(found)}

    # --- the truth

    def states(self) -> Iterable[str]:
        return ("sent" if s.goes_at <= self.now else "scheduled" for s in self.sent.values())

    def report(self) -> Iterator[str]:
        """Nothing of events: it has none."""
        messages, _ = super().report()
        yield messages
        yield f"{self.requests} requests to send"

    def truth(self) -> Mapping[str, Any]:
        return {
            **super().truth(),
            "messages": [
                {
                    "id": sms.id,
                    "source": sms.source,
                    "sms_id": sms.sms_id,
                    "to": sms.to,
                    "text": sms.text,
                    "asked_at": iso(sms.asked_at),
                    "sent_at": iso(sms.goes_at) if sms.goes_at <= self.now else None,
                    "answer_lost": sms.answer_lost,
                    "listed": self.find(sms.id) is not None,
                    "archived": sms.archived,
                }
                for sms in self.sent.values()
            ],
        }


def _archive(sms: SimulatedSms) -> None:
    sms.archived = True


def _ignore(_: object) -> None:
    pass
