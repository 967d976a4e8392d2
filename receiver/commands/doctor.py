"""`flask doctor`: what is wrong, and what to do; or why a signature does not fit."""

from __future__ import annotations

from pathlib import Path

import click

from receiver import checks
from receiver.checks.found import Finding
from receiver.commands.common import command, echo, echo_json, format_option
from receiver.config import SETTINGS, Config
from receiver.parts import parts
from receiver.providers.zimsend.diagnosis import causes, diagnose
from receiver.providers.zimsend.webhook import SIGNATURE

#: Bytes of a body that is looked at: all that a request can have, and more.
_LARGEST = 8 * 1024 * 1024


class _Header(click.ParamType[tuple[str, str]]):
    name = "NAME:VALUE"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        name, colon, text = value.partition(":")
        if not colon or not name.strip():
            self.fail(f"{value!r} is no header: write it like 'X-Timestamp: 1700000000'")
        return name.strip().lower(), text.strip()


@command()
@click.argument("bodyfile", type=click.Path(exists=True, path_type=Path), required=False)
@click.option("--signature", help=f"what {SIGNATURE} of the request was")
@click.option("--header", "headers", type=_Header(), multiple=True, help="another header of it")
@format_option
def doctor(
    bodyfile: Path | None,
    signature: str | None,
    headers: tuple[tuple[str, str], ...],
    style: str,
) -> None:
    """What is wrong with this service, and what to do; exit status 1 if something is.

    With the exact bytes of a request's body in BODYFILE: why its signature does not fit."""
    if bodyfile is None and (signature is not None or headers):
        raise click.UsageError("name the BODYFILE that was signed")
    if bodyfile is not None and signature is None and not headers:
        raise click.UsageError("give what was signed with: --signature S")
    found = (
        checks.look(parts())
        if bodyfile is None
        else [_of_signature(bodyfile, signature, dict(headers))]
    )
    wrong = 0
    for finding in found:
        wrong += finding.state == "wrong"
        _tell(finding, style)
    if wrong:
        raise click.ClickException("1 problem" if wrong == 1 else f"{wrong} problems")


def _tell(finding: Finding, style: str) -> None:
    if style == "jsonl":
        echo_json(finding._asdict())
        return
    state = finding.state.upper() if finding.state == "wrong" else finding.state
    advice = finding.advice[:1].upper() + finding.advice[1:]
    end = "" if not advice or finding.told.endswith("?") else "."
    told = " ".join(f"{finding.told}{end} {advice}".split())
    echo(f"{state:<8} {finding.check:<18} {told}")


def _of_signature(file: Path, signature: str | None, headers: dict[str, str]) -> Finding:
    config = parts().config
    if not config.webhook_secrets:
        raise click.ClickException("ZIMSEND_WEBHOOK_SECRET is not set: nothing is signed with it")
    with file.open("rb") as stream:
        body = stream.read(_LARGEST + 1)
    if len(body) > _LARGEST:
        raise click.BadParameter(f"it has more than {_LARGEST:,} bytes", param_hint=["BODYFILE"])
    if signature is not None:
        headers[SIGNATURE.lower()] = signature
    cause = diagnose(body, headers, config.webhook_secrets, _other_secrets(config), largest=None)
    if cause is causes.FITS:
        return Finding("signature", "ok", cause.told)
    return Finding(f"signature {cause.name}", "wrong", cause.told, cause.advice)


def _other_secrets(config: Config) -> dict[str, bytes]:
    """The secrets of everything else, by the names of their settings."""
    values = {s.name: getattr(config, s.field) for s in SETTINGS if s.secret}
    listed = {
        name: value if isinstance(value, tuple) else (value,)
        for name, value in values.items()
        if name != "ZIMSEND_WEBHOOK_SECRET"
    }
    return {name: one for name, several in listed.items() for one in several if _is_key(one)}


def _is_key(value: object) -> bool:
    return isinstance(value, bytes)
