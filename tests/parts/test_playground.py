"""The playground in headless Chromium, against a predictor that a test scripts."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playground_server import (
    BREAK,
    Predictor,
    Search,
    answered,
    episode,
    event,
    failed,
    opening,
    passage,
    searched,
    serving,
)

BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from playwright.sync_api import Browser, BrowserContext, Page, expect  # noqa: E402

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine"),
]

QUESTION = "Which river flows through the town where the director of Northern Glass was born?"
FILM = passage(
    "12",
    "Northern Glass",
    "Northern Glass is a 1987 drama film. It was directed by Ilse Marrow and shot in nine weeks. "
    "The film won two prizes at the festival of Tarn.",
    24.81,
)
ACTOR = passage("31", "Glass (band)", "Glass were a band of four brothers from the north.", 17.2)
TOWN = passage(
    "47",
    "Ilse Marrow",
    "Ilse Marrow (born 3 May 1941 in Veldhaven) is a director of films and of plays. She studied "
    "in Tarn before she turned to the cinema.",
    26.02,
)
RIVER = passage(
    "58",
    "Veldhaven",
    "Veldhaven is a town of 31,000 people. The river Åsel flows through Veldhaven and meets the "
    "sea eleven kilometres further on. 東京 is its sister town.",
    25.4,
)
FIRST = Search(
    "Who directed Northern Glass?",
    [ACTOR, FILM, TOWN],
    [2],
    "Northern Glass was directed by Ilse Marrow.",
)
SECOND = Search(
    "Where was Ilse Marrow born?", [TOWN, ACTOR], [1], "Ilse Marrow was born in Veldhaven."
)
THIRD = Search(
    "Which river flows through Veldhaven?",
    [RIVER, TOWN, FILM, ACTOR],
    [1, 2],
    "The river Åsel flows through Veldhaven. 東京",
)
SEARCHES = [FIRST, SECOND, THIRD]
ANSWER = "The Åsel"


class Watch:
    """Console errors, uncaught errors and dialogs; none may be left at a test's end."""

    def __init__(self, page: Page) -> None:
        self.seen: list[str] = []
        self.failed_loads = False
        """Whether the browser may report answers that are not 200, and broken connections."""
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.seen.append(f"uncaught: {error}"))
        page.on("dialog", self._dialog)

    def _console(self, message: Any) -> None:
        expected = self.failed_loads and message.text.startswith("Failed to load resource")
        if message.type in ("error", "warning") and not expected:
            self.seen.append(f"{message.type}: {message.text}")

    def _dialog(self, dialog: Any) -> None:
        self.seen.append(f"dialog: {dialog.message}")
        dialog.dismiss()


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


def ask(page: Page, question: str = QUESTION) -> None:
    page.get_by_label("Your question").fill(question)
    page.keyboard.press("Enter")


def step(page: Page, number: int) -> Any:
    return page.locator(".step").nth(number - 1)


def answer(page: Page) -> Any:
    return page.locator("[data-part=answer]")


def marks(page: Page, number: int) -> dict[str, list[str]]:
    """By title of passage, what is highlighted in a step."""
    return step(page, number).evaluate(
        """step => Object.fromEntries([...step.querySelectorAll("details.passage")].map(each => [
             each.querySelector("[data-part=title]").textContent,
             [...each.querySelectorAll("mark")].map(mark => mark.textContent)]))"""
    )


# ---------------------------------------------------------------- asking


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


# ---------------------------------------------------------------- passages and evidence


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


# ---------------------------------------------------------------- the page's pure parts


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


# ---------------------------------------------------------------- feedback

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


# ---------------------------------------------------------------- two models


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


# ---------------------------------------------------------------- when it does not go well


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


# ---------------------------------------------------------------- everybody, everywhere


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
