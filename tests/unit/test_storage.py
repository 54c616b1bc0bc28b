"""Files that appear whole, logs that survive, digests, lineage."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exsearch import storage
from exsearch.errors import StorageError
from exsearch.storage import AppendLog, Lineage, digest_bytes, digest_file, write_atomic

pytestmark = pytest.mark.unit


@pytest.fixture(params=["local", "remote"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A folder: on disk, and on an object store that lives in memory."""
    if request.param == "local":
        yield str(tmp_path)
        return
    root = f"memory://{tmp_path.name}"
    yield root
    store = fsspec.filesystem("memory")
    if store.exists(f"/{tmp_path.name}"):
        store.rm(f"/{tmp_path.name}", recursive=True)


# --- whole files


def test_write_atomic_writes_and_replaces(place: str) -> None:
    path = f"{place}/deep/er/file.txt"
    write_atomic(path, "one\n")
    assert storage.read_text(path) == "one\n"
    write_atomic(path, ["two", " ", "three"])
    assert storage.read_text(path) == "two three"
    write_atomic(path, b"\x00bytes")
    assert storage.read_text(path) == "\x00bytes"


def test_a_writer_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_atomic(path, "old")

    def pieces() -> Iterator[str]:
        yield "half of the new"
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        write_atomic(path, pieces())
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_files_can_be_read_by_others(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file", "x")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write .*file/below"):
        write_atomic(tmp_path / "file" / "below", "x")


def test_reading_what_is_missing_or_no_json(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot read .*gone.*: No such file"):
        storage.read_text(tmp_path / "gone")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(StorageError, match=r"bad\.json is not JSON"):
        storage.read_json(tmp_path / "bad.json")


def test_packed_files_are_unpacked(tmp_path: Path) -> None:
    import gzip

    (tmp_path / "file.gz").write_bytes(gzip.compress("häl\nlo".encode()))
    assert storage.read_text(tmp_path / "file.gz") == "häl\nlo"


def test_space_is_required_before_it_is_needed(tmp_path: Path) -> None:
    storage.require_space(tmp_path / "not" / "yet", 1, "nothing")
    with pytest.raises(StorageError, match=r"needs about .* GB"):
        storage.require_space(tmp_path / "not" / "yet", 1 << 60, "the index")


# --- digests


@given(st.lists(st.binary(max_size=8), max_size=4), st.lists(st.binary(max_size=8), max_size=4))
def test_digests_tell_where_a_part_ends(a: list[bytes], b: list[bytes]) -> None:
    assert (digest_bytes(*a) == digest_bytes(*b)) == (a == b)


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * (3 << 20))
    (tmp_path / "b").write_bytes(b"x" * (3 << 20))
    assert digest_file(tmp_path / "a") == digest_file(tmp_path / "b")
    (tmp_path / "b").write_bytes(b"x" * (3 << 20) + b"y")
    assert digest_file(tmp_path / "a") != digest_file(tmp_path / "b")


# --- logs


def test_a_log_goes_on_after_it_is_reopened(place: str) -> None:
    path = f"{place}/log.jsonl"
    first = AppendLog(path)
    first.append("a", "b")
    first.close()
    second = AppendLog(path)
    assert [line.rstrip("\n") for line in second_lines(second)] == ["a", "b"]
    second.append("c")
    assert not storage.exists(path)
    second.finish(["a", "b", "c"])
    assert storage.read_text(path) == "a\nb\nc\n"
    third = AppendLog(path)
    assert third.finished
    assert "".join(third.lines()) == "a\nb\nc\n"
    assert not storage.exists(f"{path}.partial")
    assert not storage.exists(f"{path}.parts")


def second_lines(log: AppendLog) -> list[str]:
    return [line for chunk in log.lines() for line in chunk.splitlines()]


