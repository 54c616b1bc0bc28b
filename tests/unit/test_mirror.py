"""A local folder whose truth is at a URL: what is sent, in which order, and found again."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from exsearch import mirror, storage
from exsearch.errors import InputError, StorageError
from exsearch.mirror import Mirror

pytestmark = pytest.mark.unit


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty folder of a store in memory."""
    monkeypatch.setenv(mirror.SCRATCH, str(tmp_path / "scratch"))
    yield f"memory://{tmp_path.name}"
    store = fsspec.filesystem("memory")
    if store.exists(f"/{tmp_path.name}"):
        store.rm(f"/{tmp_path.name}", recursive=True)


def fill(folder: Path | str, *names: str) -> None:
    for name in names:
        storage.write_atomic(storage.join(folder, name), f"content of {name}")


def held(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", ["folder", "url"])
def test_one_code_serves_both(kind: str, url: str, tmp_path: Path) -> None:
    """The same calls leave the same files, whether the truth is the folder or at a URL."""
    place = url if kind == "url" else str(tmp_path / "work")
    with Mirror(place).opened() as work:
        assert work.read("plan") == ""
        fill(work.folder, "plan", "shards/0.npy", "shards/0.json", "state/a/whole", "state/b/x")
        work.send("plan", "shards", "state")
        work.remove("state/b")
        with work.borrowed("shards/0.npy") as path:
            assert path.read_text() == "content of shards/0.npy"
    again = Mirror(place)
    assert again.names("shards/*.json") == ["shards/0.json"]
    assert again.names("state/*/*") == ["state/a/whole"]
    assert again.has("plan")
    assert not again.has("pla")
    assert again.read("plan") == "content of plan"


def test_a_copy_begins_empty_and_holds_what_is_fetched(url: str) -> None:
    fill(url, "a/1.npy", "a/1.json", "b/2/3", "c")
    work = Mirror(url)
    fill(work.folder, "a/1.npy", "of-a-killed-process")
    with work.opened():
        assert held(work.folder) == []
        work.fetch("a/*.json", "b", "nowhere")
        assert held(work.folder) == ["a/1.json", "b/2/3"]
        with work.borrowed("c") as path:
            assert path.read_text() == "content of c"
        with work.borrowed("b/2/3"):
            pass
        assert held(work.folder) == ["a/1.json", "b/2/3"], "what was there before stays"
        fill(work.folder, ".half.written", "whole")
        work.send(".")
        assert not storage.exists(f"{url}/.half.written")
    assert not work.folder.exists()
    assert storage.exists(f"{url}/c")


def test_the_last_file_is_sent_last_and_taken_away_first(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(url, "model/config.json", "model/old.bin")
    fill(tmp_path / "new", "a.bin", "config.json", "z.bin")
    seen: list[tuple[str, bool]] = []
    put = MemoryFileSystem.put_file

    def watch(fs: Any, here: str, there: str, *rest: Any, **more: Any) -> None:
        seen.append((there.rpartition("/")[2], storage.exists(f"{url}/model/config.json")))
        put(fs, here, there, *rest, **more)

    monkeypatch.setattr(MemoryFileSystem, "put_file", watch)
    mirror.publish(tmp_path / "new", f"{url}/model", last="config.json")
    assert seen == [("a.bin", False), ("z.bin", False), ("config.json", False)]
    assert Mirror(f"{url}/model").names("*") == ["a.bin", "config.json", "z.bin"]


def test_inputs_are_brought_once_for_each_content(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mirror.local("/a/path") == "/a/path"
    with pytest.raises(InputError, match=f"nothing at {url}/model"):
        mirror.local(f"{url}/model")
    fill(url, "model/config.json", "model/sub/weights", "corpus.tsv.gz")
    first = Path(mirror.local(f"{url}/model/"))
    assert first.name == "model"
    assert held(first) == ["config.json", "sub/weights"]
    file = Path(mirror.local(f"{url}/corpus.tsv.gz"))
    assert file.name == "corpus.tsv.gz"
    assert file.read_text() == "content of corpus.tsv.gz"
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "get_file", None)
        assert mirror.local(f"{url}/model") == str(first)
    storage.write_atomic(f"{url}/model/config.json", "another of another size")
    second = Path(mirror.local(f"{url}/model"))
    assert (second / "config.json").read_text() == "another of another size"
    assert (first / "config.json").read_text() == "content of model/config.json"


def test_a_download_cut_short_is_no_copy(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(url, "model/weights")

    def cut(fs: Any, there: str, here: str, *_: Any, **__: Any) -> None:
        Path(here).write_text("con")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "get_file", cut)
        with pytest.raises(StorageError, match="3 of 24 bytes"):
            mirror.local(f"{url}/model")
    assert held(Path(mirror.local(f"{url}/model"))) == ["weights"]


def test_two_processes_do_not_share_a_copy(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "PATIENCE", 0.1)
    work = Mirror(url, "0-of-2")
    lock = work.folder.with_suffix(".lock")
    with lock.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match="another process works in"), work.opened():
            pass
        with Mirror(url, "1-of-2").opened():
            pass
    with work.opened():
        pass


def test_a_url_without_a_client_is_named(url: str) -> None:
    with pytest.raises(StorageError, match=r"cannot reach nope://b/x: Protocol not known: nope"):
        Mirror("nope://b/x").names("*")


def test_a_store_that_fails_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: Any, **__: Any) -> None:
        raise ConnectionError("connection refused")

    work = Mirror(url)
    fill(work.folder, "x")
    monkeypatch.setattr(MemoryFileSystem, "put_file", down)
    with pytest.raises(StorageError, match=rf"upload to {url}/x: connection refused.*credentials"):
        work.send("x")


def test_a_scratch_folder_of_someone_else_is_refused(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.scratch()
    monkeypatch.setattr(mirror.os, "getuid", lambda: 4242)
    with pytest.raises(StorageError, match="belongs to user"):
        mirror.scratch()
