"""The playground when it does not go well."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from playground_page import (
    ANSWER,
    FIRST,
    QUESTION,
    SEARCHES,
    Watch,
    answer,
    ask,
    needs_chromium,
    step,
)
from playground_server import (
    BREAK,
    Predictor,
    episode,
    failed,
    opening,
    searched,
)
from playwright.sync_api import BrowserContext, Page, expect

pytestmark = [pytest.mark.browser, needs_chromium]


@pytest.mark.parametrize("how", ["Escape", "button"])
def test_stop_is_felt_by_the_server(
    opened: Callable[..., Page], predictor: Predictor, how: str
) -> None:
    never = threading.Event()
    predictor.scripts["exsearch"] = [opening(), *searched(1, FIRST), never]
    page = opened()
    ask(page)
    expect(step(page, 1).locator("blockquote")).to_be_visible()
    assert not predictor.disconnected.is_set()
    if how == "Escape":
        page.keyboard.press("Escape")
    else:
        page.get_by_role("button", name="Stop").press("Enter")
    assert predictor.disconnected.wait(5)
    expect(page.locator(".run")).to_contain_text("Stopped. What arrived so far is shown.")
    expect(page.locator(".problem:visible")).to_have_count(0)
    expect(page.locator(".feedback")).to_have_count(0)
    expect(page.get_by_label("Your question")).to_be_focused()
    predictor.scripts["exsearch"] = episode(SEARCHES, ANSWER)
    page.keyboard.press("Enter")  # the question is still there, and can be asked again
    expect(answer(page)).to_have_text(ANSWER)


REFUSALS = {
    "busy": (429, {"message": "full"}, {"retry-after": "7"}, "too many questions.*in 7 seconds"),
    "busy, no time": (429, {"message": "full"}, {}, "too many questions.*in a moment"),
    "not ready": (503, {"message": "loading"}, {}, "not ready.*Loading.*ask again in a moment"),
    "refused": (400, {"message": "max_steps is too high"}, {}, "refused.*Max_steps is too high"),
    "broken": (500, {"message": "a fault"}, {}, "failed.*A fault.*req-9"),
}


@pytest.mark.parametrize(("status", "error", "headers", "said"), REFUSALS.values(), ids=REFUSALS)
def test_refusals_say_what_to_do(
    opened: Callable[..., Page],
    predictor: Predictor,
    status: int,
    error: dict[str, str],
    headers: dict[str, str],
    said: str,
) -> None:
    predictor.refusal = (status, error, headers)
    page = opened(refused=True)
    ask(page)
    expect(page.locator(".problem:visible")).to_have_text(re.compile(said, re.DOTALL))
    expect(page.get_by_role("status").first).to_have_text(re.compile(said, re.DOTALL))
    expect(page.get_by_label("Your question")).to_have_value(QUESTION)
    predictor.refusal = None
    page.keyboard.press("Enter")
    expect(answer(page)).to_have_text(ANSWER)
    expect(page.locator(".problem:visible")).to_have_count(0)


ENDINGS = {
    "the network goes": ([BREAK], "The connection was lost.*may be incomplete"),
    "no end mark": ([], "The answer broke off.*may be incomplete"),
    "not JSON": ([b"data: {oops\n\n"], "cannot be read"),
    "deadline": (failed("30 s are over", "deadline"), "could not finish.*30 s are over.*Options"),
    "unknown reason": (failed("odd", "new_reason"), "could not finish.*Odd.*Ask again"),
}


@pytest.mark.parametrize(("ending", "said"), ENDINGS.values(), ids=ENDINGS)
def test_a_stream_that_ends_badly(
    opened: Callable[..., Page], predictor: Predictor, ending: list[Any], said: str
) -> None:
    gate = threading.Event()
    predictor.scripts["exsearch"] = [opening(), *searched(1, FIRST), gate, *ending]
    page = opened(refused=True)
    ask(page)
    expect(step(page, 1).locator("blockquote")).to_be_visible()
    gate.set()
    expect(page.locator(".problem:visible")).to_have_text(re.compile(said, re.DOTALL))
    expect(step(page, 1).locator("blockquote")).to_be_visible()  # what came stays
    expect(page.locator(".doing:visible")).to_have_count(0)
    expect(page.locator(".feedback")).to_have_count(0)
    expect(page.get_by_label("Your question")).to_have_value(QUESTION)


def test_a_server_that_is_gone(
    opened: Callable[..., Page], context: BrowserContext, watch: Watch
) -> None:
    page = opened()
    watch.failed_loads = True
    context.set_offline(True)
    ask(page)
    expect(page.locator(".problem:visible")).to_contain_text("cannot be reached")
    expect(page.get_by_label("Your question")).to_have_value(QUESTION)


def test_a_token_is_asked_for_when_the_server_wants_one(
    opened: Callable[..., Page], predictor: Predictor
) -> None:
    page = opened()
    expect(page.get_by_label("Access token")).to_be_hidden()
    predictor.token = "secret"
    page = opened(refused=True)
    token = page.get_by_label("Access token")
    expect(token).to_be_focused()
    ask(page)
    expect(page.locator(".problem:visible")).to_contain_text("asks for an access token")
    expect(token).to_be_focused()
    token.fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").first).to_contain_text("did not accept this token")
    assert page.evaluate("sessionStorage.length") == 0
    token.fill("secret")
    page.keyboard.press("Enter")
    expect(answer(page)).to_have_text(ANSWER)  # what was refused is asked again
    expect(token).to_be_hidden()
    with page.expect_response("**/agent") as again:
        page.reload()
    assert again.value.status == 200
    assert page.evaluate("localStorage.length + document.cookie.length") == 0
