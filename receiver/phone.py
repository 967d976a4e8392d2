"""Phone numbers as people type them: as which digits a number may stand in the mirror. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from receiver import mirror

#: A longer text is no phone number (E.164 has 15 digits).
_LONGEST = 64

#: The one zero with which most countries write their own numbers.
_TRUNK = re.compile(r"[^+\uff0b0-9]*0(?!0)")


def forms(text: str, country: str | None) -> tuple[str, ...]:
    """The forms under which a searched number may be stored, each as `mirror.number` makes it.

    :param country: whose numbers are written without their country; two letters.
    """
    typed = mirror.number(text)
    found = [typed] if typed else []
    if typed.isdigit() and len(text) <= _LONGEST:
        found += _international(mirror.ascii_digits(text), typed, country)
    return tuple(dict.fromkeys(found))


def _international(text: str, typed: str, country: str | None) -> list[str]:
    import phonenumbers  # takes a while, and only a search by number needs it

    # With a zero for the trunk behind the country, as in +33 (0)6, or without its plus.
    for asked, region in ((text, country), (f"+{typed}", None)):
        try:
            number = phonenumbers.parse(asked, region)
        except phonenumbers.NumberParseException:
            continue
        if not phonenumbers.is_possible_number(number):
            continue
        forms = [phonenumbers.PhoneNumberFormat.E164]
        if country is not None and number.country_code == phonenumbers.country_code_for_region(
            country
        ):
            forms.append(phonenumbers.PhoneNumberFormat.NATIONAL)
        return [mirror.number(phonenumbers.format_number(number, form)) for form in forms]
    return []


def needs_country(text: str, country: str | None) -> bool:
    """Whether it begins with a zero in place of its country's code, so that it may be anybody's.

    Its `forms` are then those digits, and not the number that is meant.

    :param country: as for `forms`.
    """
    return (
        country is None
        and mirror.number(text).isdigit()
        and _TRUNK.match(mirror.ascii_digits(text)) is not None
    )


class Number(NamedTuple):
    """One subscriber's number, by the digits of its spellings.

    :param international: with the country's code, as E.164 has it.
    :param others: the same with a zero for the trunk behind the country's code; and, where they
        are this number's, the forms without a country.
    """

    international: str
    others: tuple[str, ...]


def number(text: str, country: str | None) -> Number | None:
    """Whose number somebody means who names it; `None` if that cannot be told.

    A form without a country may be anybody's in another country. It counts as this number's unless
    `country` says that it is not.

    :param country: as for `forms`.
    """
    import phonenumbers

    if len(text) > _LONGEST:
        return None
    typed = mirror.ascii_digits(text).strip()
    if typed.startswith("00"):
        typed = f"+{typed[2:]}"
    try:
        found = phonenumbers.parse(typed, country)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(found):
        return None
    code, own = str(found.country_code), phonenumbers.national_significant_number(found)
    others = [f"{code}0{own}"]
    if country is None or found.country_code == phonenumbers.country_code_for_region(country):
        national = phonenumbers.format_number(found, phonenumbers.PhoneNumberFormat.NATIONAL)
        others += [mirror.number(national), own]
    return Number(code + own, tuple(others))


def is_country(code: str) -> bool:
    """Whether there is a country with these two letters whose numbers are known."""
    import phonenumbers

    return code in phonenumbers.SUPPORTED_REGIONS
