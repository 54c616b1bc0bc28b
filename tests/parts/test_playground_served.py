"""The playground on the predictor itself: what the page and the server make of one another."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from scripted import FakeRetriever, passages
from served import question, serving

from exsearch.data.questions import read_questions
from exsearch.records import Passage

BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine"),
]
HOSTILE = Passage(
    pid="h",
    title="<script>alert(1)</script>",
    text="<img src=x onerror=alert(2)> first of K7",
    score=9,
)


def test_ask_compare_and_say_what_is_right(chatml, tmp_path: Path) -> None:
    use = tmp_path / "use"
    retriever = FakeRetriever([HOSTILE, *passages()])
    parts = {"candidate": True, "retriever": retriever, "token": "s3cret"}
    with (
        serving(chatml, learning={"folder": str(use)}, **parts) as running,
        sync_api.sync_playwright() as play,
    ):
        browser = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(15_000)
        trouble: list[str] = []
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("dialog", lambda dialog: (trouble.append(dialog.message), dialog.dismiss()))
        page.goto(f"{running.url}/playground/")
        page.get_by_label("Access token").fill("s3cret")
        page.keyboard.press("Enter")
        page.get_by_label("Compare with candidate").check()
        page.get_by_label("Your question").fill(question("K7"))
        page.keyboard.press("Enter")
        answers = page.locator("[data-part=answer]")
        sync_api.expect(answers).to_have_count(2)
        for n in range(2):
            sync_api.expect(answers.nth(n)).to_contain_text("It means K7.")
        sync_api.expect(page.locator(".step")).to_have_count(4)
        sync_api.expect(page.locator("body")).to_contain_text("<script>alert(1)</script>")
        page.get_by_role("button", name="Wrong").first.click()
        page.locator(".feedback input:visible").first.fill("It means seven.")
        page.get_by_role("button", name="Send feedback").first.click()
        sync_api.expect(page.locator(".feedback").first).to_contain_text("kept", ignore_case=True)
        if folder := os.environ.get("EXSEARCH_SCREENSHOTS"):
            page.screenshot(path=f"{folder}/served.png", full_page=True)
        browser.close()
    assert not trouble
    [learned] = read_questions(str(use))
    assert learned.answers == ("It means seven.",)
