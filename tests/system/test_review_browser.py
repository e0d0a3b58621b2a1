"""The review page in a real Chromium: what a reviewer does, and what may go wrong in the meantime."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Request, Route, expect, sync_playwright

from harness.review_site import Site
from helpers.review_set import make_set

pytestmark = pytest.mark.timeout(240)
EXPECTED = ("Failed to load resource", "ERR_CONNECTION_REFUSED")
"""What Chromium itself logs where a test ends the server or provokes a conflict."""
Routes = dict[str | re.Pattern[str], Callable[[Route], None]]
"""Addresses that a test answers instead of the server."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        reason = "no Chromium is installed: `apt-get install chromium`"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    make_set(tmp_path, chips=28)
    with Site(tmp_path) as running:
        yield running


@pytest.fixture
def visit(browser: Browser, site: Site) -> Iterator[Callable[..., Page]]:
    """Opens the page, by default as another person's browser would: contexts share nothing."""
    problems: list[str] = []
    contexts = []

    def open_page(beside: Page | None = None, fragment: str = "", routes: Routes | None = None) -> Page:
        if beside is None:
            contexts.append(browser.new_context(viewport={"width": 1400, "height": 900}))
        page = beside.context.new_page() if beside else contexts[-1].new_page()

        def foreign(request: Request) -> None:
            if not request.url.startswith((site.base, "blob:")):
                problems.append(f"asked for {request.url}")

        page.on("request", foreign)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda m: problems.append(m.text) if not any(e in m.text for e in EXPECTED) else None)
        for address, answer in (routes or {}).items():  # before the page is: an open one goes past them for a while
            page.route(address, answer)
        page.goto(site.address + fragment)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not problems


def shows(page: Page, chip: str) -> None:
    """Waits until the chip is on the screen, as a reviewer would."""
    expect(page.locator("body")).to_have_attribute("data-shown", chip)


def saved(page: Page) -> None:
    expect(page.locator("body")).to_have_attribute("data-unsaved", "0")


def judge(page: Page, first: int, keys: str) -> None:
    """Judges the chips from `first` on, each after it was shown."""
    for number, key in enumerate(keys, first):
        shows(page, f"c{number:03d}")
        page.keyboard.press(key)


def canvas(page: Page, figure: str = "true") -> bytes:
    """The pixels of a panel as a PNG."""
    return page.locator(f"figure[data-colours={figure}] canvas").screenshot()


def test_twenty_chips_by_keyboard_and_a_reload(visit: Callable[..., Page], site: Site) -> None:
    page = visit()
    judge(page, 0, "bcu" * 6 + "bc")
    shows(page, "c020")
    saved(page)
    rows = site.rows()
    words = {"b": "bad", "c": "clean", "u": "unsure"}
    assert list(rows["chip_id"]) == [f"c{n:03d}" for n in range(20)]
    assert list(rows["verdict"]) == [words[key] for key in "bcu" * 6 + "bc"]
    assert set(rows["reviewer"]) == {"Ada Lovelace"}
    assert rows["time"].str.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ").all()
    expect(page.locator("#progress p")).to_contain_text("20 of 26 judged · 7 bad, 7 clean, 6 unsure")
    expect(page.locator("#progress p")).to_contain_text("6 left, about")
    page.reload()
    shows(page, "c020")
    page.keyboard.press("ArrowLeft")
    shows(page, "c019")
    expect(page.locator("#verdict")).to_contain_text("clean by Ada Lovelace")
    fresh = visit()  # closed and opened again: the first label that is not judged
    shows(fresh, "c020")


def test_back_next_ends_and_the_next_that_is_not_judged(visit: Callable[..., Page]) -> None:
    page = visit()
    judge(page, 0, "bb")
    shows(page, "c002")
    for key, chip in (("ArrowLeft", 1), ("Home", 0), ("ArrowLeft", 0), ("Enter", 2), ("End", 25), ("ArrowRight", 25)):
        page.keyboard.press(key)
        shows(page, f"c{chip:03d}")


def test_a_key_held_down_and_a_chip_not_yet_shown_are_not_judged(visit: Callable[..., Page], site: Site) -> None:
    page = visit(routes={re.compile("/c006/true"): lambda route: None})  # never answered
    judge(page, 0, "bbbbbb")
    expect(page.locator("#chip")).to_have_text("c006")
    page.keyboard.press("b")
    expect(page.locator("#message")).to_contain_text("Not judged")
    saved(page)
    page.unroute_all()
    page.keyboard.press("End")
    shows(page, "c025")
    page.keyboard.down("b")
    page.keyboard.down("b")
    page.keyboard.up("b")
    saved(page)
    assert list(site.rows()["chip_id"]) == ["c000", "c001", "c002", "c003", "c004", "c005", "c025"]


