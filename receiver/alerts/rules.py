"""What is told, when, and in which words. Pure: what was seen goes in, messages come out.

Times are microseconds.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from receiver.calling import as_called
from receiver.readiness import OLDEST
from receiver.times import DAY, HOUR, MINUTE, SECOND, iso
from receiver.visible import visible

#: After so long without another bad look it has ended; while it lasts it is told again so often.
ENDS_AFTER = MINUTE
AGAIN_AFTER = DAY

#: Reports that came back by asking are told of for so long after the last of them.
MISSED_FOR = 30 * MINUTE
#: So many refused signatures within so long are a burst.
BURST, BURST_WITHIN = 10, 5 * MINUTE
#: Asking an account has failed for too long.
FAILING_FOR = 30 * MINUTE
#: Free space of the database's disk, of all that there is.
LEAST_ROOM = 0.10
#: What a message names one by one.
_MOST_NAMED = 10
#: Characters of what others have called something.
_LONGEST_NAME = 200
_NUMBER = re.compile(r"\d(?:[ .()-]?\d){5,}")

REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look has found. `None` is what could not be found out: neither good nor bad.

    :param missed: reports that had to be fetched so far, by the provider's name.
    :param dead: dead work by handler.
    :param stuck: handlers.
    :param oldest: for how long the oldest work that is due has waited.
    :param refused: signatures refused so far, in all processes.
    :param silent: phones that are silent longer than usual, and when each was last heard of.
    :param failing: why the last attempt to ask a provider failed, by its name.
    :param room: which part of the database's disk is free.
    """

    missed: Mapping[str, int] | None = None
    dead: Mapping[str, int] | None = None
    stuck: Collection[str] | None = None
    oldest: int | None = None
    refused: int | None = None
    silent: Mapping[str, int] | None = None
    failing: Mapping[str, str] | None = None
    room: float | None = None


@dataclass(slots=True)
class Count:
    """A number that grows: what it was at the last look, and when it grew by how much."""

    total: int
    steps: list[tuple[int, int]] = field(default_factory=list)


@dataclass(slots=True)
class Trouble:
    """What is wrong with one subject of a rule.

    :param since, seen: the first bad look, and the last one.
    :param told: when it was last told; `None` if not yet.
    """

    since: int
    seen: int
    fact: str
    told: int | None = None


#: By the name of a rule and its subject (a handler, a phone, a provider, or nothing).
Key = tuple[str, str]


@dataclass(slots=True)
class State:
    """What one look leaves to the next, of whichever process."""

    counts: dict[str, Count] = field(default_factory=dict)
    troubles: dict[Key, Trouble] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(
            {
                "counts": {name: dataclasses.astuple(c) for name, c in self.counts.items()},
                "troubles": [[*key, *dataclasses.astuple(t)] for key, t in self.troubles.items()],
            }
        )

    @classmethod
    def from_json(cls, text: str | None) -> State:
        """What was written down; nothing, where that is another release's."""
        try:
            told = json.loads(text or "{}")
            return cls(
                {
                    name: Count(total, [(at, by) for at, by in steps])
                    for name, (total, steps) in told.get("counts", {}).items()
                },
                {(rule, subject): Trouble(*of) for rule, subject, *of in told.get("troubles", [])},
            )
        except (ValueError, TypeError, AttributeError):
            return cls()


@dataclass(frozen=True, slots=True)
class Message:
    """:param bad: something has begun, or goes on; else it has ended."""

    title: str
    text: str
    bad: bool


#: What is wrong, a sentence by subject; `None` if nobody knows.
Found = Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class Rule:
    """
    :param title: what is wrong, in a few words.
    :param look: at what was seen, and at what has been counted.
    :param todo: what whoever reads it does next.
    :param opens_after: for how long it must have been bad.
    """

    name: str
    title: str
    look: Callable[[Seen, State, int], Found]
    todo: str
    opens_after: int = 0


# --- the rules


def _missed(seen: Seen, state: State, now: int) -> Found:
    if seen.missed is None:
        return None
    return {
        name: f"{grown} reports of {name}'s had not come by webhook, and were fetched"
        for name in seen.missed
        if (grown := _grown(state, f"missed/{name}", now, MISSED_FOR))
    }


def _dead(seen: Seen, state: State, now: int) -> Found:
    if seen.dead is None:
        return None
    return {
        name: f"{count} work items of the handler {_shown(name)} were given up"
        for name, count in seen.dead.items()
        if count
    }


def _stuck(seen: Seen, state: State, now: int) -> Found:
    if seen.stuck is None:
        return None
    return {
        name: f"all calls of the handler {_shown(name)} are past their time-out, and none has ended"
        for name in seen.stuck
    }


def _backlog(seen: Seen, state: State, now: int) -> Found:
    if seen.oldest is None:
        return None
    waited = f"the oldest work that is due has waited for {seen.oldest // MINUTE} minutes"
    return {"": waited} if seen.oldest > OLDEST else {}


def _refused(seen: Seen, state: State, now: int) -> Found:
    if seen.refused is None:
        return None
    grown = _grown(state, REFUSED, now, BURST_WITHIN)
    told = f"{grown} webhooks were refused for their signature (401) within 5 minutes"
    return {"": told} if grown >= BURST else {}


def _silent(seen: Seen, state: State, now: int) -> Found:
    if seen.silent is None:
        return None
    return {
        phone: f"the phone {_shown(phone)} was last heard of at {iso(at - at % SECOND)}, "
        f"{(now - at) // HOUR} hours ago; in the same hours of earlier days it has sent SMS"
        for phone, at in seen.silent.items()
    }


def _failing(seen: Seen, state: State, now: int) -> Found:
    if seen.failing is None:
        return None
    return {
        name: f"{name} could not be asked what was missed: {_shown(problem)}"
        for name, problem in seen.failing.items()
    }


