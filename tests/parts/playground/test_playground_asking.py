"""The playground in headless Chromium: asking, passages and evidence, two models."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from playground_page import (
    ANSWER,
    FILM,
    FIRST,
    QUESTION,
    SEARCHES,
    SECOND,
    THIRD,
    answer,
    ask,
    marks,
    needs_chromium,
    step,
)
from playground_server import (
    Predictor,
    answered,
    episode,
    opening,
    searched,
)
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.browser, needs_chromium]


def test_asked_by_keyboard_steps_are_seen_as_they_happen(
    opened: Callable[..., Page], predictor: Predictor
) -> None:
    gates = [threading.Event() for _ in range(4)]
    query, passages, kept, evidence = searched(1, FIRST)
    predictor.scripts["exsearch"] = [
        opening(), query, gates[0], passages, gates[1], kept, evidence, gates[2],
        *searched(2, SECOND), gates[3], *searched(3, THIRD), *answered(SEARCHES, ANSWER),
    ]  # fmt: skip
    page = opened()
    status = page.get_by_role("status").first
    page.keyboard.press("Tab")
    expect(page.get_by_label("Your question")).to_be_focused()
    page.keyboard.type(QUESTION)
    page.keyboard.press("Enter")

    expect(status).to_have_text("Searching: Who directed Northern Glass?")
    expect(step(page, 1)).to_contain_text("Who directed Northern Glass?")
    expect(step(page, 1).locator("details.passage")).to_have_count(0)
    expect(page.get_by_label("Your question")).to_be_focused()
    gates[0].set()
    expect(step(page, 1)).to_contain_text("3 passages found")
    expect(step(page, 1).locator("[data-part=kept-tag]:not([hidden])")).to_have_count(0)
    gates[1].set()
    expect(step(page, 1).locator("blockquote")).to_have_text(FIRST.evidence or "")
    expect(step(page, 1)).to_contain_text("2 more passages found")
    first = step(page, 1).locator("details.passage").first
    expect(first).to_contain_text("Northern Glass")
    expect(first.locator("[data-part=kept-tag]")).to_be_visible()
    gates[2].set()
    expect(step(page, 2).locator("blockquote")).to_have_text(SECOND.evidence or "")
    expect(page.locator(".step")).to_have_count(2)
    expect(answer(page)).to_be_hidden()
    gates[3].set()
    expect(answer(page)).to_have_text(ANSWER)
    expect(status).to_have_text(f"Answer: {ANSWER}")
    expect(page.get_by_role("heading", level=2)).to_have_text(QUESTION)
    expect(page.locator(".figures")).to_contain_text(
        "Took 4.31 s: waiting 0.02 s, engine 3.50 s, retriever 0.74 s"
    )
    expect(page.locator(".figures")).to_contain_text("Read 2,310 tokens (1,204 cached), wrote 96")
    expect(page.get_by_label("Your question")).to_be_focused()
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()

    [sent] = predictor.asked
    assert sent["messages"] == [{"role": "user", "content": QUESTION}]
    assert (sent["model"], sent["stream"]) == ("exsearch", True)
    assert sent["exsearch"] == {"max_steps": 8, "passages": 20}


def test_limits_are_lowered_and_never_raised(
    opened: Callable[..., Page], predictor: Predictor
) -> None:
    page = opened()
    page.get_by_text("Options").click()
    page.get_by_label("Searches at most").fill("3")
    page.get_by_label("Passages per search").fill("999")
    ask(page)
    expect(answer(page)).to_have_text(ANSWER)
    assert predictor.asked[0]["exsearch"] == {"max_steps": 3, "passages": 20}


def test_the_address_fills_the_question_and_does_not_send_it(
    opened: Callable[..., Page], predictor: Predictor
) -> None:
    page = opened("#q=Who%20wrote%20%2B%20%E6%9D%B1%E4%BA%AC%3F")
    field = page.get_by_label("Your question")
    expect(field).to_have_value("Who wrote + 東京?")
    assert predictor.asked == []
    field.focus()
    page.keyboard.press("Enter")
    expect(answer(page)).to_have_text(ANSWER)
    assert predictor.asked[0]["messages"][0]["content"] == "Who wrote + 東京?"


def test_an_empty_and_an_overlong_question_are_not_sent(
    opened: Callable[..., Page], predictor: Predictor
) -> None:
    predictor.limits["question"] = 10
    page = opened()
    field = page.get_by_label("Your question")
    ask(page, "   ")
    expect(field).to_have_accessible_description(re.compile("Write a question first"))
    ask(page, "東京" * 6)
    expect(field).to_have_accessible_description(re.compile("12 characters; this server takes 10"))
    expect(field).to_be_focused()
    assert predictor.asked == []
    ask(page, "😀" * 10)  # ten characters, though twenty of the browser's units
    expect(answer(page)).to_have_text(ANSWER)


def test_a_passage_opens_by_keyboard_and_shows_its_evidence(opened: Callable[..., Page]) -> None:
    page = opened()
    ask(page)
    expect(answer(page)).to_have_text(ANSWER)
    assert marks(page, 1) == {
        "Northern Glass": ["Northern Glass", "was directed by Ilse Marrow"],
        "Glass (band)": [],
        "Ilse Marrow": [],
    }
    assert marks(page, 3)["Veldhaven"] == ["The river Åsel flows through Veldhaven"]
    text = step(page, 1).get_by_text("directed by Ilse Marrow and shot", exact=False)
    expect(text).to_be_hidden()
    summary = step(page, 1).locator("summary", has_text="Northern Glass")
    for _ in range(20):
        page.keyboard.press("Tab")
        if summary.evaluate("each => each === document.activeElement"):
            break
    page.keyboard.press("Enter")
    expect(step(page, 1).locator("details[open] p")).to_have_text(str(FILM["text"]))


def test_a_citation_leads_to_its_passage(opened: Callable[..., Page]) -> None:
    page = opened()
    ask(page)
    sources = page.locator(".sources")
    expect(sources.get_by_role("listitem")).to_have_text(
        [
            re.compile(r"Northern Glass\s+search 1"),
            re.compile(r"Ilse Marrow\s+search 2"),
            re.compile(r"Veldhaven\s+search 3"),
            re.compile(r"Ilse Marrow\s+search 3"),
        ]
    )
    sources.get_by_role("button", name="Veldhaven").focus()
    page.keyboard.press("Enter")
    target = step(page, 3).locator("details.passage", has_text="Veldhaven").first
    expect(target).to_have_attribute("open", "")
    expect(target.locator("summary")).to_be_focused()
    expect(target).to_be_in_viewport()


def test_compare_asks_both_at_once(
    opened: Callable[..., Page], predictor: Predictor, screenshots: Path
) -> None:
    gate = threading.Event()
    predictor.candidate = True
    predictor.scripts = {
        "exsearch": [opening(), *searched(1, FIRST), gate, *answered([FIRST], "Ilse Marrow")],
        "exsearch-candidate": episode(SEARCHES, ANSWER),
    }
    page = opened()
    page.get_by_label("Compare with candidate").check()
    ask(page)
    champion, candidate = page.locator(".run").nth(0), page.locator(".run").nth(1)
    expect(candidate.locator("[data-part=answer]")).to_have_text(ANSWER)  # while the other waits
    expect(champion.locator(".step")).to_have_count(1)
    expect(champion.locator("[data-part=answer]")).to_be_hidden()
    gate.set()
    expect(champion.locator("[data-part=answer]")).to_have_text("Ilse Marrow")
    expect(page.locator("#status p")).to_have_text(
        ["Champion · Answer: Ilse Marrow", f"Candidate · Answer: {ANSWER}"]
    )
    expect(page.get_by_role("heading", level=3)).to_have_text(
        ["Champion aaaaaaaaaaaa", "Candidate cccccccccccc"]
    )
    left, right = champion.bounding_box(), candidate.bounding_box()
    assert left is not None
    assert right is not None
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] < right["x"]
    assert sorted(sent["model"] for sent in predictor.asked) == ["exsearch", "exsearch-candidate"]
    expect(page.locator(".feedback")).to_have_count(2)
    page.screenshot(path=screenshots / "compare.png", full_page=True)


def test_no_candidate_no_comparison(opened: Callable[..., Page]) -> None:
    expect(opened().get_by_label("Compare with candidate")).to_be_hidden()
