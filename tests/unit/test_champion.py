"""The champion's record, and the settings that each run of the pipeline takes from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted import question

from exsearch.agent.model_files import model_digest
from exsearch.config import RunConfig, load, parse
from exsearch.em.champion import (
    Champion,
    previous,
    promote,
    read_champion,
    restorable,
    roll_back,
)
from exsearch.em.record import begin_run, clear_failure, end_run, failure_of, note_failure
from exsearch.em.resolve import index_settings, resolve
from exsearch.errors import ExSearchError, InputError, StorageError

pytestmark = pytest.mark.unit


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "questions.jsonl").write_text(f"{question('q1').to_line()}\n")
    (tmp_path / "corpus.jsonl").write_text('{"id": "1", "title": "t", "text": "x"}\n')
    for name in ("base", "better", "best"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "tokenizer.json").write_text("{}")
        header = json.dumps({"__metadata__": {"name": name}}).encode()
        (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    return tmp_path


def settings(root: Path, *more: str) -> RunConfig:
    asked = [f"data.{name}=[{root}/questions.jsonl]" for name in ("train", "test")]
    data = [f"data.corpus={root}/corpus.jsonl", "data.warmup=[w.jsonl]", *asked]
    return load(None, [f"model.path={root}/base", *data, *more])


def summary(model: Path, em: float = 0.5) -> dict[str, Any]:
    figures = {"comparison": {"candidate": "iter-02"}}
    return {
        "stages": [{"name": "iter-01", "em": 0.1}, {"name": "iter-02", "em": em, "f1": None}],
        "gate": {"promoted": True, "reason": "it is better", "figures": figures},
        "champion": str(model),
    }


def test_the_first_run_starts_from_the_base_model(root: Path) -> None:
    run = resolve(settings(root), str(root), "", "job-1")
    assert run.run == f"{root}/runs/job-1"
    assert run.model.path == f"{root}/base"
    assert run.data.warmup == ("w.jsonl",)
    assert run.gate.champion == run.model.path, "that is in service, not the run's own warm-up"
    assert read_champion(str(root)) is None


def test_later_runs_start_from_the_champion_without_a_warm_up(root: Path) -> None:
    first = resolve(settings(root), str(root), "", "job-1")
    new = promote(str(root), first, summary(root / "better"))
    assert new.metrics == {"em": 0.5}
    second = resolve(settings(root, "gate.champion=x"), str(root), "", "job-2")
    assert second.model.path == f"{root}/better"
    assert second.data.warmup == ()
    assert second.gate.champion == second.model.path, "what is in service is to be beaten"
    promote(str(root), second, summary(root / "best"))
    record = read_champion(str(root))
    assert record is not None
    assert [p.model for p in (record.current, *record.history)] == [
        f"{root}/best",
        f"{root}/better",
    ]


def test_promoting_twice_is_promoting_once(root: Path) -> None:
    run = resolve(settings(root), str(root), "", "job")
    first = promote(str(root), run, summary(root / "better"))
    assert promote(str(root), run, summary(root / "better")) == first
    record = read_champion(str(root))
    assert record is not None
    assert record.history == ()


def test_a_run_that_was_overtaken_promotes_nothing(root: Path) -> None:
    slow = resolve(settings(root), str(root), "", "slow")
    quick = resolve(settings(root), str(root), "", "quick")
    promote(str(root), quick, summary(root / "better"))
    with pytest.raises(ExSearchError, match="better has become champion since"):
        promote(str(root), slow, summary(root / "best"))
    record = read_champion(str(root))
    assert record is not None
    assert record.current.model == f"{root}/better"


def test_a_run_goes_on_from_the_model_it_began_with(root: Path) -> None:
    run = resolve(settings(root), str(root), "", "job")
    begin_run(run)
    assert Path(run.run, "questions.jsonl").read_text() == f"{question('q1').to_line()}\n"
    promote(str(root), run, summary(root / "better"))
    again = resolve(settings(root), str(root), "", "job")
    assert again == run


def promoted(root: Path, *names: str) -> Champion:
    """The record after each of these models was promoted, by a run from the one before."""
    for name in names:
        run = resolve(settings(root), str(root), "", f"to-{name}")
        promote(str(root), run, summary(root / name))
    record = read_champion(str(root))
    assert record is not None
    return record


def names(record: Champion) -> list[tuple[str, bool]]:
    """Folder of each promotion, the newest first, and whether it was withdrawn."""
    every = (record.current, *record.history)
    return [(Path(p.model).name, bool(p.withdrawn)) for p in every]


def test_a_rollback_restores_the_one_before_and_keeps_the_history(root: Path) -> None:
    promoted(root, "base", "better", "best")
    record = roll_back(str(root), *restorable(str(root)), "worse on dates")
    assert read_champion(str(root)) == record
    kept = [("best", True), ("better", False), ("base", False)]
    assert names(record) == [("better", False), *kept]
    assert record.history[0].withdrawn == "worse on dates"
    assert "worse on dates" in record.current.reason
    assert resolve(settings(root), str(root), "", "next").model.path == f"{root}/better"


def test_rolling_back_again_goes_back_by_one_more_and_never_to_and_fro(root: Path) -> None:
    promoted(root, "base", "better", "best")
    roll_back(str(root), *restorable(str(root)), "one")
    record = roll_back(str(root), *restorable(str(root)), "two")
    assert names(record)[0] == ("base", False)
    assert previous(record) is None
    with pytest.raises(InputError, match="holds no promotion before"):
        restorable(str(root))


def test_a_model_that_was_rolled_back_is_not_promoted_again(root: Path) -> None:
    promoted(root, "better")
    run = resolve(settings(root), str(root), "", "job")
    promote(str(root), run, summary(root / "best"))
    record = roll_back(str(root), *restorable(str(root)), "worse")
    # The deploy step is tried again: its run started from the model that is champion again.
    with pytest.raises(ExSearchError, match=r"best was champion and was rolled back \(worse\)"):
        promote(str(root), run, summary(root / "best"))
    assert read_champion(str(root)) == record


def change_weights(root: Path) -> None:
    header = json.dumps({"__metadata__": {"name": "another"}}).encode()
    weights = len(header).to_bytes(8, "little") + header
    (root / "better" / "model.safetensors").write_bytes(weights)


def remove_weights(root: Path) -> None:
    (root / "better" / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("harm", "words"),
    [(change_weights, "has changed since it was promoted"), (remove_weights, "no .*weights")],
)
def test_a_rollback_to_a_model_that_is_gone_or_another_is_refused(
    root: Path, harm: Callable[[Path], None], words: str
) -> None:
    before = promoted(root, "better", "best")
    harm(root)
    with pytest.raises(ExSearchError, match=words):
        restorable(str(root))
    assert read_champion(str(root)) == before


def test_a_rollback_that_was_overtaken_changes_nothing(root: Path) -> None:
    promoted(root, "better", "best")
    seen, target = restorable(str(root))
    now = promoted(root, "base")
    with pytest.raises(ExSearchError, match="changed while this rollback was under way"):
        roll_back(str(root), seen, target, "why")
    assert read_champion(str(root)) == now


def test_a_record_from_before_rollbacks_is_read(root: Path) -> None:
    promoted(root, "better")
    file = root / "champion.json"
    record = json.loads(file.read_text())
    del record["current"]["withdrawn"]
    file.write_text(json.dumps(record))
    assert promoted(root).current.withdrawn == ""


def test_a_damaged_record_is_named(root: Path) -> None:
    (root / "champion.json").write_text('{"current": {}}')
    with pytest.raises(StorageError, match=r"champion\.json is no champion record"):
        resolve(settings(root), str(root), "", "job")


def test_runs_over_one_corpus_share_an_index(root: Path) -> None:
    one = resolve(settings(root), str(root), "", "a")
    two = resolve(settings(root, "seed=1"), str(root), "", "b")
    assert one.retrieval.index == two.retrieval.index
    assert one.retrieval.index.startswith(f"{root}/indexes/")
    finer = resolve(settings(root, "retrieval.nbits=4"), str(root), "", "c")
    assert finer.retrieval.index != one.retrieval.index
    (root / "corpus.jsonl").write_text('{"id": "1", "title": "t", "text": "changed"}\n')
    assert resolve(settings(root), str(root), "", "d").retrieval.index != one.retrieval.index


def test_index_steps_are_reused_only_while_the_index_is_there(root: Path) -> None:
    one = resolve(settings(root), str(root), "", "a")
    two = resolve(settings(root, "seed=1", "em.iterations=5"), str(root), "", "b")
    assert index_settings(one, "a") != index_settings(two, "b"), "it is not there yet"
    folder = Path(one.retrieval.index)
    folder.mkdir(parents=True)
    (folder / "exsearch.json").write_text("{}")
    assert index_settings(one, "a") == index_settings(two, "b")
    alone = parse(index_settings(one, "a"))
    assert alone.retrieval == one.retrieval
    assert alone.data.train == ()


def test_a_failure_is_told_until_its_step_succeeds(root: Path) -> None:
    run = resolve(settings(root), str(root), "", "job")
    begin_run(run)
    note_failure(run.run, "weigh-1", "no shard")
    assert failure_of(run.run) == "weigh-1: no shard"
    clear_failure(run.run, "gate")
    assert failure_of(run.run) == "weigh-1: no shard"
    clear_failure(run.run, "weigh-1")
    assert failure_of(run.run) is None
    note_failure(run.retrieval.index.rpartition("/")[0], "encode-0", "disk full")
    assert failure_of(run.run) == "encode-0: disk full", "the index's steps are the run's, too"


@pytest.mark.parametrize(
    ("state", "message"), [("SUCCEEDED", ""), ("FAILED", "weigh-1: <b>no</b> shard")]
)
def test_how_a_run_ended_is_written_in_any_case(root: Path, state: str, message: str) -> None:
    run = f"{root}/runs/job"
    note_failure(run, "weigh-1", "<b>no</b> shard")
    page = end_run(run, state, "")
    outcome = json.loads(Path(run, "outcome.json").read_text())
    assert (outcome["state"], outcome["message"]) == (state, message)
    assert page.lower().startswith("<!doctype html>")
    assert "<b>no" not in page


WITHDRAWALS = [
    # withdrawn, the model that the next run starts from, the record (newest first)
    ((), "best", [("best", False), ("better", False), ("base", False)]),
    (("better",), "best", [("best", False), ("better", False), ("base", False)]),
    (
        ("best",),
        "better",
        [("better", False), ("best", True), ("better", False), ("base", False)],
    ),
    (
        ("best", "better"),
        "base",
        [("base", False), ("best", True), ("better", True), ("base", False)],
    ),
    (
        ("best", "better", "base"),
        "start",
        [("best", True), ("better", True), ("base", True)],
    ),
]


@pytest.mark.parametrize(("withdrawn", "start", "record"), WITHDRAWALS)
def test_a_run_starts_from_the_newest_model_that_was_not_withdrawn(
    root: Path, withdrawn: tuple[str, ...], start: str, record: list[tuple[str, bool]]
) -> None:
    promoted(root, "base", "better", "best")
    digests = ",".join(model_digest(str(root / name)) for name in withdrawn)
    config = settings(root, f"model.path={root}/start", f"cluster.deploy.withdrawn=[{digests}]")
    for _ in range(2):  # what is done twice is done once
        run = resolve(config, str(root), "", "next")
        assert Path(run.model.path).name == start
        found = read_champion(str(root))
        assert found is not None
        assert names(found) == record
    # The run's own promotion is compared with the model that it started from.
    new = root / "new"
    new.mkdir()
    for file in ("config.json", "tokenizer.json"):
        (new / file).write_text("{}")
    header = json.dumps({"__metadata__": {"name": "new"}}).encode()
    (new / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert promote(str(root), run, summary(new)).model == str(new)
    if "base" in withdrawn:
        with pytest.raises(ExSearchError, match="was rolled back"):
            promote(str(root), run, summary(root / "best"))
