"""The known mistakes, and what is done about each."""

from __future__ import annotations

from typing import NamedTuple

from receiver.calling import call
from receiver.providers.zimsend.webhook import SIGNATURE


class Cause(NamedTuple):
    """Why a signature does not fit.

    :param name: for programs.
    :param told: a phrase that holds nothing of secrets, signature and body.
    :param advice: what to do, in one sentence.
    """

    name: str
    told: str
    advice: str


_LOOK = "compare the body with the one that ZimSend sent, and the webhook's secret with the one set"
_SECRET = "give the same secret to both sides: the bytes of ZIMSEND_WEBHOOK_SECRET as they are"
_SENDER = "let the sender put the 64 hexadecimal digits of HMAC-SHA256 over the exact body there"
_KEEP = "let what stands between the sender and this service pass the body on byte for byte"

FITS = Cause("fits", "the signature fits", "nothing: such a request is accepted")
NO_HEADER = Cause("no-header", f"there is no header {SIGNATURE}", _SENDER)
OTHER_HEADER = Cause(
    "other-header", "the signature is right, but in another header", f"send it as {SIGNATURE}"
)
SEVERAL = Cause(
    "several-headers", f"several headers {SIGNATURE} differ", "let only the sender set this header"
)
NOT_HEX = Cause("not-hex", "the signature is not 64 hexadecimal digits", _SENDER)
BASE64 = Cause("base64", "the signature is in base64, not in hexadecimal digits", _SENDER)
DOUBLE = Cause("encoded-twice", "the signature was encoded twice", _SENDER)
PREFIX = Cause(
    "prefix",
    "the signature is right, but there is more around it than `sha256=`",
    "let the sender leave out what stands around the 64 hexadecimal digits",
)
CUT = Cause("cut", "only a part of the signature came", "let the header through whole")
NOT_KEYED = Cause("not-hmac", "it is a plain SHA-256 hash, and no HMAC", _SENDER)
EXCHANGED = Cause("exchanged", "it is signed with body and secret exchanged", _SENDER)

IN_BLANKS = Cause(
    "secret-in-blanks",
    "the secret that is set has blanks around it",
    "remove them from ZIMSEND_WEBHOOK_SECRET, and restart",
)
IN_QUOTES = Cause(
    "secret-in-quotes",
    "the secret that is set has quotes around it",
    "remove them from ZIMSEND_WEBHOOK_SECRET, and restart",
)
WITHOUT_PREFIX = Cause(
    "secret-without-whsec", "signed with the secret without its `whsec_`", _SECRET
)
WITH_PREFIX = Cause("secret-with-whsec", "signed with `whsec_` in front of the secret", _SECRET)
WITH_LINE_END = Cause(
    "secret-with-line-end",
    "signed with the secret and a line's end",
    "let the sender remove the line's end from its secret",
)
WITH_BLANK = Cause(
    "secret-with-blank",
    "signed with the secret and a blank",
    "let the sender remove the blank from its secret",
)
SIGNED_IN_QUOTES = Cause(
    "secret-signed-in-quotes",
    "signed with the secret in quotes",
    "let the sender remove the quotes from its secret",
)
DECODED_BASE64 = Cause(
    "secret-decoded-base64", "signed with the secret decoded from base64", _SECRET
)
DECODED_HEX = Cause(
    "secret-decoded-hex", "signed with the secret decoded from hexadecimal digits", _SECRET
)
ENCODED_BASE64 = Cause("secret-encoded-base64", "signed with the secret in base64", _SECRET)
ENCODED_HEX = Cause("secret-encoded-hex", "signed with the secret in hexadecimal digits", _SECRET)
OTHER_CASE = Cause(
    "secret-other-case", "signed with the secret in upper or lower case letters", _SECRET
)
WHOLE_LIST = Cause(
    "secret-list",
    "signed with the whole list of secrets that is set, as if it were one",
    "write a comma inside a secret as %2C in ZIMSEND_WEBHOOK_SECRET, and restart",
)
CUT_SECRET = Cause(
    "secret-comma",
    "signed with the secret with %2C instead of its commas",
    "let the sender take the secret itself, and not as ZIMSEND_WEBHOOK_SECRET has it",
)

LINE_END = Cause("line-end", "the body was changed on its way: a line's end at its end", _KEEP)
LINE_ENDS = Cause("line-ends", "the body was changed on its way: its line ends", _KEEP)
BLANKS = Cause("blanks", "the body was changed on its way: blanks around it", _KEEP)
BYTE_ORDER_MARK = Cause(
    "byte-order-mark", "the body was changed on its way: a byte order mark", _KEEP
)
CHARSET = Cause("charset", "the body was changed on its way: its character set", _KEEP)
NORMALISED = Cause(
    "normalised", "the body was changed on its way: accents were composed or taken apart", _KEEP
)
COMPRESSED = Cause(
    "compressed",
    "it was signed before the body was compressed, or after",
    "sign and send the body as it is, uncompressed, without Content-Encoding",
)
FORM = Cause(
    "form", "the body was changed on its way: it was encoded as a form, or decoded from one", _KEEP
)
ENCODED_BODY = Cause(
    "body-base64", "the body was changed on its way: it was put in base64, or decoded", _KEEP
)
STRING = Cause("json-string", "the JSON was put in a string, as JSON once more", _KEEP)
PART = Cause("part", "signed over a part of the body alone", _SENDER)
ESCAPES = Cause(
    "escapes", "the body was changed on its way: characters of its JSON were escaped anew", _KEEP
)
WRITTEN_ANEW = Cause(
    "written-again",
    "the body was changed on its way: its JSON was read and written again",
    "sign and send the same bytes, and let what stands in between pass them on as they are",
)
TIMESTAMP = Cause(
    "timestamp", "a time is signed in front of the body", "sign the body alone, as ZimSend does"
)
LOST = Cause("lost", "the body was lost on its way", "let the body through, also over redirects")

UNKNOWN = Cause("other-secret", "well formed, but fits no secret that is set", _LOOK)


def other_algorithm(name: str) -> Cause:
    """Signed with another hash."""
    return Cause("other-hash", f"it is signed with {name.upper()}, not with SHA-256", _SENDER)


def other_setting(name: str) -> Cause:
    """Signed with what is there for something else."""
    return Cause("other-setting", f"signed with what {name} holds", _SECRET)


def too_large(limit: int) -> Cause:
    """Nobody looks for what is wrong with it."""
    return Cause(
        "too-large",
        f"{UNKNOWN.told}; bodies over {limit} bytes are not looked at",
        f"give the body to `{call('doctor')}`",
    )
