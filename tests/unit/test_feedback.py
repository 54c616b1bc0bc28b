"""Learning from use: what is written, and what the next run reads of it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from exsearch.config import LearningConfig
from exsearch.data.feedback import question_id
from exsearch.data.lines import Skipped
from exsearch.data.questions import read_questions
from exsearch.errors import BadLine, InputError
from exsearch.serving.feedback import FeedbackRequest, LearningLog, redactor

pytestmark = pytest.mark.unit


def said(verdict: str = "up", *answers: str) -> FeedbackRequest:
    return FeedbackRequest.model_validate(
        {"request_id": "r", "verdict": verdict, "answers": list(answers)}
    )


def log(folder: Path, **more: object) -> LearningLog:
    return LearningLog(LearningConfig.model_validate({"folder": str(folder), **more}))


def questions(folder: Path) -> list[tuple[str, tuple[str, ...]]]:
    return [(q.question, q.answers) for q in read_questions(str(folder))]


def test_nothing_is_kept_unless_a_folder_is_named() -> None:
    off = LearningLog(LearningConfig())
    assert not off.keeps
    assert not off.write("q", "a", said())


def test_the_latest_verdict_on_a_question_counts(tmp_path: Path) -> None:
    kept = log(tmp_path)
    assert kept.write("Who?", "Ann", said("up"))
    assert kept.write("Where?", "Rome", said("down"))
    assert kept.write("When?", "1900", said("down", "1901", "in 1901"))
    assert kept.write("What?", "tea", said("up"))
    time.sleep(0.002)
    assert kept.write(" WHAT? ", "tea", said("down"))
    assert questions(tmp_path) == [("Who?", ("Ann",)), ("When?", ("1901", "in 1901"))]


def test_a_repeated_verdict_is_one_line(tmp_path: Path) -> None:
    kept = log(tmp_path)
    for _ in range(5):
        assert kept.write("Who?", "Ann", said())
    [file] = tmp_path.iterdir()
    assert len(file.read_text().splitlines()) == 1
    assert file.stat().st_mode & 0o077 == 0


def test_files_rotate_and_the_oldest_go(tmp_path: Path) -> None:
    kept = log(tmp_path, max_bytes=1000, max_files=3)
    for n in range(60):
        assert kept.write(f"Question number {n}?", "x" * 50, said())
    files = sorted(tmp_path.iterdir())
    assert len(files) <= 3
    assert all(file.stat().st_size < 1300 for file in files)
    assert questions(tmp_path)[-1][0] == "Question number 59?"
    assert len(questions(tmp_path)) < 60


def test_old_files_are_deleted(tmp_path: Path) -> None:
    log(tmp_path).write("Old?", "x", said())
    [old] = tmp_path.iterdir()
    long_ago = time.time() - 100 * 86_400
    os.utime(old, (long_ago, long_ago))
    log(tmp_path, retention_days=90).write("New?", "x", said())
    assert questions(tmp_path) == [("New?", ("x",))]


def hide(text: str) -> str | None:
    return None if "secret" in text else text.replace("Ann", "[name]")


def test_texts_are_redacted_first(tmp_path: Path) -> None:
    kept = log(tmp_path, redact="test_feedback:hide")
    assert not kept.write("My secret?", "x", said())
    assert kept.write("Who is Ann?", "Ann B", said())
    assert questions(tmp_path) == [("Who is [name]?", ("[name] B",))]


@pytest.mark.parametrize("name", ["nothing", "no.module:f", "os:nothing", "os:sep", ":"])
def test_a_wrong_hook_is_named(name: str) -> None:
    with pytest.raises(InputError, match=r"serving\.learning\.redact"):
        redactor(name)


def test_an_object_store_cannot_be_appended_to() -> None:
    with pytest.raises(InputError, match="appended"):
        LearningLog(LearningConfig(folder="s3://bucket/use"))


def test_a_line_cut_by_a_kill_is_passed_over_and_a_broken_one_is_not(tmp_path: Path) -> None:
    kept = log(tmp_path)
    kept.write("Who?", "Ann", said())
    kept.write("Where?", "Rome", said())
    [file] = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-10])
    assert questions(tmp_path) == [("Who?", ("Ann",))]
    file.write_bytes(b'{"id": 3}\n' + whole)
    with pytest.raises(BadLine, match="line 1"):
        questions(tmp_path)
    report = Skipped()
    assert len(list(read_questions(str(tmp_path), skip_bad=True, report=report))) == 2
    assert report.total == 1


def test_a_log_that_is_not_there_yet_holds_no_questions(tmp_path: Path) -> None:
    assert list(read_questions(f"{tmp_path}/none/")) == []


def test_hostile_texts_stay_one_line_of_json(tmp_path: Path) -> None:
    kept = log(tmp_path)
    kept.write('a"\n{"id":"x"}\u2028\ud800', "b\r\n", said())
    [file] = tmp_path.iterdir()
    [line, rest] = file.read_text().split("\n")
    assert not rest
    assert json.loads(line)["question"].startswith('a"\n{')


def test_ids_do_not_depend_on_case_and_spaces() -> None:
    assert question_id("Who  is\tthis? ") == question_id("WHO is this?")
    assert question_id("Who is that?") != question_id("Who is this?")
