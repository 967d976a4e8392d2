"""What happens to a request that brings events, without sockets, Flask or event loop.

The description is a generator. It stops where somebody else has work to do: it yields the items
that are to be stored and is sent what became of them, or yields `ELSEWHERE` before a computation
that would hold up an event loop. Two drivers run it: the event loop, which awaits the commit, and
an ordinary Flask route, which blocks for it (`blocking`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Generator, Sequence

from receiver import event
from receiver.config import Config
from receiver.errors import Refused, StoreUnavailable, Unusable
from receiver.event import Incoming, Rejected
from receiver.logs import Sparingly
from receiver.providers.zimsend.diagnosis import likely_cause
from receiver.providers.zimsend.webhook import PATH, parse, verify
from receiver.refusals import Refusals
from receiver.store import Outcome

log = logging.getLogger(__name__)

Item = Incoming | Rejected
#: Yields what is to be stored or `ELSEWHERE`, is sent the outcomes or `None`, and returns the JSON
#: of the 200. Raises what becomes any other answer.
Steps = Generator["Sequence[Item] | None", "Sequence[Outcome] | None", str]

#: The next step may take milliseconds of computing.
ELSEWHERE = None
#: Bytes of a body above which parsing it counts as such a step.
LARGE = 16_384


class Receiving:
    """The way of a request, for each provider that sends some.

    :param now: the wall clock, in microseconds.
    """

    def __init__(self, config: Config, now: Callable[[], int]) -> None:
        self._config = config
        self._now = now
        self._retries = Sparingly()
        self.refusals = Refusals(likely_cause, config.webhook_secrets, PATH)

    @property
    def largest_body(self) -> int:
        """Bytes; a larger body is answered 413."""
        return self._config.max_body_bytes

    def authenticate(self, body: bytes, claimed: str | None) -> None:
        """
        :param claimed: the signature's header as the server joined it, or `None`.
        :raises Refused: the same for a signature that is missing, malformed, or of another secret.
        """
        if not verify(self._config.webhook_secrets, body, claimed):
            raise Refused(401, "the signature is missing, or does not match the body")

    def receive(self, body: bytes, claimed: str | None) -> Steps:
        """Authenticate the raw bytes, parse them, let them be stored, and say so.

        :raises Refused, StoreUnavailable: where the answer is not 200.
        """
        self.authenticate(body, claimed)
        config, now = self._config, self._now()
        if len(body) > LARGE:
            yield ELSEWHERE
        item: Item
        try:
            item = parse(
                body, received_at=now, retention=config.retention, text_mode=config.text_mode
            )
        except Unusable as unusable:
            item = event.reject(body, unusable.reason, received_at=now, text_mode=config.text_mode)
        try:
            outcomes = yield (item,)
        except StoreUnavailable:
            raise
        except Exception:
            # Whatever is signed is kept, also where this program has a defect.
            log.exception("an event could not be stored and goes into quarantine")
            reason = "the store refused it; after an update, `flask quarantine retry` may take it"
            item = event.reject(body, reason, received_at=now, text_mode=config.text_mode)
            outcomes = yield (item,)
        assert outcomes is not None
        (outcome,) = outcomes
        if isinstance(item, Rejected):
            raise Refused(400, item.reason)
        if outcome == "quarantined":
            raise Refused(400, event.EXPIRED)
        if outcome == "duplicate":
            self._tell_of_a_retry(item.id)
        return f'{{"status": "{outcome}", "event_id": {json.dumps(item.id)}}}'

    def _tell_of_a_retry(self, event_id: str) -> None:
        """An event that comes again is one whose first answer ZimSend did not see in time."""
        held_back = self._retries.admit()
        if held_back is not None:
            log.warning(
                "event %s came again: ZimSend gives up after its third try%s",
                event_id,
                f" ({held_back} more came again since the last such line)" if held_back else "",
            )


def blocking(steps: Steps, store: Callable[[Sequence[Item]], Sequence[Outcome]]) -> str:
    """Run the description to its end in this thread.

    :param store: returns when the items are on the disk.
    """
    try:
        step = next(steps)
        while True:
            try:
                outcomes = None if step is ELSEWHERE else store(step)
            except Exception as error:
                step = steps.throw(error)
            else:
                step = steps.send(outcomes)
    except StopIteration as end:
        text: str = end.value
        return text
