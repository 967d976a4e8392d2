"""What every page keeps to, whatever it shows."""

from __future__ import annotations

import re

import pytest
from flask import Flask

from receiver.web.dashboard.pages import NAVIGATION
from tests.web.dashboard.conftest import Visitor
from tests.web.dashboard.every_page import PAGES


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("path", PAGES)
def test_headers_and_languages(admin: Visitor, path: str) -> None:
    answer = admin.get(path)
    assert answer.status_code == 200
    headers = answer.headers
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert '<html lang="en">' in answer.text
    french = admin.get(path, **{"Accept-Language": "fr-CA,fr;q=0.9,en;q=0.5"}).text
    assert '<html lang="fr">' in french
    for text in (answer.text, french):
        assert not re.search(r'(?:src|href|action)="(?!/|#)', text)
        assert " style=" not in text
        assert not re.search(r" on[a-z]+=", text)


@pytest.mark.parametrize("path", PAGES)
def test_only_who_has_signed_in_sees_it(visitor: Visitor, path: str) -> None:
    answer = visitor.get(path)
    assert (answer.status_code, answer.data) == (303, b"")
    assert answer.location.startswith("/sign-in?to=/")


def test_the_pages_of_the_navigation_are_tried(app: Flask) -> None:
    there = {name for name in NAVIGATION if f"dashboard.{name}" in app.view_functions}
    tried = {path.partition("?")[0].strip("/") or "overview" for path in PAGES}
    assert there <= tried


def test_the_language_is_chosen_by_a_link_and_stays(admin: Visitor) -> None:
    answer = admin.get("/settings?lang=fr&x=1")
    assert (answer.status_code, answer.location) == (303, "/settings?x=1")
    assert '<html lang="fr">' in admin.get("/").text
    assert '<html lang="fr">' in admin.get("/", **{"Accept-Language": "en"}).text
    admin.get("/?lang=en")
    assert '<html lang="en">' in admin.get("/", **{"Accept-Language": "fr"}).text
    assert admin.get("/?lang=xx").status_code == 200


def test_files_have_a_digest_in_their_names_and_stay_for_ever(visitor: Visitor) -> None:
    text = visitor.get("/sign-in").text
    found = re.findall(r'"(/assets/[^"]+)"', text)
    assert len(set(found)) == 3
    for path in found:
        assert re.search(r"\.[0-9a-f]{16}\.", path)
        answer = visitor.get(path)
        assert answer.status_code == 200
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert visitor.get("/assets/dashboard.0000000000000000.css").status_code == 404
    assert visitor.get("/assets/../pages.py").status_code == 404


def test_errors_are_pages(admin: Visitor) -> None:
    answer = admin.get("/assets/x")
    assert (answer.status_code, answer.mimetype) == (404, "text/html")
    assert "There is nothing here" in answer.text
    form = {"x": "y" * 100_000}
    assert admin.post("/sign-out", form).status_code in (303, 413)
    # What belongs to other doors keeps its shape.
    assert admin.get("/nothing").mimetype == "application/problem+json"
