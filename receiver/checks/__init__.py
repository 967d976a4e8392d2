"""Everything that can be wrong with a service, looked at before it is: for `flask doctor`.

Each check has a thread of its own and a limit of time, so that a network that hangs, or a database,
holds up nobody. Nothing is changed by them.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence

from receiver.checks import here, network
from receiver.checks.found import Check, Finding
from receiver.errors import ReceiverError, StoreUnavailable
from receiver.parts import Receiver

#: Seconds that all checks may take, which run beside each other.
LIMIT = 15.0

#: What a check has found; or that it could not look.
_Answer = queue.SimpleQueue[list[Finding] | StoreUnavailable]


def look(
    receiver: Receiver, checks: Sequence[tuple[str, Check]] | None = None, limit: float = LIMIT
) -> Iterator[Finding]:
    """All findings, in the order of the checks.

    :param limit: seconds for all of it.
    """
    checks = checks_of(receiver) if checks is None else checks
    ends = time.monotonic() + limit
    answers: list[_Answer] = []
    for name, check in checks:
        answer: _Answer = queue.SimpleQueue()
        answers.append(answer)
        threading.Thread(
            target=lambda n=name, c=check, a=answer: a.put(_findings(n, c, receiver)),
            name=f"check {name}",
            daemon=True,
        ).start()
    away = False
    for (name, _), answer in zip(checks, answers, strict=True):
        try:
            found = answer.get(timeout=max(0.0, ends - time.monotonic()))
            if not isinstance(found, StoreUnavailable):
                yield from found
            elif away:  # that is one problem, and told once
                told = "not looked at: the database cannot be used"
                yield Finding(name, "warning", told, "see above")
            else:
                away = True
                yield Finding(name, "wrong", str(found), _advice(found))
        except queue.Empty:
            yield Finding(
                name,
                "wrong",
                f"nobody knows: it took longer than {limit:.0f} s",
                "see whether the network or the database hangs",
            )


def _findings(name: str, check: Check, receiver: Receiver) -> list[Finding] | StoreUnavailable:
    try:
        return [Finding(name, *found) for found in check(receiver)]
    except StoreUnavailable as error:
        return error
    except ReceiverError as error:
        return [Finding(name, "wrong", str(error), _advice(error))]
    except Exception as error:  # its words may hold what was read
        told = f"it cannot be looked at, by a defect: {type(error).__name__}"
        return [Finding(name, "wrong", told, "report this")]


def _advice(error: ReceiverError) -> str:
    if type(error) is StoreUnavailable:  # its words are the database's own
        return "see whether the database runs, and whether DATABASE_URL leads to it"
    return "do what it says, and look again"


def checks_of(receiver: Receiver) -> list[tuple[str, Check]]:
    """Those that this service's settings make sense for."""
    checks: list[tuple[str, Check]] = [
        ("settings", here.settings),
        ("database", here.database),
        ("disk", here.disk),
        ("clock", here.clock),
        ("public address", network.public_address),
    ]
    for name in sorted({*receiver.senders, *receiver.reconciliations}):
        checks.append((f"account {name}", network.account(name)))
        checks.append((f"clock of {name}", network.clock_of(name)))
    if "zimsend" in receiver.senders:
        checks.append(("webhook", network.webhook))
    return [*checks, ("handlers", here.handlers), ("refusals", here.refusals)]
