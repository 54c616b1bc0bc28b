"""A browser, a scripted predictor, and the page opened."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playground_page import ANSWER, BROWSER, SEARCHES, Watch
from playground_server import Predictor, episode, serving
from playwright import sync_api
from playwright.sync_api import Browser, BrowserContext, Page, expect


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_api.sync_playwright() as play:
        launched = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Predictor]:
    with serving(Predictor()) as predictor:
        yield predictor


@pytest.fixture
def predictor(server: Predictor) -> Predictor:
    """The stand-in as new: its address stays, all that a test set or asked is gone."""
    fresh = Predictor(url=server.url, scripts={"exsearch": episode(SEARCHES, ANSWER)})
    server.__dict__.update(fresh.__dict__)
    return server


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    made.set_default_timeout(10_000)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


@pytest.fixture
def watch(page: Page) -> Iterator[Watch]:
    watching = Watch(page)
    yield watching
    assert watching.seen == []


@pytest.fixture
def opened(page: Page, predictor: Predictor, watch: Watch) -> Callable[..., Page]:
    """Open the page, once the test has set the predictor up; wait until it knows the server."""

    def open_it(address: str = "", *, refused: bool = False) -> Page:
        watch.failed_loads = refused
        with page.expect_response("**/agent"):
            page.goto(f"{predictor.url}/playground/{address}")
        if not refused:
            expect(page.locator("#served")).to_have_text(re.compile("^Model aaaaaaaaaaaa"))
        return page

    return open_it


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("EXSEARCH_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
