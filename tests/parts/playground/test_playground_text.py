"""The playground and what others wrote: it stays text, however it is cut."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from playground_page import (
    SEARCHES,
    THIRD,
    Watch,
    answer,
    ask,
    needs_chromium,
    step,
)
from playground_server import (
    Predictor,
    Search,
    answered,
    episode,
    event,
    opening,
    passage,
    searched,
)
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.browser, needs_chromium]


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)><b>bold</b> </textarea>{{7*7}}"


def test_whatever_is_said_stays_text(opened: Callable[..., Page], predictor: Predictor) -> None:
    bad = passage("<i>1</i>", f"Title {HOSTILE}", f"Text {HOSTILE} one two three", 1.0)
    search = Search(f"Query {HOSTILE}", [bad], [1], f"Evidence {HOSTILE} one two three")
    predictor.scripts["exsearch"] = [
        opening(), *searched(1, search), event("repair", 1, text=f"Repair {HOSTILE}"),
        *answered([search], f"Answer {HOSTILE}", f"id {HOSTILE}"),
    ]  # fmt: skip
    page = opened()
    ask(page, f"Question {HOSTILE}")
    page.locator(".passage summary").click()
    shown = {
        "#asked": "Question",
        ".step h4 [data-part=query]": "Query",
        ".step [data-part=title]": "Title",
        ".step [data-part=text]": "Text",
        ".step blockquote": "Evidence",
        "[data-part=answer]": "Answer",
        ".sources button": "Title",
        "[data-part=request]": "id",
    }
    for where, word in shown.items():
        expect(page.locator(where), where).to_contain_text(f"{word} {HOSTILE}")
    expect(page.locator("[data-part=repairs]")).to_contain_text(f"Repair {HOSTILE}")
    expect(page.locator("main :is(script, img, b, i)")).to_have_count(0)
    page.goto("about:blank")
    page.goto(page_address(predictor, HOSTILE))
    expect(page.get_by_label("Your question")).to_have_value(HOSTILE)


def page_address(predictor: Predictor, question: str) -> str:
    from urllib.parse import quote

    return f"{predictor.url}/playground/#q={quote(question, safe='')}"


def test_the_policy_would_stop_a_script(opened: Callable[..., Page], watch: Watch) -> None:
    """That the tests see what the policy refuses: else their silence would mean nothing."""
    page = opened()
    page.evaluate(
        """() => { const script = document.createElement("script");
                   script.textContent = "window.owned = true"; document.body.append(script); }"""
    )
    page.wait_for_timeout(50)
    assert page.evaluate("window.owned") is None
    assert any("Content Security Policy" in seen for seen in watch.seen)
    watch.seen.clear()


def test_the_stream_is_read_however_its_bytes_are_cut(opened: Callable[..., Page]) -> None:
    """Every place to cut in two, and every byte by itself; characters of one to four bytes."""
    sent = (
        ': a comment\r\n\r\ndata: {"a": "Åsel 東京 😀"}\r\n\r\nevent: x\ndata:one\ndata: two é\n\n'
        "data: [DONE]\n\ndata: never ended 😀"
    )
    read = opened().evaluate(
        """async sent => {
             const { serverEvents } = await import("./events.js");
             const bytes = new TextEncoder().encode(sent);
             const read = async pieces => {
               const body = new ReadableStream({ start(to) {
                 for (const piece of pieces) to.enqueue(piece);
                 to.close();
               } });
               const found = [];
               for await (const data of serverEvents(body)) found.push(data);
               return JSON.stringify(found);
             };
             const results = new Set([await read([...bytes].map(each => new Uint8Array([each])))]);
             for (let at = 0; at <= bytes.length; at += 1) {
               results.add(await read([bytes.slice(0, at), bytes.slice(at)]));
             }
             return [...results].map(each => JSON.parse(each));
           }""",
        sent,
    )
    assert read == [['{"a": "Åsel 東京 😀"}', "one\ntwo é", "[DONE]"]]


RUNS = {
    "three words, whatever their case": ("a THE big Dog ran", "the big dog", ["THE big Dog"]),
    "two that name something": ("by Ada Lovelace in May", "Ada Lovelace did", ["Ada Lovelace"]),
    "two that do not": ("one of the dogs", "it is of the kind", []),
    "one alone": ("Paris is large", "Paris was small", []),
    "a date": ("on 3 May, they", "It was 3 May 1941", ["3 May"]),
    "across punctuation": (
        "Ada (born 1815, London) died",
        "born 1815 London",
        ["born 1815, London"],
    ),
    "the longest of several": ("a b c d e", "a b c. x. a b c d", ["a b c d"]),
    "twice in the passage": ("x y z, and x y z", "x y z", ["x y z", "x y z"]),
    "nothing in common": ("x y z", "", []),
}


@pytest.mark.parametrize(("text", "evidence", "runs"), RUNS.values(), ids=RUNS)
def test_shared_runs_of_words(
    opened: Callable[..., Page], text: str, evidence: str, runs: list[str]
) -> None:
    found = opened().evaluate(
        """async ([text, evidence]) => {
             const { sharedRuns } = await import("./highlight.js");
             return sharedRuns(text, evidence).map(([start, end]) => text.slice(start, end));
           }""",
        [text, evidence],
    )
    assert found == runs


def test_characters_cut_in_two_on_the_wire(
    opened: Callable[..., Page], predictor: Predictor
) -> None:
    """Each piece is held back until the page has had time to read the one before."""
    whole = b"".join(episode(SEARCHES, "Åsel 東京 😀"))
    cuts = [at for at in range(1, len(whole)) if whole[at] & 0xC0 == 0x80]
    script: list[bytes | threading.Event] = []
    gates: list[threading.Event] = []
    for start, end in zip([0, *cuts[:12]], [*cuts[:12], len(whole)], strict=True):
        gates.append(threading.Event())
        script += [whole[start:end], gates[-1]]
    predictor.scripts["exsearch"] = script
    page = opened()
    ask(page)
    for gate in gates:
        page.wait_for_timeout(25)
        gate.set()
    expect(answer(page)).to_have_text("Åsel 東京 😀")
    expect(step(page, 3).locator("blockquote")).to_have_text(THIRD.evidence or "")
