"""The command line: exit codes, help, one JSON document, errors before work is lost."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from pathlib import Path

import pytest
from cli_process import Done, run, settings, size
from typer.testing import CliRunner

from exsearch.cli.app import COMMANDS, app

pytestmark = pytest.mark.loop

SHARD = "run/iter-01/rollouts/shard-000-of-001.jsonl"


@pytest.fixture
def config(tmp_path: Path, tiny_models, world_files: Path, search_url: str) -> Path:
    return settings(tmp_path, world_files, tiny_models[1], search_url)


# --- help


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    result = CliRunner(env={"COLUMNS": "120"}).invoke(app, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "xample" in result.output
    assert f"exsearch {name}" in result.output


def test_the_list_of_commands_and_the_version() -> None:
    listed = CliRunner().invoke(app, ["--help"])
    assert listed.exit_code == 0
    assert all(name in listed.output for name in COMMANDS)
    version = CliRunner().invoke(app, ["--version"])
    assert version.output.strip()[0].isdigit()


def test_help_answers_without_an_engine() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from typer.testing import CliRunner\n"
        "from exsearch.cli.app import app, COMMANDS\n"
        "for name in COMMANDS: assert CliRunner().invoke(app, [name, '--help']).exit_code == 0\n"
        "print(*({'torch', 'vllm', 'transformers', 'colbert'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# --- wrong usage and input: exit code 2, before any work


def refused(done: Done, *named: str) -> None:
    assert done.code == 2, (done.code, done.err)
    assert "Traceback" not in done.err
    assert done.out == ""
    for text in named:
        assert text in done.err.replace("\n", " "), done.err


def test_wrong_usage(config: Path) -> None:
    refused(run("frobnicate"), "frobnicate")
    refused(run("rollout", "--frob"), "--frob")
    refused(run("rollout", "-c", "gone.yaml"), "gone.yaml")
    refused(run("rollout", "-c", str(config), "-s", "agent.max_step=3"), "agent.max_step")
    refused(run("rollout", "-c", str(config), "--shard", "4/4"), "0/4")
    refused(run("rollout", "-c", str(config), "-s", "data.train=[]"), "data.train")
    refused(run("evaluate", "-s", "seed=x"), "seed")


@pytest.mark.parametrize("command", ["rollout", "evaluate", "em", "ask"])
def test_a_checkpoint_cut_short_is_refused_before_any_work(
    tmp_path: Path, config: Path, tiny_models, command: str
) -> None:
    model = tmp_path / "cut"
    shutil.copytree(tiny_models[1], model)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    asked = ["Where?"] if command == "ask" else []
    done = run(command, "-c", str(config), "-s", f"model.path={model}", *asked)
    refused(done, "model.safetensors", "damaged or cut short")
    assert not list(tmp_path.glob("run/**/*.jsonl*"))


def test_a_broken_question_file_names_its_line(tmp_path: Path, config: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"id": "1", "question": "q", "answers": ["a"]}\n{"id": "2", "question": "q"}\n')
    done = run("rollout", "-c", str(config), "-s", f"data.train=[{bad}]")
    refused(done, "bad.jsonl, line 2", "answers")


def test_steps_out_of_order_say_what_is_missing(config: Path) -> None:
    refused(run("weigh", "-c", str(config)), "run `exsearch rollout` first")
    refused(run("sft", "-c", str(config)), "run `exsearch warmup` first")
    done = run("align", "-c", str(config))
    assert done.code in (1, 2)
    assert "examples.jsonl" in done.err
    assert "Traceback" not in done.err


def test_no_retriever_is_a_failure_and_no_traceback(config: Path) -> None:
    done = run(
        "rollout", "-c", str(config), "-s", "retrieval.url=http://127.0.0.1:9",
        "-s", "retrieval.timeout=0.5",
    )  # fmt: skip
    assert done.code == 1, done.err
    assert "no retriever answers at" in done.err
    assert "Traceback" not in done.err


# --- one JSON document


def document(done: Done) -> dict:
    assert done.code == 0, done.err
    assert done.out.count("\n") == 1
    return json.loads(done.out)


def test_each_step_prints_one_json_document(tmp_path: Path, config: Path) -> None:
    plan = document(run("rollout", "-c", str(config), "--json", "--dry-run"))
    assert (plan["questions"], plan["episodes"]) == (8, 24)
    assert not (tmp_path / "run").exists()
    sampled = document(run("rollout", "-c", str(config), "--json"))
    assert sampled["episodes"] == 24
    assert size(tmp_path / SHARD) > 0
    weighed = document(run("weigh", "-c", str(config), "--json"))
    assert (weighed["questions"], weighed["samples"]) == (8, 24)
    planned = document(run("align", "-c", str(config), "--json", "--dry-run"))
    assert planned["examples"] >= 0
    out = tmp_path / "eval"
    measured = document(run("evaluate", "-c", str(config), "--json", "--out", str(out)))
    assert measured["n"] == 8
    assert 0.0 <= measured["em"] <= measured["accuracy"] <= 1.0
    again = document(run("evaluate", "-c", str(config), "--json", "--out", str(out)))
    assert {**again, "seconds": 0} == {**measured, "seconds": 0}
    other = run("evaluate", "-c", str(config), "--out", str(out), "-s", "data.eval_limit=4")
    refused(other, "made for other questions")


def test_ask_shows_the_steps_and_prints_one_document(config: Path, tiny_world) -> None:
    outcomes = set()
    for asked in tiny_world.questions["train"][:3]:
        done = run("ask", "-c", str(config), asked.question)
        assert done.code in (0, 1)
        assert ("answer" in done.err) == (done.code == 0) or "no answer" in done.err
        assert "1. search" in done.err
        assert "Traceback" not in done.err
        assert done.out == ""
        outcomes.add(done.code)
    told = run("ask", "-c", str(config), "--json", tiny_world.questions["train"][0].question)
    answer = json.loads(told.out)
    assert answer.keys() == {"question", "answer", "failure", "steps"}
    assert (answer["answer"] is None) == (told.code == 1)
    refused(run("ask", "-c", str(config), "  "), "the question is empty")


# --- a full disk


DISK = 40_000
"""Bytes per file: less than a shard, more than a question's samples."""


def limit_file_size(limit: int):
    """A disk that takes `limit` bytes per file and no more."""

    def before() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
        )

    return before


def test_a_full_disk_is_an_error_and_what_was_appended_stays(
    tmp_path: Path, config: Path, tiny_models
) -> None:
    done = run("rollout", "-c", str(config), preexec_fn=limit_file_size(DISK))
    assert done.code == 1, done.err
    assert "cannot append to" in done.err
    assert "disk has room" in done.err.replace("\n", " ")
    assert "Traceback" not in done.err
    partial = tmp_path / f"{SHARD}.partial"
    kept = partial.read_bytes()
    assert 0 < len(kept) <= DISK
    assert kept.endswith(b"\n")
    assert kept.count(b"\n") % 3 == 0
    for line in kept.splitlines():
        json.loads(line)
    assert run("rollout", "-c", str(config)).code == 0
    whole = (tmp_path / SHARD).read_bytes()
    assert all(line in whole for line in kept.splitlines(True))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path, config: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o500)
    done = run("rollout", "-c", str(config))
    assert done.code == 1
    assert "cannot append to" in done.err
