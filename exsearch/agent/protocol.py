"""The trajectory protocol: what the agent and the environment may say.

The markers are those of the paper's code (mangopy/SearchLM, `src/instruction.py`):

    user       the question
    assistant  <QUERY> sub-query
    user       <SEARCH> [1] Title: … Content: …
    assistant  <FACT> evidence
               <QUERY> next sub-query          (or <FINAL>)
    user       <SEARCH> … give the final answer …
    assistant  the answer

This module knows text only: it writes the environment's replies, reads the
agent's turns, and makes sure that data (questions, passages) can never speak
the protocol itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from exsearch.config import AgentConfig
from exsearch.records import Conversation, Demonstration, Message, Passage, Role, Step

QUERY, SEARCH, FACT, FINAL = "<QUERY>", "<SEARCH>", "<FACT>", "<FINAL>"

_MARKER = re.compile(r"<(QUERY|SEARCH|FACT|FINAL)>")
_FORGED = re.compile(r"<\s*/?\s*(QUERY|SEARCH|FACT|FINAL)\s*/?\s*>", re.IGNORECASE)
# C0/C1 controls, zero-width and bidirectional marks, BOM, unpaired surrogates:
# invisible, and able to hide or reorder what a reader or a tokenizer sees.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
_NUMBER = re.compile(r"\[\s*(\d{1,4})\s*\]")
_LONGEST_WORD = 40


class Malformed(ValueError):
    """The agent's turn does not follow the protocol; the message says how."""


@dataclass(frozen=True)
class Turn:
    """One assistant turn, read: evidence for the last search, then a query or the end."""

    fact: str | None
    query: str | None

    @property
    def final(self) -> bool:
        return self.query is None


def plain(text: str, max_words: int) -> str:
    """Data made safe to quote: one line, at most `max_words` words, no protocol markers.

    Markers are kept readable (`‹FACT›`) but can no longer be parsed as such.
    Words longer than 40 characters are cut, so the result is bounded in length.
    """
    words: list[str] = []
    # A bounded slice first: a 1 MB passage costs no more than a long one.
    for word in _INVISIBLE.sub(" ", text[: max_words * (_LONGEST_WORD + 1) * 2]).split():
        if len(words) == max_words:
            break
        words.append(word[:_LONGEST_WORD])
    return _FORGED.sub(lambda match: f"‹{match.group(1)}›", " ".join(words))


def parse_turn(text: str) -> Turn:
    """Read an assistant turn.

    Raises:
        Malformed: no marker, text before the first one, a forged <SEARCH>, an empty
            or second query, or evidence followed by nothing.
    """
    lead, *rest = _MARKER.split(text)
    parts = list(zip(rest[::2], (body.strip() for body in rest[1::2]), strict=True))
    names = [name for name, _ in parts]
    if not parts:
        raise Malformed("no marker")
    if lead.strip():
        raise Malformed(f"text before <{parts[0][0]}>")
    if "SEARCH" in names:
        raise Malformed("the agent wrote <SEARCH>, which only the environment may")
    fact = None
    if names[0] == "FACT":
        fact = parts.pop(0)[1]
        if not fact:
            raise Malformed("empty <FACT>")
    if len(parts) != 1 or parts[0][0] == "FACT":
        raise Malformed("expected exactly one <QUERY> or <FINAL>")
    name, body = parts[0]
    if name == "FINAL":
        return Turn(fact, None)
    if not body:
        raise Malformed("empty <QUERY>")
    return Turn(fact, " ".join(body.split()))


def parse_selection(text: str, offered: int, most: int) -> tuple[int, ...]:
    """Positions chosen in `[2] > [1]`, counted from 1, best first, at most `most`.

    `none` selects nothing. Numbers outside 1..`offered` and repeats are passed over.

    Raises:
        Malformed: nothing usable in the text.
    """
    if text.strip().strip(".").lower() == "none":
        return ()
    chosen = dict.fromkeys(int(n) for n in _NUMBER.findall(text) if 1 <= int(n) <= offered)
    if not chosen:
        raise Malformed(f"no passage number between [1] and [{offered}]")
    return tuple(chosen)[:most]


