"""All pages in a real browser: with and without scripts, by keyboard alone, seen by axe.

One service and one browser for all of them. Skipped, loudly, where there is no Chromium.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest
from markupsafe import escape

from receiver.event import clean_id
from receiver.providers.zimsend.webhook import parse
from receiver.times import DAY
from receiver.visible import visible
from tests.server import cannot_run
from tests.web.dashboard.browser import CHROMIUM, Site, Watch, site
from tests.web.dashboard.every_page import HOSTILE_PAGES, SEEN
from tests.web.dashboard.world import HOSTILE

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
#: What axe calls by these tags is WCAG 2.2 AA, and what is good practice.
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if CHROMIUM is None:
        cannot_run("there is no Chromium, so no page was seen in a browser")
    with (
        pytest.MonkeyPatch.context() as patch,
        site(tmp_path_factory.mktemp("shop"), days=2, hostile=True) as shop,
    ):
        for page in ("messages", "events"):  # axe looks at each row
            patch.setattr(f"receiver.web.dashboard.{page}._OF_A_PAGE", 20)
        yield shop


def axe(page: Any, **options: Any) -> list[str]:
    """What axe has found, each with the element that it is about."""
    page.evaluate(AXE)
    asked = {"resultTypes": ["violations"]} | options
    found = page.evaluate("options => axe.run(document, options)", asked)
    return [
        f"{violation['id']}: {node['html'][:200]} {node['failureSummary']}"
        for violation in found["violations"]
        for node in violation["nodes"]
    ]


ALL = {"runOnly": {"type": "tag", "values": TAGS}}
#: What depends on colours and width alone.
LOOKS = {
    "runOnly": {
        "type": "rule",
        "values": ["color-contrast", "target-size", "scrollable-region-focusable"],
    },
    "rules": {"target-size": {"enabled": True}},
}


@pytest.mark.parametrize("language", ["en", "fr"])
def test_every_page_is_accessible_and_quiet(shop: Site, language: str) -> None:
    """Light on a desktop in one language, dark on a small phone in the other."""
    wide = language == "en"
    with shop.visit(
        locale=language,
        color_scheme="light" if wide else "dark",
        viewport={"width": 1280 if wide else 320, "height": 800},
        reduced_motion="reduce",  # or colours are on their way when axe looks
        bypass_csp=True,  # for axe; the policy itself is tried below
    ) as context:
        page = context.new_page()
        watch = Watch(page, shop.url)
        for path in SEEN:
            answer = page.goto(path)
            assert answer is not None
            assert answer.status == 200, path
            assert page.locator("html").get_attribute("lang") == language
            overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert overflow <= 0, f"{path} is {overflow} pixels too wide"
            assert axe(page, **(ALL if wide else LOOKS)) == [], path
        assert watch.told == []


@pytest.mark.parametrize("text", ["signe de vie depuis son départ, longtemps après", "W" * 60])
def test_whatever_a_badge_says_fits_a_small_phone(shop: Site, text: str) -> None:
    """What they say depends on the time of day, and on what phones and providers told."""
    with shop.visit(viewport={"width": 320, "height": 800}, bypass_csp=True) as context:
        page = context.new_page()
        badges = 0
        for path in SEEN:
            page.goto(path)
            badges += page.locator(".badge").evaluate_all(
                "(all, text) => all.map(badge => badge.textContent = text).length", text
            )
            overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert overflow <= 0, f"{path} is {overflow} pixels too wide"
        assert badges > 10


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_what_strangers_wrote_stays_text(shop: Site, scripts: bool) -> None:
    with shop.visit(java_script_enabled=scripts) as context:
        page = context.new_page()
        watch = Watch(page, shop.url)
        for path in (*SEEN, *HOSTILE_PAGES):
            answer = page.goto(path)
            assert answer is not None
            assert answer.status == 200, path
            assert page.locator("main h1").count() == 1, path
        assert watch.told == []


def test_every_hostile_id_leads_to_its_message(shop: Site) -> None:
    """Where a browser goes that follows the links."""
    with shop.visit() as context:
        page = context.new_page()
        page.goto("/messages?error=&status=failed&since=2h")
        links = page.locator("#rows a.id")
        leads = dict(links.evaluate_all("links => links.map(a => [a.textContent, a.href])"))
        for text in HOSTILE:
            written = visible(clean_id(text))
            answer = context.request.get(leads.pop(written))
            assert answer.status == 200, text
            assert f">{escape(written)}</bdi></small></h1>" in answer.text(), text


def test_the_policy_holds_and_nothing_breaks_it(shop: Site) -> None:
    with shop.visit() as context:
        page = context.new_page()
        watch = Watch(page, shop.url)
        page.goto("/")
        assert watch.told == []
        refused = page.evaluate(
            """() => new Promise(done => {
                document.addEventListener("securitypolicyviolation",
                    event => done(event.violatedDirective));
                const script = document.createElement("script");
                script.textContent = "window.ran = true";
                document.body.append(script);
            })"""
        )
        assert refused.startswith("script-src")
        assert page.evaluate("window.ran") is None


def test_by_keyboard_alone(shop: Site) -> None:
    """Sign in, skip to the content, choose a period, search, open a message, sign out."""
    with shop.visit(signed_in=False) as context:
        page = context.new_page()
        page.goto("/messages?to=%2B33612345678")
        assert page.evaluate("document.activeElement.id") == "password"
        page.keyboard.type("corrêct horse battery staple")
        page.keyboard.press("Enter")
        page.wait_for_url("**/messages?to=*")
        page.goto("/")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        assert page.locator(".skip").bounding_box()["x"] >= 0  # type: ignore[index]
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_url("**/?days=1")
        page.goto("/messages")
        page.locator("#f-q").focus()
        page.keyboard.type("commande CMD")
        page.keyboard.press("Enter")
        page.wait_for_url("**q=commande*")
        first = page.locator("#rows a.id").first
        first.focus()
        width = first.evaluate("element => getComputedStyle(element).outlineWidth")
        assert width == "3px"
        page.keyboard.press("Enter")
        page.wait_for_url("**/messages/msg_*")
        page.get_by_role("button", name="Sign out").focus()
        page.keyboard.press("Enter")
        page.wait_for_url("**/sign-in")


def test_a_page_stays_up_to_date_and_what_is_in_use_stands_still(shop: Site) -> None:
    with shop.visit() as context:
        page = context.new_page()
        watch = Watch(page, shop.url)
        page.clock.install()
        page.goto("/messages/msg_01_000")  # of yesterday: before the shop opens, today has none
        page.locator("#facts dd a").first.focus()
        # What the server would say in its next answer.
        changed = page.content().replace("<h2>What it", "<h2>Now what it").replace(">sent<", ">x<")
        assert changed.count("Now what it") == 1
        page.route("**/messages/msg_01_000", lambda route: route.fulfill(body=changed))
        page.clock.run_for(6_000)
        page.get_by_text("Now what it was learnt from").wait_for()
        assert page.evaluate("document.activeElement.closest('#facts') !== null")
        page.unroute("**/messages/msg_01_000")
        page.route("**/messages/msg_01_000", lambda route: route.abort())
        page.clock.run_for(60_000)  # the slower the server, the later
        page.locator("#stale").wait_for()
        watch.told.clear()  # that request has failed
        page.unroute("**/messages/msg_01_000")
        context.clear_cookies()
        page.clock.run_for(60_000)
        page.wait_for_url("**/sign-in?to=**")
        assert watch.told == []


def test_without_scripts_a_filter_a_language_and_a_retry(shop: Site) -> None:
    with shop.visit(java_script_enabled=False, locale="en") as context:
        page = context.new_page()
        page.goto("/messages")
        page.locator("#f-status").select_option("failed")
        page.get_by_role("button", name="Search").click()
        assert "status=failed" in page.url
        page.get_by_role("link", name="Français").click()
        assert "status=failed" in page.url
        assert page.locator("h1").inner_text() == "Messages"
        assert page.get_by_role("button", name="Chercher").is_visible()
        page.goto("/quarantine")
        page.locator("form button.primary").click()
        assert page.get_by_role("status").inner_text() == (
            "4 corps restent inutilisables, et demeurent."
        )
        assert page.url.endswith("/quarantine")
        page.reload()
        assert page.get_by_role("status").count() == 0


def test_the_script_is_small() -> None:
    from receiver.web.dashboard.assets import assets

    script = next(a.body for name, a in assets().items() if name.endswith(".js"))
    assert script.count(b"\n") < 200
    assert not any(word in script for word in (b"eval(", b"innerHTML", b"http"))


def test_what_comes_in_is_appended_and_can_be_paused(shop: Site) -> None:
    def arrive(event_id: str) -> None:
        body = {"event": "otp.sent", "event_id": event_id, "data": {"to": HOSTILE[1]}}
        now = shop.receiver.now()
        item = parse(json.dumps(body).encode(), received_at=now, retention=90 * DAY)
        shop.receiver.store.ingest([item], lambda _: (), 5)

    with shop.visit() as context:
        page = context.new_page()
        watch = Watch(page, shop.url)
        page.clock.install()
        page.goto("/live")
        events = page.locator("#arrivals li")
        assert events.count() == 50
        assert not page.locator("#newer").is_visible()
        arrive("evt_live_1")
        page.clock.run_for(2_000)
        page.get_by_text("evt_live_1").wait_for()
        page.get_by_role("button", name="Pause").press("Enter")
        arrive("evt_live_2")
        page.clock.run_for(10_000)
        assert events.count() == 51
        page.get_by_role("button", name="Pause", pressed=True).press("Enter")
        page.clock.run_for(100)  # it asks at once
        page.get_by_text("evt_live_2").wait_for()
        assert events.count() == 52
        told = events.all_inner_texts()
        assert "evt_live_1" in told[-2]
        assert "evt_live_2" in told[-1]
        end = "list => list.scrollHeight - list.scrollTop - list.clientHeight"
        assert page.locator("#arrivals").evaluate(end) < 2
        assert watch.told == []


def test_without_scripts_a_group_is_looked_at_and_replayed(shop: Site) -> None:
    with shop.visit(java_script_enabled=False, locale="fr") as context:
        page = context.new_page()
        page.goto("/failures")
        page.get_by_role("link", name="Voir, rejouer").first.click()
        button = page.get_by_role("button", name="Rejouer ce")
        number = int("".join(filter(str.isdigit, button.inner_text())) or 1)
        button.click()
        told = page.get_by_role("status").inner_text()
        assert told.startswith(f"{number} tâche")
        assert page.url.endswith("/failures")
        assert shop.receiver.store.groups() == []
        page.goto("/live")
        page.locator("#newer").click()
        assert page.get_by_text("Rien n’est arrivé depuis.").is_visible()