def test_undo_take_away_and_note(visit: Callable[..., Page], site: Site) -> None:
    page = visit()
    shows(page, "c000")
    page.keyboard.press("n")
    page.keyboard.type("clouds, but bright")
    page.keyboard.press("Enter")
    page.keyboard.press("b")
    shows(page, "c001")
    saved(page)
    assert site.rows().at["c000", "reason"] == "clouds, but bright"
    page.keyboard.press("c")
    shows(page, "c002")
    saved(page)
    assert site.rows().at["c001", "reason"] == ""  # a note is for one verdict
    page.keyboard.press("Backspace")
    shows(page, "c001")
    assert list(site.rows().index) == ["c000"]
    page.keyboard.press("ArrowLeft")
    shows(page, "c000")
    page.keyboard.press("c")
    shows(page, "c001")
    saved(page)
    page.reload()  # a reload keeps what can be undone
    shows(page, "c001")
    page.keyboard.press("Control+z")
    shows(page, "c000")
    expect(page.locator("#verdict")).to_contain_text("bad by")
    assert site.rows().at["c000", "reason"] == "clouds, but bright"
    page.keyboard.press("x")
    expect(page.locator("#verdict")).to_have_text("Not judged")
    saved(page)
    assert site.rows().empty


def test_filters_by_keyboard_and_by_mouse(visit: Callable[..., Page], site: Site) -> None:
    page = visit()
    shows(page, "c000")
    page.keyboard.press("f")
    page.keyboard.type("place1")  # letters choose here and do not judge
    expect(page.locator("body")).to_have_attribute("data-listed", "9")
    assert page.locator("#filters [name=scene] option").count() == 3
    page.keyboard.press("Escape")
    shows(page, "c001")
    page.keyboard.press("b")
    shows(page, "c004")
    saved(page)
    page.locator("[name=reason]").select_option("stripes")
    expect(page.locator("body")).to_have_attribute("data-listed", "9")
    page.locator("[name=verdict]").select_option("none")
    expect(page.locator("body")).to_have_attribute("data-listed", "8")
    expect(page.locator("#place")).to_have_text("1 of 8 in this list")
    page.reload()
    expect(page.locator("body")).to_have_attribute("data-listed", "8")
    page.locator("[name=scene]").select_option(index=1)
    expect(page.locator("body")).to_have_attribute("data-listed", "4")
    page.locator("[name=verdict]").select_option("clean")
    expect(page.locator("#chip")).to_have_text("No label fits these filters")
    page.locator("[name=verdict]").press("Escape")
    page.keyboard.press("b")
    page.keyboard.press("r")
    expect(page.locator("body")).to_have_attribute("data-listed", "26")
    page.locator("[name=order]").select_option("least")
    expect(page.locator("#place")).to_have_text("26 of 26")
    saved(page)
    assert list(site.rows().index) == ["c001"]


def test_no_verdict_is_lost_when_the_server_is_killed(visit: Callable[..., Page], site: Site) -> None:
    page = visit()
    judge(page, 0, "bbb")
    shows(page, "c003")
    saved(page)
    site.kill()
    assert len(site.rows()) == 3
    judge(page, 3, "ccc")  # these chips were fetched ahead
    expect(page.locator("#message")).to_contain_text("Not saved yet: 3")
    site.start()
    saved(page)
    assert list(site.rows()["verdict"]) == ["bad"] * 3 + ["clean"] * 3
    expect(page.locator("#progress")).to_have_attribute("data-judged", "6")
    page.keyboard.press("ArrowRight")
    shows(page, "c007")
    page.keyboard.press("u")
    saved(page)
    page.keyboard.press("Backspace")
    shows(page, "c007")
    assert len(site.rows()) == 6


def test_an_answer_that_is_lost_is_asked_for_again(visit: Callable[..., Page], site: Site) -> None:
    lost: list[int] = []

    def lose(route: Route) -> None:
        if lost:
            return route.continue_()
        lost.append(route.fetch().status)  # the server has written, the page does not hear of it
        return route.abort()

    page = visit(routes={"**/api/verdicts": lose})
    shows(page, "c000")
    page.keyboard.press("b")
    saved(page)
    assert lost == [200]
    expect(page.locator("#message")).to_contain_text("everything is saved")
    assert list(site.rows()["verdict"]) == ["bad"]


