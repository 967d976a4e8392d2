"""What STORE_TEXT hides of a payload, wherever it stands."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.redaction import redact

CODE = "482913"
MODES = ("masked", "none")

HIDDEN: dict[str, Any] = {
    "a code": {"code": CODE},
    "a number": {"code": int(CODE)},
    "letters": {"password": "hunter-" + CODE},
    "in any letter case": {"OTP": CODE, "Pin": CODE, "PassWord": CODE, "smscontent": CODE},
    "with separators": {"sms_content": CODE, "SMS-Content": CODE, "pass word": CODE},
    "with what cannot be seen": {
        "o\u200btp": CODE,
        "\uff43ode": CODE,
        "p\u202ein" + "\ufe0f": CODE,
    },
    "a name as long as any": {"o" + "\u200b" * 100 + "tp": CODE},
    "an object": {"otp": {"value": CODE}},
    "a list": {"otp": [CODE]},
    "deep": {"a": [{"b": {"c": [[{"pin": CODE}]]}}]},
    "in metadata": {"metadata": {"otp": CODE, "list": [{"text": CODE}]}},
    "in JSON in a string": {"metadata": json.dumps({"otp": CODE})},
    "in JSON in JSON in a string": {"a": json.dumps({"b": json.dumps([{"otp": CODE}])})},
    "in a string of a string": {"a": json.dumps(json.dumps({"otp": CODE}))},
    "in JSON behind blanks": {"a": "\n " + json.dumps({"otp": CODE})},
    "in JSON in a text": {"message": json.dumps({"password": "x" + CODE})},
    "in JSON that is cut off": {"a": json.dumps({"x": 1, "otp": CODE})[:-1]},
    "in what is nearly JSON": {"a": "{'otp': '" + CODE + "'}"},
    "in JSON too deep to read": {"a": "[" * 300 + f'{{"otp": {CODE}}}' + "]" * 300},
    "the text": {"message": f"code {CODE}"},
    "the text as a number": {"message": int(CODE)},
    "the other providers' texts": {"text": CODE, "smsContent": CODE, "body": CODE},
    "the error's words": {"error": {"code": "TIMEOUT", "message": f"not sent: {CODE}"}},
    "an error of words": {"error": f"not sent: {CODE}"},
    "an error in JSON": {"error": json.dumps({"code": "X", "message": f"not sent: {CODE}"})},
    "an error in JSON that is cut off": {"error": '{"code": "' + CODE},
    "an error that is a number": {"error": int(CODE)},
    "an error's code of six digits": {"error": {"code": CODE}},
    "an error's code of six digits, as a number": {"error": {"code": int(CODE)}},
    "an error's code with six digits": {"error": {"code": f"E-{CODE}"}},
    "an error's code of words": {"error": {"code": f"code {CODE}"}},
    "a code deeper in an error": {"error": {"details": {"code": CODE[:4] + "13"}}},
    "errors in a list": {"error": [{"code": CODE}]},
    "the fields of an error": {"error": {"otp": CODE, "pin": CODE}},
}


@pytest.mark.parametrize("text_mode", MODES)
@pytest.mark.parametrize("value", HIDDEN.values(), ids=HIDDEN)
def test_it_is_hidden(value: Any, text_mode: str) -> None:
    shown = redact(value, text_mode)
    assert CODE not in json.dumps(shown, ensure_ascii=False)
    assert shown.keys() == value.keys()
    assert redact(shown, text_mode) == shown


KEPT: dict[str, Any] = {
    "other names": {
        "country_code": "33",
        "codes": 5,
        "shipping": "DHL",
        "textbook": "x",
        "to": CODE,
    },
    "an error's code": {"error": {"code": "NO_CREDIT", "status": 402}},
    "an error's code of five digits": {"error": {"code": "30007"}},
    "an error's code as a number": {"error": {"code": 30007}},
    "an error's code in small letters": {"Error": {"Code": "sms.timeout-408"}},
    "an error in JSON": {"error": json.dumps({"code": "X", "n": CODE})},
    "an error that is a code": {"error": "NO_CREDIT"},
    "an error that is a number": {"error": 30007},
    "no error": {"error": None},
    "numbers": {"a": [1, 1.5, 10**400, True, None], "b": {}},
    "what only begins like JSON": {"a": "[shipping] parcel 482913", "b": "{", "c": '"quoted"'},
    "JSON without such fields": {"a": '{ "n" : 482913 }'},
}


@pytest.mark.parametrize("text_mode", MODES)
@pytest.mark.parametrize("value", KEPT.values(), ids=KEPT)
def test_the_rest_stays(value: Any, text_mode: str) -> None:
    assert redact(value, text_mode) == value


def test_of_a_text_masked_hides_the_digits() -> None:
    value = {"message": "é: 12 ٤", "error": {"message": "no 7"}, "text": '{"otp": "ab", "é": 1}'}
    assert redact(value, "masked") == {
        "message": "é: ** *",
        "error": {"message": "no *"},
        "text": '{"otp":null,"é":*}',
    }
    nothing = {"message": None, "error": {"message": None}, "text": None}
    assert redact(value, "none") == nothing


names = st.sampled_from(["code", "Otp", "pin", "PASSWORD", "text", "message", "error", "a", "body"])
values = st.recursive(
    st.sampled_from([CODE, int(CODE), f"x{CODE}", None, 1.5, True]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(names, inner, max_size=3)
        | st.dictionaries(names, inner, max_size=3).map(json.dumps)
    ),
    max_leaves=12,
)


def codes_in(value: Any, name: str = "") -> bool:
    """Whether a code stands in a field that is hidden, as plainly as it can be looked for."""
    if isinstance(value, dict):
        return any(codes_in(item, key.casefold()) for key, item in value.items())
    if isinstance(value, list):
        return any(codes_in(item) for item in value)
    if isinstance(value, str) and value[:1] in ("{", "["):
        return codes_in(json.loads(value))
    return CODE in str(value) and name not in ("", "a")


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.dictionaries(names, values, max_size=4), st.sampled_from(MODES))
def test_no_code_is_left_wherever_it_stands(value: dict[str, Any], text_mode: str) -> None:
    assert not codes_in(redact(value, text_mode))


def test_however_deep_it_is_it_does_not_end_in_an_error() -> None:
    value: Any = {"otp": CODE}
    for _ in range(12):
        for _ in range(150):
            value = [value]
        value = json.dumps(value)
    assert CODE not in json.dumps(redact({"a": value}, "masked"))
