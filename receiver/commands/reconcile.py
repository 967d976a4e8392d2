"""`flask reconcile`: ask the providers for the reports that did not arrive."""

from __future__ import annotations

import click

from receiver.commands.common import (
    MOMENT,
    command,
    echo,
    echo_columns,
    progress,
    shown,
    width_of_times,
)
from receiver.errors import ConfigError, ReceiverError
from receiver.parts import parts
from receiver.reconciliation import losses
from receiver.reconciliation.losses import KINDS, Loss
from receiver.reconciliation.passes import Pass, Reconciliation


@command()
@click.option(
    "--since", type=MOMENT, help="ask for everything since then (or a date, 90d, 24h, 15m ago)"
)
@click.option("--dry-run", is_flag=True, help="only say what would be learnt")
def reconcile(since: int | None, dry_run: bool) -> None:
    """Ask the providers for the reports that did not arrive.

    The service does so by itself, every 10 minutes. What is learnt reaches the handlers."""
    receiver = parts()
    if since is not None and since > receiver.now():
        raise click.BadParameter(f"{shown(since)} is in the future", param_hint=["--since"])
    asked = tuple(receiver.reconciliations.values())
    if not asked and receiver.polling is not None:
        echo(
            "sipgate reports nothing, so no report is missed: its history is asked every 5 minutes"
        )
        return
    if not asked:
        raise ConfigError(
            "ZIMSEND_API_KEY",
            "not set, nor ZIMSEND_CLIENT_ID, nor SMSCX_API_KEY: nobody can be asked",
        )
    problems = []
    for reconciliation in asked:
        if len(asked) > 1:
            echo(f"{reconciliation.account.title}:")
        try:
            _ask(reconciliation, since, dry_run)
        except ReceiverError as error:  # the others are asked all the same
            problems.append(str(error))
    if problems:
        raise ReceiverError("; ".join(problems))


def _ask(reconciliation: Reconciliation, since: int | None, dry_run: bool) -> None:
    account = reconciliation.account
    with progress() as show:
        made = reconciliation.run(
            since, dry_run=dry_run, progress=lambda so_far: show(_so_far(so_far))
        )
    _tell(made, dry_run, account.title)
    if made.problem is not None:
        raise ReceiverError(f"not all of it could be asked for: {made.problem} ({account.address})")


def _so_far(made: Pass) -> str:
    return f"{made.messages} messages seen, {len(made.learnt)} reports learnt, {made.calls} calls"


def _tell(made: Pass, dry_run: bool, title: str) -> None:
    gaps, width = made.gaps, width_of_times()
    if gaps:
        echo_columns(
            ("FROM", width), ("TO", width), ("MESSAGES", 8), *((k.upper(), 9) for k in KINDS)
        )
    for gap in gaps:
        echo_columns(
            (shown(gap.first), width),
            (shown(gap.last), width),
            (gap.messages, 8),
            *((gap.counts[kind], 9) for kind in KINDS),
        )
    whole = losses.total(gaps)
    if whole is not None or made.problem is None:
        echo(f"since {shown(made.since)}: {_told(whole, dry_run)}")
    if made.waiting:
        echo(
            f"{made.waiting} more changed so lately that {title} may still report them by itself; "
            "they are asked for again in 10 minutes"
        )


def _told(whole: Loss | None, dry_run: bool) -> str:
    if whole is None:
        return "nothing is missing"
    verb = "would be learnt" if dry_run else "had not arrived, and are learnt now"
    return f"{whole.told()} {verb}"
