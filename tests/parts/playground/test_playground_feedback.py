"""The playground: verdicts on an answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playground_page import (
    ask,
    needs_chromium,
)
from playground_server import (
    Predictor,
)
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.browser, needs_chromium]


VERDICTS = {
    "up": ("Right", "", {"verdict": "up"}),
    "down": ("Wrong", "", {"verdict": "down"}),
    "down, with the right answer": (
        "Wrong", " The Tarn <b> ", {"verdict": "down", "answers": ["The Tarn <b>"]},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("thumb", "gold", "body"), VERDICTS.values(), ids=VERDICTS)
def test_feedback(
    opened: Callable[..., Page], predictor: Predictor, thumb: str, gold: str, body: dict[str, Any]
) -> None:
    page = opened()
    ask(page)
    form = page.locator(".feedback")
    expect(form).to_contain_text("This server keeps feedback")
    button = form.get_by_role("button", name=thumb)
    button.focus()
    page.keyboard.press("Enter")
    expect(button).to_have_attribute("aria-pressed", "true")
    if gold:
        form.get_by_label("What is the right answer?").fill(gold)
    form.get_by_role("button", name="Send feedback").press("Enter")
    expect(form.get_by_role("status")).to_have_text("Thank you. Your feedback is kept.")
    expect(form.get_by_role("status")).to_be_focused()
    assert predictor.feedback == [{"request_id": "req-1", **body}]


def test_feedback_that_is_not_kept_is_said_so(
    opened: Callable[..., Page], predictor: Predictor
) -> None:
    predictor.kept = False
    page = opened()
    ask(page)
    form = page.locator(".feedback")
    expect(form).to_contain_text("does not keep feedback")
    form.get_by_role("button", name="Wrong").click()
    expect(form.get_by_label("What is the right answer?")).to_be_hidden()
    form.get_by_role("button", name="Send feedback").click()
    expect(form.get_by_role("status")).to_contain_text("it is not kept")
    assert predictor.feedback == [{"request_id": "req-1", "verdict": "down"}]


def test_feedback_on_a_forgotten_answer(opened: Callable[..., Page], predictor: Predictor) -> None:
    predictor.forgets = True
    page = opened(refused=True)
    ask(page)
    form = page.locator(".feedback")
    form.get_by_role("button", name="Right").click()
    form.get_by_role("button", name="Send feedback").click()
    expect(form.get_by_role("status")).to_contain_text("no longer remembers this answer")
    expect(form.get_by_role("button", name="Send feedback")).to_be_enabled()
