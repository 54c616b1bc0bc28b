"""The importer of released `messages` conversations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from exsearch.data.lines import Skipped
from exsearch.data.messages import read_conversations
from exsearch.errors import BadLine

pytestmark = pytest.mark.unit


def turn(role: str, content: Any, key: str = "content") -> dict[str, Any]:
    return {"role": role, key: content}


def trajectory() -> dict[str, Any]:
    return {
        "messages": [
            turn("user", "You search.\n\n<USER QUERY> Who {directed} Orla?\nYour Output:"),
            turn("assistant", "<QUERY> director of Orla", "content:"),
            turn("user", "<SEARCH> [0] Title: Orla. Content: Velda Marsk directed {question}."),
            turn("assistant", "<FACT> Velda Marsk\n<FINAL>"),
            turn("user", "<SEARCH> end search. answer the question: {question}", "content:"),
            turn("assistant", "Velda Marsk"),
        ]
    }


SELECTION = {"messages": [turn("user", "Which of [1] [2] help?"), turn("assistant", "[2] > [1]")]}


def write(path: Path, value: Any) -> str:
    path.write_text(json.dumps(value), encoding="utf-8")
    return str(path)


def test_both_kinds(tmp_path: Path) -> None:
    path = write(tmp_path / "hotpot-traj.100.json", [trajectory(), SELECTION])
    first, second = read_conversations(path)
    assert [first.id, second.id] == ["hotpot-traj.100/1", "hotpot-traj.100/2"]
    assert [m.role for m in first.messages] == ["user", "assistant"] * 3
    assert first.messages[1].content == "<QUERY> director of Orla"
    assert first.messages[2].content.endswith("{question}."), "passages stay as they are"
    assert first.messages[4].content.endswith("question: Who {directed} Orla?")
    assert second.messages[1].content == "[2] > [1]"


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in [trajectory(), SELECTION]))
    assert len(list(read_conversations(str(path)))) == 2


def broken(change: str) -> dict[str, Any]:
    record = trajectory()
    turns = record["messages"]
    match change:
        case "no list":
            record["messages"] = "text"
        case "one turn":
            del turns[1:]
        case "ends with user":
            turns.pop()
        case "role":
            turns[1]["role"] = "tool"
        case "unhashable role":
            turns[1]["role"] = ["assistant"]
        case "no content":
            del turns[3]["content"]
        case "content type":
            turns[3]["content"] = [{"type": "text"}]
        case "empty":
            turns[3]["content"] = " "
        case "no question":
            turns[0]["content"] = "You search."
        case "turn":
            turns[2] = "text"
    return record


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ("no list", "messages"),
        ("one turn", "messages"),
        ("ends with user", "messages"),
        ("role", "messages.1.role"),
        ("unhashable role", "messages.1.role"),
        ("no content", "messages.3.content"),
        ("content type", "messages.3.content"),
        ("empty", "messages.3.content"),
        ("no question", "messages.4.content"),
        ("turn", "messages.2"),
    ],
)
def test_broken(tmp_path: Path, change: str, field: str) -> None:
    path = write(tmp_path / "m.json", [SELECTION, broken(change), SELECTION])
    with pytest.raises(BadLine) as caught:
        list(read_conversations(path))
    assert (caught.value.line, caught.value.unit, caught.value.field) == (2, "element", field)
    report = Skipped()
    assert len(list(read_conversations(path, skip_bad=True, report=report))) == 2
    assert report.counts == {field: 1}
