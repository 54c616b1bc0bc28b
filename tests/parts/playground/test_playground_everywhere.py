"""The playground for everybody, everywhere: screen readers, phones, motion."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playground_page import (
    ANSWER,
    FIRST,
    RIVER,
    SECOND,
    answer,
    ask,
    needs_chromium,
    step,
)
from playground_server import (
    Predictor,
    Search,
    episode,
    failed,
    opening,
    passage,
    searched,
)
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.browser, needs_chromium]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_accessibility_problem(
    opened: Callable[..., Page], predictor: Predictor, page: Page, screenshots: Path, scheme: Any
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()

    def serious() -> list[str]:
        found = axe.run(page).response["violations"]
        return [
            f"{each['id']}: {node['html']}"
            for each in found
            if each["impact"] in ("serious", "critical")
            for node in each["nodes"]
        ]

    predictor.candidate = True
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    opened()
    page.get_by_text("Options").click()
    assert serious() == []
    page.get_by_text("Options").click()
    ask(page)
    expect(answer(page)).to_have_text(ANSWER)
    step(page, 3).locator("summary").first.click()
    step(page, 1).get_by_text("more passages").click()
    page.get_by_role("button", name="Wrong").click()
    assert serious() == []
    page.screenshot(path=screenshots / f"{scheme}.png", full_page=True)
    predictor.scripts["exsearch"] = [opening(), *searched(1, FIRST), *failed("late", "deadline")]
    ask(page)
    expect(page.locator(".problem:visible")).to_be_visible()
    assert serious() == []
    page.screenshot(path=screenshots / f"{scheme}-problem.png", full_page=True)


@pytest.mark.parametrize(("width", "height"), [(360, 740), (320, 640)])
def test_a_phone_needs_no_sideways_scroll(
    opened: Callable[..., Page],
    predictor: Predictor,
    page: Page,
    screenshots: Path,
    width: int,
    height: int,
) -> None:
    long = passage("9", "W" * 80, "https://example.org/" + "x" * 200, 1.0)
    last = Search("y" * 120, [long, RIVER], [1], "z" * 150)
    predictor.candidate = True
    page.set_viewport_size({"width": width, "height": height})
    opened()

    def sideways() -> int:
        page.wait_for_timeout(50)
        return page.evaluate("document.documentElement.scrollWidth - innerWidth")

    assert sideways() <= 0
    ask(page)
    expect(answer(page)).to_have_text(ANSWER)
    page.screenshot(path=screenshots / f"phone-{width}.png", full_page=True)
    predictor.scripts["exsearch"] = episode([FIRST, last], "q" * 90)
    predictor.scripts["exsearch-candidate"] = predictor.scripts["exsearch"]
    page.get_by_label("Compare with candidate").check()
    ask(page, "v" * 100)
    expect(page.locator(".feedback")).to_have_count(2)
    step(page, 2).locator("summary").first.click()
    page.get_by_role("button", name="Wrong").first.click()
    assert sideways() <= 0


def test_motion_only_where_it_is_wanted(
    opened: Callable[..., Page], predictor: Predictor, page: Page, screenshots: Path
) -> None:
    predictor.scripts["exsearch"] = [
        opening(), *searched(1, FIRST), *searched(2, SECOND)[:2], threading.Event(),
    ]  # fmt: skip
    opened()
    ask(page)
    expect(step(page, 2).get_by_text("2 passages found")).to_be_visible()
    page.screenshot(path=screenshots / "searching.png", full_page=True)
    running = "document.getAnimations().length"
    assert page.evaluate(running) == 0
    page.emulate_media(reduced_motion="no-preference")
    page.wait_for_function(f"{running} > 0")
    page.keyboard.press("Escape")
