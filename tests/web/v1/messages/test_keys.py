"""Which key opens which call of `/v1`."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from tests.conftest import Provider
from tests.web.v1.messages.known import BOTH, CREDENTIALS, HISTORY, STATS, refusal, report, start

SEND = "/v1/sms/send"
OWN = {"X-API-Key": "own"}
READ = {"X-API-Key": "reads"}
SHOP = {"X-Client-ID": "shop"}


def client_of(tmp_path: Path, **environ: str) -> FlaskClient:
    app = start(f"sqlite:///{tmp_path / 'receiver.db'}", **environ)
    app.extensions["receiver"].store.migrate()
    return app.test_client()


def test_a_key_of_its_own_takes_the_place_of_zimsends(tmp_path: Path) -> None:
    client = client_of(tmp_path, V1_API_KEY="own", **CREDENTIALS)
    for headers in (OWN, OWN | SHOP, OWN | {"X-Client-ID": ""}):
        assert client.get(HISTORY, headers=headers).status_code == 200
    refusal(client.get(STATS, headers=BOTH), 401, "INVALID_API_KEY", STATS)
    message = refusal(client.get(STATS, headers=SHOP), 400, "MISSING_AUTH_HEADERS", STATS)
    assert "X-Client-ID" not in message


def test_with_a_client_id_of_its_own(tmp_path: Path) -> None:
    client = client_of(tmp_path, V1_API_KEY="own", V1_CLIENT_ID="shop", **CREDENTIALS)
    assert client.get(STATS, headers=OWN | SHOP).status_code == 200
    refusal(client.get(STATS, headers=OWN), 400, "MISSING_AUTH_HEADERS", STATS)
    refusal(client.get(STATS, headers=OWN | {"X-Client-ID": "x"}), 401, "INVALID_CLIENT_ID", STATS)
    client = client_of(tmp_path, V1_CLIENT_ID="shop", **CREDENTIALS)
    assert client.get(STATS, headers=BOTH | SHOP).status_code == 200
    refusal(client.get(STATS, headers=BOTH), 401, "INVALID_CLIENT_ID", STATS)


def test_the_key_that_reads_sends_nothing(tmp_path: Path) -> None:
    client = client_of(tmp_path, V1_READ_KEY="reads", **CREDENTIALS)
    for path in (HISTORY, STATS, "/v1/reconciliation"):
        assert client.get(path, headers=READ).status_code == 200
        assert client.head(path, headers=READ).status_code == 200
    assert client.get(STATS, headers=BOTH).status_code == 200
    for method, path in (
        *(("POST", f"/v1/sms/{name}") for name in ("send", "send-bulk", "send-otp", "verify-otp")),
        ("POST", "/v1/sms/send-bulk-personalized"),
        ("POST", "/v1/sms/m1/resend"),
        ("DELETE", "/v1/sms/m1"),
    ):
        answer = client.open(path, method=method, headers=READ, json={})
        assert "V1_API_KEY" in refusal(answer, 403, "READ_ONLY_KEY")


@pytest.mark.parametrize("environ", [{"V1_API_KEY": "own"}, {"V1_READ_KEY": "reads"}])
def test_keys_of_its_own_need_no_account_at_zimsend(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    client = client_of(tmp_path, **environ)
    (key,) = environ.values()
    headers = {"X-API-Key": key}
    assert client.get(STATS, headers=headers).status_code == 200
    told = client.get("/v1/reconciliation", headers=headers).get_json()
    assert (told["next_pass_at"], told["gaps"]) == (None, [])
    sent = client.post(SEND, headers=headers, json={})
    if key == "own":
        assert "ZIMSEND_API_KEY" in refusal(sent, 503, "NOT_CONFIGURED")
    for wrong in ({"X-API-Key": ""}, {"X-API-Key": "x"}, {"X-API-Key": "clé"}, {}, BOTH):
        assert client.get(STATS, headers=wrong).status_code in (400, 401)


def test_a_client_id_alone_opens_nothing(tmp_path: Path) -> None:
    client = client_of(tmp_path, V1_CLIENT_ID="shop")
    refusal(client.get(STATS, headers=SHOP), 503, "NOT_CONFIGURED", STATS)


def test_a_national_number_with_a_default_country(tmp_path: Path) -> None:
    client = client_of(tmp_path, DEFAULT_COUNTRY="FR", V1_READ_KEY="reads")
    Provider(client).post(report("sms.sent", "m1", 1, to="+33612345678"))
    expected = client.get(HISTORY, query_string={"to": "+33612345678"}, headers=READ).get_json()
    assert expected["data"]
    for typed in ("0612345678", "06 12 34 56 78", "+33 (0)6.12.34.56.78", "０６１２３４５６７８"):
        found = client.get(HISTORY, query_string={"to": typed}, headers=READ).get_json()
        assert found == expected, typed
    nothing = client.get(HISTORY, query_string={"to": "0712345678"}, headers=READ).get_json()
    assert nothing["data"] == []