def test_a_file_that_is_broken_meanwhile_is_named_and_asked_for_a_few_times_only(
    visit: Callable[..., Page], site: Site
) -> None:
    page = visit()
    judge(page, 0, "b")
    saved(page)
    good = site.verdicts.read_text()
    site.verdicts.write_text(good + "c009\n")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if request.method == "POST" else None)
    judge(page, 1, "c")
    message = page.locator("#message")
    expect(message).to_contain_text("Not saved yet: 1.")
    expect(message).to_contain_text("verdicts.csv")
    expect(message).to_contain_text("line 3 has 1 fields")
    expect(message).to_contain_text("then reload the page", timeout=15_000)
    page.wait_for_timeout(2000)
    assert len(asked) == 6
    assert site.verdicts.read_text() == good + "c009\n"
    site.verdicts.write_text(good)
    judge(page, 2, "u")
    saved(page)
    assert list(site.rows()["verdict"]) == ["bad", "clean", "unsure"]


def test_a_page_that_cannot_begin_says_why(visit: Callable[..., Page], site: Site) -> None:
    site.verdicts.parent.mkdir(exist_ok=True)
    site.verdicts.write_text("chip_id,verdict\nc000\n")
    page = visit()
    expect(page.locator("#scene")).to_contain_text("line 2 has 1 fields")
    site.verdicts.unlink()
    page.reload()
    shows(page, "c000")


def test_a_browser_without_the_key_is_told_where_it_is(browser: Browser, site: Site) -> None:
    page = browser.new_page()
    page.goto(site.base)
    expect(page.locator("body")).to_contain_text("open the complete address")
    page.goto(site.address)
    shows(page, "c000")
    assert site.key not in page.url
    page.reload()
    shows(page, "c000")
    page.close()


def test_a_reload_keeps_what_was_not_saved(visit: Callable[..., Page], site: Site) -> None:
    page = visit(routes={"**/api/verdicts": lambda route: route.abort()})
    judge(page, 0, "bc")
    expect(page.locator("body")).to_have_attribute("data-unsaved", "2")
    assert not site.verdicts.exists()
    page.unroute_all()
    page.on("dialog", lambda dialog: dialog.accept())  # the browser asks whether to leave
    page.reload()
    saved(page)
    assert list(site.rows()["verdict"]) == ["bad", "clean"]


def test_two_tabs_do_not_overwrite_each_other(visit: Callable[..., Page], site: Site) -> None:
    one, other = visit(), visit()
    shows(one, "c000")
    shows(other, "c000")
    one.keyboard.press("b")
    saved(one)
    shows(one, "c001")
    other.keyboard.press("c")
    expect(other.locator("#message")).to_contain_text("Not saved: judged elsewhere in the meantime: c000")
    shows(other, "c000")
    expect(other.locator("#verdict")).to_contain_text("bad by")
    assert site.rows().at["c000", "verdict"] == "bad"
    other.keyboard.press("ArrowRight")
    shows(other, "c001")
    other.keyboard.press("c")
    shows(other, "c002")
    saved(other)
    assert dict(site.rows()["verdict"]) == {"c000": "bad", "c001": "clean"}


def test_tabs_of_one_browser_follow_each_other(visit: Callable[..., Page]) -> None:
    one = visit()
    other = visit(beside=one)
    shows(one, "c000")
    shows(other, "c000")
    one.keyboard.press("b")
    expect(other.locator("#verdict")).to_contain_text("bad by Ada Lovelace")
    expect(other.locator("#progress")).to_have_attribute("data-judged", "1")


def test_the_grid_selects_many_and_judges_them_at_once(visit: Callable[..., Page], site: Site) -> None:
    page = visit()
    shows(page, "c000")
    page.keyboard.press("g")
    cells = page.locator("#cells .cell")
    expect(cells.first).to_have_attribute("data-drawn", "true")
    first_page = cells.count()
    assert 10 <= first_page < 26
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    expect(page.locator("#cells .selected")).to_have_count(3)
    page.keyboard.press("b")
    saved(page)
    assert list(site.rows().index) == ["c000", "c001", "c002"]
    expect(page.locator("#cells .cell.bad")).to_have_count(3)
    expect(page.locator("#cells .cursor")).to_have_attribute("data-chip", "c003")
    page.keyboard.press("PageDown")
    expect(page.locator("#cells .cursor")).to_have_attribute("data-chip", f"c{min(3 + first_page, 25):03d}")
    page.keyboard.press("a")
    page.keyboard.press("c")
    saved(page)
    assert (site.rows()["verdict"] == "clean").sum() == 26 - first_page
    page.keyboard.press("Backspace")  # one undo for all of them
    expect(page.locator("#progress")).to_have_attribute("data-judged", "3")
    assert len(site.rows()) == 3
    page.locator("#cells .cell").nth(1).dblclick()
    expect(page.locator("#single")).to_be_visible()
    page.reload()
    expect(page.locator("#single")).to_be_visible()