def _room(seen: Seen, state: State, now: int) -> Found:
    if seen.room is None:
        return None
    told = f"{seen.room:.1%} of the disk that holds the database are free"
    return {"": told} if seen.room < LEAST_ROOM else {}


RULES = (
    Rule(
        "missed",
        "reports were missed",
        _missed,
        "They are stored, and your handlers got them. See that the provider reaches this service: "
        "its address, its certificate, its log of webhooks; `flask webhooks test` tries it.",
    ),
    Rule(
        "dead",
        "work was given up",
        _dead,
        "`flask events list --state dead` shows it, and `flask events show ID` the error. Correct "
        "the reason, restart, and run `flask replay --failed`.",
    ),
    Rule(
        "stuck",
        "a handler is stuck",
        _stuck,
        "Restart the service, and give what the handler calls a time-out of its own.",
    ),
    Rule(
        "backlog",
        "work waits too long",
        _backlog,
        "`flask handlers` shows which work. See that something runs the handlers (`flask work`, "
        "where EMBEDDED_WORKER=0), and how long a call takes: `concurrency` and more workers help.",
    ),
    Rule(
        REFUSED,
        "webhooks are refused",
        _refused,
        "The log says the likely cause. If the webhook's secret was changed at the provider, put "
        "it into ZIMSEND_WEBHOOK_SECRET, and restart.",
    ),
    Rule(
        "silent",
        "a phone is silent longer than usual",
        _silent,
        "See that it has power, network and credit, and that the provider's app runs. A phone that "
        "stays silent for 4 weeks is not looked after any more.",
    ),
    Rule(
        "failing",
        "a provider cannot be asked",
        _failing,
        "What its webhooks do not bring stays missing meanwhile. Check the key, and that this "
        "machine reaches the provider; `flask reconcile` tries it now.",
        opens_after=FAILING_FOR,
    ),
    Rule(
        "room",
        "the disk is nearly full",
        _room,
        "Make room, or give the volume more. A full disk answers 503 to every webhook. "
        "RETENTION_DAYS says how much is kept.",
    ),
)
_BY_NAME = {rule.name: rule for rule in RULES}


# --- what is told


def judge(seen: Seen, state: State, now: int) -> tuple[list[Message], State]:
    """What is to be told after a look, and what the next look goes on from."""
    after = State(_counted(seen, state, now), {})
    new: dict[str, list[str]] = {}
    again: dict[str, list[str]] = {}
    ended: dict[str, list[str]] = {}
    for rule in RULES:
        found = rule.look(seen, after, now)
        before = {key: t for key, t in state.troubles.items() if key[0] == rule.name}
        if found is None:
            after.troubles |= before
            continue
        for subject, fact in found.items():
            key = rule.name, subject
            old = before.pop(key, None)
            # What lies ahead was written by a clock that was wrong.
            trouble = Trouble(
                min(old.since, now) if old else now, now, fact, old.told if old else None
            )
            if trouble.told is not None and trouble.told > now:
                trouble.told = now
            if trouble.told is None:
                if now - trouble.since >= rule.opens_after:
                    new.setdefault(rule.name, []).append(fact)
                    trouble.told = now
            elif now - trouble.told >= AGAIN_AFTER:
                again.setdefault(rule.name, []).append(fact)
                trouble.told = now
            after.troubles[key] = trouble
        for key, old in before.items():
            if now - min(old.seen, now) < ENDS_AFTER:
                after.troubles[key] = dataclasses.replace(old, seen=min(old.seen, now))
            elif old.told is not None:
                ended.setdefault(rule.name, []).append(old.fact)
    return [*_messages("", new), *_messages("Still: ", again), *_messages("Over: ", ended)], after


def _messages(prefix: str, facts: Mapping[str, list[str]]) -> Iterator[Message]:
    """One for each rule, whatever the number of its subjects."""
    bad = not prefix.startswith("Over")
    for name, told in facts.items():
        rule = _BY_NAME[name]
        lines = [f"{fact[0].upper()}{fact[1:]}." for fact in told[:_MOST_NAMED]]
        if len(told) > _MOST_NAMED:
            lines.append(f"And {len(told) - _MOST_NAMED} more of them.")
        over = "This was so until a minute ago, and is not any more."
        lines.append(as_called(rule.todo) if bad else over)
        title = f"{prefix}{rule.title}"
        yield Message(title[0].upper() + title[1:], "\n".join(lines), bad)


def _counted(seen: Seen, state: State, now: int) -> dict[str, Count]:
    """The counts after this look. The first one only says where they begin."""
    totals = {f"missed/{name}": total for name, total in (seen.missed or {}).items()}
    if seen.refused is not None:
        totals[REFUSED] = seen.refused
    after = dict(state.counts)
    for name, total in totals.items():
        old = state.counts.get(name)
        if old is None:
            after[name] = Count(total)
            continue
        window = BURST_WITHIN if name == REFUSED else MISSED_FOR
        steps = [(at, by) for at, by in old.steps if now - window < at <= now]
        if total > old.total:
            steps.append((now, total - old.total))
        after[name] = Count(total, steps)
    return after


def _grown(state: State, name: str, now: int, within: int) -> int:
    count = state.counts.get(name)
    return sum(by for at, by in count.steps if now - within < at <= now) if count else 0


def _shown(text: str) -> str:
    """Others' words: on one line, not without end, and without whole phone numbers."""
    short = text[:_LONGEST_NAME]
    return visible(_NUMBER.sub(lambda found: _masked(found[0]), short))


def _masked(number: str) -> str:
    return number[:2] + "*" * (len(number) - 4) + number[-2:]