def test_many_threads_lose_nothing(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    log = AppendLog(f"{place}/log.jsonl")
    if log.remote:
        upload = log._fs.pipe_file

        def slow(key: str, payload: bytes) -> None:
            time.sleep(0.001)  # another thread's turn, as in any real upload
            upload(key, payload)

        monkeypatch.setattr(log._fs, "pipe_file", slow)
    start = threading.Barrier(8)

    def write(name: int) -> None:
        start.wait()
        for number in range(20):
            log.append(f"{name}/{number}/first", f"{name}/{number}/second " + "x" * 5000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    lines = second_lines(log)
    assert len(lines) == 8 * 20 * 2
    for first, second in zip(lines[::2], lines[1::2], strict=True):
        assert second.startswith(first.replace("first", "second"))


@given(cut=st.integers(0, 40))
def test_a_torn_last_line_is_dropped(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    whole = "first\nsecond\n" + "third, and longer" + "\n"
    partial = Path(f"{path}.partial")
    partial.write_text(whole[: max(0, len(whole) - cut)])
    log = AppendLog(str(path))
    kept = [line for line in log.lines()]
    assert "".join(kept) == "".join(
        line for line in whole[: max(0, len(whole) - cut)].splitlines(True) if line.endswith("\n")
    )
    log.append("next")
    assert list(log.lines()) == [*kept, "next\n"]
    log.close()


def test_a_torn_line_of_many_megabytes_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    Path(f"{path}.partial").write_bytes(b"good\n" + b"x" * (5 << 20))
    log = AppendLog(str(path))
    assert list(log.lines()) == ["good\n"]
    log.close()


def test_a_full_disk_costs_the_new_lines_only(tmp_path: Path, monkeypatch) -> None:
    """The disk takes a part of a write and then no more; later it has room again."""
    log = AppendLog(str(tmp_path / "log.jsonl"))
    log.append("kept")
    real = log._file
    assert real is not None

    class Full:
        def __getattr__(self, name: str):
            return getattr(real, name)

        def write(self, data: memoryview) -> int:
            if len(data) > 5:
                return real.write(data[:5])
            raise OSError(28, "No space left on device")

    log._file = Full()  # type: ignore[assignment]
    with pytest.raises(StorageError, match="No space left"):
        log.append("0123456789")
    log._file = real
    assert list(log.lines()) == ["kept\n"]
    log.append("again")
    log.close()
    assert list(AppendLog(str(tmp_path / "log.jsonl")).lines()) == ["kept\n", "again\n"]


def test_a_log_cannot_be_begun_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot append to"):
        AppendLog(str(tmp_path / "file" / "log.jsonl"))


# --- lineage


def test_lineage_remembers_steps_by_their_fingerprint(place: str) -> None:
    lineage = Lineage(place)
    assert not lineage.done("index", "f1")
    lineage.record("index", "f1", 1.23456, outputs={"x": 1})
    again = Lineage(place)
    assert again.done("index", "f1")
    assert not again.done("index", "f2")
    assert again.entries["index"]["outputs"] == {"x": 1}
    assert again.entries["index"]["seconds"] == 1.235


def test_steps_that_end_at_the_same_time_elsewhere_are_all_remembered(place: str) -> None:
    """Two shards on two machines, each with a lineage it read before the other wrote."""
    one, two = Lineage(place), Lineage(place)
    one.record("iter-01/rollout-0-of-2", "a", 1.0)
    two.record("iter-01/rollout-1-of-2", "b", 2.0)
    assert list(Lineage(place).entries) == ["iter-01/rollout-0-of-2", "iter-01/rollout-1-of-2"]
    written = storage.read_json(storage.join(place, "lineage.json"))
    assert list(written) == ["iter-01/rollout-0-of-2", "iter-01/rollout-1-of-2"]


def test_a_damaged_lineage_is_named(tmp_path: Path) -> None:
    (tmp_path / "lineage").mkdir()
    (tmp_path / "lineage/index.json").write_text('{"index": ')
    with pytest.raises(StorageError, match=r"lineage/index\.json is not JSON"):
        Lineage(str(tmp_path))


def test_json_is_written_for_people(tmp_path: Path) -> None:
    storage.write_json(tmp_path / "x.json", {"ä": [1]})
    assert "ä" in (tmp_path / "x.json").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "x.json").read_text()) == {"ä": [1]}
    assert os.listdir(tmp_path) == ["x.json"]