def write_turn(fact: str | None, query: str | None) -> str:
    """The canonical text of an assistant turn; inverse of `parse_turn`."""
    evidence = f"{FACT} {fact}\n" if fact else ""
    return f"{evidence}{FINAL}" if query is None else f"{evidence}{QUERY} {query}"


def write_selection(kept: Sequence[int]) -> str:
    return " > ".join(f"[{position}]" for position in kept) or "none"


def list_passages(passages: Sequence[Passage], kept: Sequence[int], max_words: int) -> str:
    """`[n] Title: … Content: …`, one line per kept passage, n its position from 1."""
    return "\n".join(
        f"[{n}] Title: {plain(passages[n - 1].title, 30)} "
        f"Content: {plain(passages[n - 1].text, max_words)}"
        for n in kept
    )


def search_reply(passages: Sequence[Passage], kept: Sequence[int], max_words: int) -> str:
    if not kept:
        return f"{SEARCH} nothing useful was found."
    return f"{SEARCH} {list_passages(passages, kept, max_words)}"


def closing_reply(question: str) -> str:
    return f"{SEARCH} The search is over. Give the final answer to the question: {question}"


def repair_reply(problem: Malformed) -> str:
    return (
        f"{SEARCH} Not understood: {problem}. "
        f"Write {QUERY} and a sub-query, or {FACT} and a fact followed by {QUERY} or {FINAL}."
    )


def selection_request(query: str, passages: Sequence[Passage], max_words: int) -> str:
    listing = list_passages(passages, range(1, len(passages) + 1), max_words)
    return f"Query: {query}\n{listing}"


def selection_repair(problem: Malformed) -> str:
    return f"Not understood: {problem}. Write numbers only, for example: [2] > [1]"


def question_text(question: str) -> str:
    """A question as the transcript shows it."""
    return plain(question, 400)


def demonstrate(demo: Demonstration, agent: AgentConfig) -> list[Conversation]:
    """A gold episode as conversations: the episode itself, then its selections.

    With `selection: top_n` no selection is taught, and each step shows the first
    `top_n` passages, as it will at run time.
    """
    question = question_text(demo.question)
    turns: list[tuple[Role, str]] = [("system", agent.instruction), ("user", question)]
    fact: str | None = None
    for step in demo.steps:
        turns.append(("assistant", write_turn(fact, plain(step.query, 100))))
        kept = kept_at_run_time(step, agent)
        turns.append(("user", search_reply(step.passages, kept, agent.max_passage_words)))
        fact = plain(step.evidence or "", 100) or None
    turns.append(("assistant", write_turn(fact, None)))
    turns.append(("user", closing_reply(question)))
    turns.append(("assistant", plain(demo.answer, 100)))
    conversations = [_conversation(demo.id, turns)]
    if agent.selection == "learned":
        conversations += [
            _conversation(f"{demo.id}/selection-{number}", _selection_turns(step, agent))
            for number, step in enumerate(demo.steps, 1)
            if step.passages
        ]
    return conversations


def kept_at_run_time(step: Step, agent: AgentConfig) -> tuple[int, ...]:
    """What the transcript shows of a gold step's passages."""
    if agent.selection == "learned":
        return step.kept[: agent.top_n]
    return tuple(range(1, min(agent.top_n, len(step.passages)) + 1))


def _selection_turns(step: Step, agent: AgentConfig) -> list[tuple[Role, str]]:
    request = selection_request(plain(step.query, 100), step.passages, agent.max_passage_words)
    return [
        ("system", agent.selection_instruction),
        ("user", request),
        ("assistant", write_selection(step.kept[: agent.top_n])),
    ]


def _conversation(name: str, turns: Sequence[tuple[Role, str]]) -> Conversation:
    return Conversation(
        id=name, messages=tuple(Message(role=role, content=content) for role, content in turns)
    )
