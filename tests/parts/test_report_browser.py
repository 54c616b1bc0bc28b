"""The report in a real browser: its script runs, the viewer works, hostile text stays text."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from urllib.parse import quote

import pytest
from synthetic_run import HOSTILE, make_hostile, make_run

from exsearch.evaluation.report import write_report

BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")


def dom(page: Path, home: Path, address: str = "") -> str:
    """The page's markup after its script has run."""
    assert BROWSER is not None
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        f"--user-data-dir={home}", "--virtual-time-budget=2000", "--dump-dom",
        f"{page.as_uri()}{address}",
    ]  # fmt: skip
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, "HOME": str(home)},
    )
    return done.stdout


def visible(markup: str) -> str:
    """What the cards and the question's head say, as text."""
    shown = markup[markup.index('id="episodes"') : markup.index('id="episodes-data"')]
    return unescape(re.sub(r"<[^>]*>", " ", shown))


def listed(markup: str) -> list[str]:
    """Ids cannot be seen in the list; its questions can."""
    start = markup.index('id="list"')
    return re.findall(r"<li><button.*?>(.*?)<span", markup[start : markup.index("</ul>", start)])


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("runs") / "demo", questions=8, samples=3)
    return Path(write_report(str(folder)))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser")


def test_it_opens_on_the_first_question(page: Path, home: Path) -> None:
    markup = dom(page, home)
    assert len(listed(markup)) == 8
    assert "Id train-000" in " ".join(visible(markup).split())
    assert markup.count('<article class="card') == 3


def test_the_address_selects_a_question(page: Path, home: Path) -> None:
    told = " ".join(visible(dom(page, home, "#q=iter-02/train-005")).split())
    assert "Id train-005" in told
    assert re.search(r"Sample 3 w \d\.\d{3}", told)
    markup = dom(page, home, "#q=test-003")
    told = " ".join(visible(markup).split())
    assert "Id test-003" in told
    assert markup.count('<article class="card') == 4
    for stage in ("base", "warmup", "iter-01", "iter-02"):
        assert stage in told


def test_search_and_keys(page: Path, home: Path) -> None:
    """A copy of the page without its script policy, so that a second script may play the reader."""
    driver = """<script>
      const key = (name, on) =>
        on.dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true}));
      const box = document.getElementById("find"), viewer = document.getElementById("viewer");
      const said = [];
      const rows = () => document.querySelectorAll("#list button").length;
      const note = () => said.push(location.hash + ":" + rows());
      key("ArrowDown", viewer); note();
      key("ArrowDown", viewer); note();
      key("ArrowUp", viewer); note();
      key("ArrowRight", viewer); note();
      key("ArrowRight", viewer); note();
      key("/", document.body);
      said.push(document.activeElement.id);
      box.value = "test-004"; box.dispatchEvent(new Event("input")); note();
      box.value = "zzzz"; box.dispatchEvent(new Event("input")); note();
      document.title = said.join(" ");
    </script></body>"""
    text = re.sub(r"<meta http-equiv=.*?>", "", page.read_text(encoding="utf-8"))
    copy = page.with_name("driven.html")
    copy.write_text(text.replace("</body>", driver), encoding="utf-8")
    title = re.search(r"<title>(.*?)</title>", dom(copy, home))
    assert title is not None
    assert title[1].split() == [
        "#q=iter-01/train-001:8",
        "#q=iter-01/train-002:8",
        "#q=iter-01/train-001:8",
        "#q=iter-02/train-001:8",
        "#q=test/test-000:8",
        "find",
        "#q=test/test-000:1",
        "#q=test/test-000:0",
    ]


def test_hostile_text_stays_text(tmp_path: Path, home: Path) -> None:
    page = Path(write_report(str(make_hostile(tmp_path / "run"))))
    markup = dom(page, home, "#q=" + quote(HOSTILE, safe=""))
    assert "<title>ExSearch run" in markup  # no script of the text's ran
    assert not re.search(r"<img\b", markup[: markup.index('id="episodes-data"')])
    told = visible(markup)
    assert told.count("</script><img src=x onerror=") >= 5  # question, answers, query, passage, …
    assert "{{ 7*7 }}" in told


def test_only_its_own_script_may_run(page: Path, home: Path) -> None:
    copy = page.with_name("injected.html")
    owned = "document.title='owned'"
    added = f'<script>{owned}</script><img src=x onerror="{owned}"></body>'
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", added), encoding="utf-8")
    assert "<title>ExSearch run" in dom(copy, home)
