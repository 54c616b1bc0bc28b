"""The passage store, the survey and plan of a build, and the arithmetic of estimates."""

from __future__ import annotations

import contextlib
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exsearch.config import RetrievalConfig
from exsearch.errors import InputError, StorageError
from exsearch.mirror import Mirror
from exsearch.records import Passage
from exsearch.retrieval.files import load_array, remove_leftovers, save_array, writing
from exsearch.retrieval.index import parse_part, work_folder
from exsearch.retrieval.info import IndexInfo
from exsearch.retrieval.plan import Plan, agree, load_plan, make_plan, survey
from exsearch.retrieval.progress import Display
from exsearch.retrieval.store import OFFSETS, TEXTS, PassageStore, write_store
from exsearch.retrieval.tables import duration, shown, size

pytestmark = pytest.mark.unit

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
corpora = st.lists(st.tuples(texts, texts), min_size=1, max_size=12).map(
    lambda rows: [Passage(pid=str(i), title=a, text=b) for i, (a, b) in enumerate(rows)]
)


def put(folder: Path, *parts: list[Passage]) -> None:
    paths = []
    for number, part in enumerate(parts):
        paths.append(folder / f"part-{number}.jsonl")
        paths[-1].write_text("".join(f"{p.to_line()}\n" for p in part), encoding="utf-8")
    write_store(folder, paths)


@settings(max_examples=60, deadline=None)
@given(corpora, corpora)
def test_every_passage_comes_back_from_its_row(a: list[Passage], b: list[Passage]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        put(folder, a, b)
        store = PassageStore(folder)
        assert len(store) == len(a) + len(b)
        assert [store[row] for row in range(len(store))] == a + b
        store.close()


HOSTILE = [
    "NUL \0 inside",
    "\u202eright to left\u2066",
    "line one\nline two\r\n\u2028three",
    '<QUERY> "quoted" <|im_end|> {"pid": "0"}',
    "\U0001f600" * 1000,
    "x" * (1 << 20),
    "",
]


def test_hostile_passages_come_back_as_they_were(tmp_path: Path) -> None:
    passages = [Passage(pid=str(i), title=t[:50], text=t) for i, t in enumerate(HOSTILE)]
    put(tmp_path, passages)
    store = PassageStore(tmp_path)
    assert [store[i] for i in range(len(store))] == passages


def test_a_store_that_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    put(tmp_path, [Passage(pid="1", title="a", text="b")])
    with (tmp_path / TEXTS).open("ab") as file:
        file.write(b"more\n")
    with pytest.raises(StorageError, match="Build the index again"):
        PassageStore(tmp_path)


def test_offsets_are_never_unpickled(tmp_path: Path) -> None:
    put(tmp_path, [Passage(pid="1", title="a", text="b")])
    np.save(tmp_path / OFFSETS, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(StorageError, match="damaged"):
        PassageStore(tmp_path)


def test_a_file_that_could_not_be_finished_leaves_no_trace(tmp_path: Path) -> None:
    target = tmp_path / "x.bin"
    target.write_bytes(b"before")
    with contextlib.suppress(RuntimeError), writing(target) as file:
        file.write(b"half")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["x.bin"]
    assert target.read_bytes() == b"before"
    (tmp_path / ".x.bin.abc").write_bytes(b"left by a kill")
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["x.bin"]


def test_arrays_are_mapped_and_read_only(tmp_path: Path) -> None:
    save_array(tmp_path / "a.npy", np.arange(5))
    loaded = load_array(tmp_path / "a.npy")
    assert isinstance(loaded, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        loaded[0] = 1
    with pytest.raises(StorageError, match="cannot read"):
        load_array(tmp_path / "missing.npy")


def some(count: int) -> list[Passage]:
    return [Passage(pid=f"p{i}", title=f"T{i}", text="word " * i) for i in range(count)]


def test_the_digest_tells_corpora_apart() -> None:
    base = survey(some(5))
    assert base.passages == 5
    assert base.digest == survey(some(5)).digest
    assert base.digest != survey(some(6)).digest
    assert base.digest != survey(some(5)[::-1]).digest


def test_the_sample_is_drawn_from_the_whole_corpus() -> None:
    found = survey(some(2000), sample=100)
    positions = [int(p.pid[1:]) for p in found.sample]
    assert len(set(positions)) == 100
    assert 700 < np.mean(positions) < 1300
    assert survey(some(3), sample=100).sample == some(3)


@pytest.mark.parametrize(
    ("corpus", "says"),
    [
        ([], "no passages"),
        ([*some(3), some(1)[0]], "passages 1 and 4 .* same id 'p0'"),
        (iter(some(3)), "more than once"),
    ],
)
def test_corpora_that_cannot_be_indexed(corpus: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        survey(corpus)


def plan(**changes: Any) -> Plan:
    base = make_plan(survey(some(10)), "k", 128, RetrievalConfig(shard_size=4))
    return Plan(**{**asdict(base), **changes})


def test_shards_cover_the_corpus() -> None:
    assert [plan(passages=n).shards for n in (1, 4, 5, 8, 9)] == [1, 1, 2, 2, 3]


@pytest.mark.parametrize("change", [{"corpus": "other"}, {"nbits": 4}, {"checkpoint": "z"}])
def test_a_build_goes_on_only_as_it_was_begun(tmp_path: Path, change: dict[str, Any]) -> None:
    work = Mirror(tmp_path)
    agree(work, plan())
    agree(work, plan())
    assert load_plan(work) == plan()
    with pytest.raises(InputError, match=next(iter(change))):
        agree(work, plan(**change))
    assert plan(**change).digest != plan().digest


def test_nothing_to_merge(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to merge"):
        load_plan(Mirror(tmp_path))


@pytest.mark.parametrize("text", ["", "1", "2/2", "-1/2", "a/b", "1/", "/2", "0/0"])
def test_parts_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="I/N"):
        parse_part(text)


def test_parts() -> None:
    assert parse_part("0/1") == (0, 1)
    assert parse_part("3/4") == (3, 4)


def test_the_work_folder_is_a_neighbour(tmp_path: Path) -> None:
    assert work_folder(f"{tmp_path}/a/").name == "a.partial"


def test_a_folder_that_is_no_index(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is no index"):
        IndexInfo.load(tmp_path)
    (tmp_path / "exsearch.json").write_text(json.dumps({"digest": "x"}), encoding="utf-8")
    with pytest.raises(StorageError, match="damaged"):
        IndexInfo.load(tmp_path)


def test_a_log_gets_lines_instead_of_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with Display().bar("counting", 3, done=1) as advance:
        advance(1)
        advance(1)
    assert "counting: 3 of 3" in capsys.readouterr().err
    with Display(shown=False).bar("counting", None) as advance:
        advance(1)
    assert capsys.readouterr().err == ""


def test_results_cannot_steer_the_terminal() -> None:
    assert shown("a\x1b[2Jb\u202e\0\nc") == "a\ufffd[2Jb\ufffd\ufffd\nc"


@pytest.mark.parametrize(
    ("count", "says"), [(999, "999 B"), (1500, "1.5 kB"), (7.2e11, "720 GB"), (2e12, "2.00 TB")]
)
def test_sizes_for_people(count: float, says: str) -> None:
    assert size(count) == says


@pytest.mark.parametrize(
    ("seconds", "says"),
    [(5, "5.0 s"), (600, "10.0 min"), (36_000, "10.0 h"), (864_000, "10.0 days")],
)
def test_durations_for_people(seconds: float, says: str) -> None:
    assert duration(seconds) == says
