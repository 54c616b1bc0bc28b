"""`compare`, `gate` and `report` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from synthetic_run import make_run
from typer.testing import CliRunner, Result

from exsearch.cli.app import app
from exsearch.errors import InputError

pytestmark = pytest.mark.unit

FAST = ["--set", "evaluation.bootstrap=200"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "demo", questions=40, samples=2)


def call(*words: str | Path) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_compare_two_stages(run: Path) -> None:
    result = call("compare", run / "iter-02", run / "base" / "eval", "--json", *FAST)
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert [c["metric"] for c in document["comparisons"]] == ["em", "f1", "accuracy"]
    first = document["comparisons"][0]
    assert (first["candidate"], first["champion"], first["n"]) == ("iter-02", "base", 40)
    gain = document["candidate"]["em"] - document["champion"]["em"]
    assert first["gain"] == pytest.approx(gain)


def test_compare_prints_a_table_for_people_on_stderr(run: Path) -> None:
    result = call("compare", run / "iter-02", run / "base", *FAST)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "95% interval" in result.stderr


def test_compare_predictions_files(tmp_path: Path) -> None:
    asked = [{"id": str(i), "question": "?", "answers": ["x"]} for i in range(4)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(q) + "\n" for q in asked))
    for name, answers in (("a", "xxxy"), ("b", "yyyx")):
        lines = [json.dumps({"id": str(i), "answer": a}) for i, a in enumerate(answers)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    result = call("compare", *files, "--questions", tmp_path / "q.jsonl", "--json", *FAST)
    assert json.loads(result.stdout)["comparisons"][0]["gain"] == 0.5
    with pytest.raises(InputError, match="--questions"):
        call("compare", *files)


@pytest.mark.parametrize(
    ("path", "words"), [("nowhere", "there is nothing at"), ("", "no evaluation folder")]
)
def test_compare_names_what_is_no_evaluation(
    run: Path, tmp_path: Path, path: str, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        call("compare", run / "base", tmp_path / path if path else tmp_path)


def test_the_same_stage_of_two_runs_is_told_apart_by_path(run: Path) -> None:
    result = call("compare", run / "base", run / "base" / "eval", "--json", *FAST)
    first = json.loads(result.stdout)["comparisons"][0]
    assert first["candidate"] != first["champion"]


def test_gate_writes_its_decision_and_exits_0_either_way(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "made" / "gate.json"
    sides = ["--candidate", run / "iter-02", "--champion", run / "base", "--out", out, *FAST]
    result = call("gate", *sides, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == json.loads(out.read_text())
    assert json.loads(out.read_text())["promoted"] is True

    back = ["--candidate", run / "base", "--champion", run / "iter-02", "--out", out, *FAST]
    assert call("gate", *back).exit_code == 0
    assert json.loads(out.read_text())["champion"] == "iter-02"
    assert call("gate", *back, "--fail-on-reject").exit_code == 1
    assert call("gate", *sides, "--fail-on-reject").exit_code == 0


def test_gate_follows_the_settings(run: Path, tmp_path: Path) -> None:
    sides = ["--candidate", run / "iter-02", "--champion", run / "base", *FAST]
    result = call("gate", *sides, "--out", tmp_path / "g.json", "--set", "gate.margin=0.99")
    assert result.exit_code == 0
    assert json.loads((tmp_path / "g.json").read_text())["promoted"] is False


def test_report_says_where_it_is(run: Path, tmp_path: Path) -> None:
    result = call("report", run, "--out", tmp_path / "page.html")
    assert result.exit_code == 0
    assert str(tmp_path / "page.html") in result.stderr.replace("\n", "")
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")


def test_report_json_is_the_runs_summary(run: Path) -> None:
    result = call("report", run, "--json")
    assert json.loads(result.stdout) == json.loads((run / "summary.json").read_text())


@pytest.mark.parametrize("command", ["compare", "gate", "report"])
def test_help_ends_with_an_example(command: str) -> None:
    result = call(command, "--help")
    assert result.exit_code == 0
    assert f"exsearch {command} " in result.stdout
