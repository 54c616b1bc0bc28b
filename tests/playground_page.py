"""The playground's page as tests see it: an episode, what is found on it, what it may not say."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
from playground_server import Search, passage
from playwright.sync_api import Page

BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
needs_chromium = pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")

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