def test_layers_zoom_and_colours_change_what_is_drawn(visit: Callable[..., Page]) -> None:
    page = visit()
    shows(page, "c000")
    page.keyboard.press("h")
    bare = canvas(page)
    page.keyboard.press("h")
    pictures = {"bare": bare, "outlines": canvas(page)}
    for key in "ldp":
        page.keyboard.press(key)
        pictures[key] = canvas(page)
    page.keyboard.press("z")
    pictures["zoomed"] = canvas(page)
    page.keyboard.press("Shift+ArrowRight")
    pictures["moved"] = canvas(page)
    assert len(set(pictures.values())) == len(pictures)
    page.keyboard.press("z")
    page.keyboard.press("z")
    assert canvas(page) == pictures["p"]  # the third step is the whole chip again
    page.keyboard.press("t")
    expect(page.locator("figure[data-colours=false]")).to_be_hidden()
    page.keyboard.press("t")
    expect(page.locator("figure[data-colours=true]")).to_be_hidden()


def test_a_zoomed_pixel_has_one_colour(visit: Callable[..., Page]) -> None:
    page = visit()
    shows(page, "c000")
    page.keyboard.press("h")
    page.keyboard.press("z")
    page.keyboard.press("z")
    pixels = page.evaluate(
        """() => {
            const canvas = document.querySelector("figure[data-colours=true] canvas");
            const { data } = canvas.getContext("2d").getImageData(0, canvas.height >> 1, canvas.width, 1);
            return [...data].filter((_, i) => i % 4 === 0);
        }"""
    )
    runs = np.diff(np.flatnonzero(np.diff(pixels)))
    assert runs.min() >= 60  # 64 pixels on some 515, times 9: no blur between them


def test_reasons_are_in_words_and_keys_are_explained(visit: Callable[..., Page]) -> None:
    page = visit()
    shows(page, "c000")
    expect(page.locator("#reasons")).to_contain_text("Pixels are labelled cloud where")
    expect(page.locator("#suspicion")).to_contain_text("0.99")
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("b")  # judges nothing while the keys are shown
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    expect(page.locator("#progress")).to_have_attribute("data-judged", "0")
    with page.context.expect_page() as opened:
        page.keyboard.press("j")
    opened.value.wait_for_load_state()
    assert opened.value.url.endswith("/api/chips/c000")
    assert "missed" not in opened.value.content()


class Evil(BaseHTTPRequestHandler):
    """An empty page of another site."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><p>evil")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def evil() -> Iterator[int]:
    """Port of a server on loopback that shows `Evil`."""
    server = HTTPServer(("127.0.0.1", 0), Evil)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])  # the same site on another port, and another site
def test_another_page_of_this_browser_reads_nothing_and_judges_nothing(
    browser: Browser, site: Site, evil: int, name: str
) -> None:
    context = browser.new_context()
    context.new_page().goto(site.address)  # the browser has the reviewer's key
    page = context.new_page()
    page.goto(f"http://{name}:{evil}/")
    attempts = page.evaluate(
        """async (address) => {
            const attempt = (path, options) => fetch(address + path, options).then((r) => r.type, () => "refused");
            const body = JSON.stringify({ chips: ["c000"], verdict: "bad", seen: {} });
            const load = (made, src) => new Promise((resolve) => {
                made.onload = () => resolve("loaded");
                made.onerror = () => resolve("refused");
                document.body.append(Object.assign(made, { src }));
            });
            return [
                await attempt("api/session"),
                await attempt("api/verdicts", { method: "POST", body }),
                await attempt("api/verdicts", { method: "POST", body, headers: { "X-Review-Token": "x" } }),
                await load(new Image(), address + "api/chips/c000/true?small"),
                await load(document.createElement("script"), address + "review.js"),
                await attempt("api/verdicts", { method: "POST", body, mode: "no-cors" }),
            ];
        }""",
        site.base,
    )
    assert attempts == ["refused"] * 6
    assert not site.verdicts.exists()
    context.close()
