"""kill -9 at random points of `exsearch rollout` and `exsearch weigh --score`: nothing is lost."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_process import interruptible, run, settings, size, start, stop_when
from search_server import serving
from tiny_model import WordSearch

from exsearch.records import Question, Trajectory, read_records

pytestmark = pytest.mark.loop

SHARD = "run/iter-01/rollouts/shard-000-of-001.jsonl"


@pytest.fixture(scope="module")
def slow_url(tiny_world) -> Iterator[str]:
    """A retriever slow enough that a kill lands in the middle."""
    with serving(WordSearch(tiny_world.passages), delay=0.03) as url:
        yield url


@pytest.fixture(scope="module")
def hard_world(tmp_path_factory: pytest.TempPathFactory, world_files: Path) -> Path:
    """The tiny world and one more training question, too long for any model: it must fail."""
    folder = tmp_path_factory.mktemp("hard") / "world"
    shutil.copytree(world_files, folder)
    endless = Question(id="endless", question="why " * 3000, answers=("because",))
    with (folder / "train.jsonl").open("a", encoding="utf-8") as train:
        train.write(f"{endless.to_line()}\n")
    return folder


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, tiny_models, hard_world: Path, slow_url: str
) -> Path:
    """A folder where rollout and scoring ran without a break."""
    folder = tmp_path_factory.mktemp("whole")
    config = settings(folder, hard_world, tiny_models[1], slow_url)
    done = run("rollout", "-c", str(config))
    assert done.code == 0, done.err
    done = run("weigh", "--score", "-c", str(config))
    assert done.code == 0, done.err
    return folder


def made(path: Path) -> list[Trajectory]:
    return list(read_records(Trajectory, path.read_text().splitlines(), str(path)))


def test_the_uninterrupted_run_really_searches(whole: Path) -> None:
    trajectories = made(whole / SHARD)
    assert len(trajectories) == 27
    assert sum(len(t.steps) for t in trajectories) > 24
    assert any(t.failure is None for t in trajectories)
    assert [t.question_id for t in trajectories if t.failure].count("endless") == 3


@pytest.mark.parametrize("chance", [1, 2])
def test_rollouts_killed_twice_end_as_if_nothing_had_been(
    tmp_path: Path, tiny_models, hard_world: Path, slow_url: str, whole: Path, chance: int
) -> None:
    config = settings(tmp_path, hard_world, tiny_models[1], slow_url)
    shard = tmp_path / SHARD
    partial = Path(f"{shard}.partial")
    aim = random.Random(chance)
    kills = 0
    total = size(whole / SHARD)
    for low, high in ((0.0, 0.4), (0.5, 0.9)):
        mark = int(aim.uniform(low, high) * total)
        child = start("rollout", "-c", str(config))
        done = stop_when(child, lambda mark=mark: size(partial) > mark)
        kills += done.code == -signal.SIGKILL
        assert not shard.exists() or done.code == 0
    assert kills == 2
    kept = partial.read_bytes()
    done = run("rollout", "-c", str(config))
    assert done.code == 0, done.err
    assert shard.read_bytes() == (whole / SHARD).read_bytes()
    assert all(line in shard.read_bytes() for line in kept.splitlines(True)[:-1])
    assert not partial.exists()


def test_scoring_killed_ends_as_if_nothing_had_been(
    tmp_path: Path, tiny_models, hard_world: Path, slow_url: str, whole: Path
) -> None:
    config = settings(tmp_path, hard_world, tiny_models[1], slow_url)
    (tmp_path / SHARD).parent.mkdir(parents=True)
    shutil.copyfile(whole / SHARD, tmp_path / SHARD)
    partial = tmp_path / "run/iter-01/scored.jsonl.partial"
    child = start("weigh", "--score", "-c", str(config))
    done = stop_when(child, lambda: size(partial) > 0)
    assert done.code == -signal.SIGKILL
    done = run("weigh", "--score", "-c", str(config))
    assert done.code == 0, done.err
    for name in ("scored.jsonl", "weights.jsonl", "examples.jsonl", "estep.json"):
        ours, theirs = (folder / "run/iter-01" / name for folder in (tmp_path, whole))
        assert ours.read_bytes() == theirs.read_bytes(), name


def test_shards_together_hold_what_one_holds(
    tmp_path: Path, tiny_models, hard_world: Path, slow_url: str, whole: Path
) -> None:
    config = settings(tmp_path, hard_world, tiny_models[1], slow_url)
    for shard in ("0/2", "1/2"):
        done = run("rollout", "-c", str(config), "--shard", shard)
        assert done.code == 0, done.err
    parts = sorted((tmp_path / "run/iter-01/rollouts").iterdir())
    lines = [line for part in parts for line in part.read_text().splitlines()]
    assert sorted(lines) == sorted((whole / SHARD).read_text().splitlines())


def test_an_interrupted_rollout_says_so_and_goes_on(
    tmp_path: Path, tiny_models, hard_world: Path, slow_url: str, whole: Path
) -> None:
    config = settings(tmp_path, hard_world, tiny_models[1], slow_url)
    partial = tmp_path / f"{SHARD}.partial"
    child = start("rollout", "-c", str(config), preexec_fn=interruptible)
    done = stop_when(child, lambda: size(partial) > 0, signal.SIGINT)
    assert done.code == 130, done.err
    assert "run the same command again" in done.err
    assert "Traceback" not in done.err
    done = run("rollout", "-c", str(config))
    assert done.code == 0, done.err
    assert (tmp_path / SHARD).read_bytes() == (whole / SHARD).read_bytes()


def test_a_retriever_that_breaks_is_counted_and_the_rollout_ends(
    tmp_path: Path, tiny_models, hard_world: Path, tiny_world
) -> None:
    with serving(WordSearch(tiny_world.passages), fails_after=9) as url:
        config = settings(
            tmp_path,
            hard_world,
            tiny_models[1],
            url,
            retrieval={"url": url, "timeout": 1.0, "retries": 1},
        )
        done = run("rollout", "-c", str(config), "--json")
    assert done.code == 0, done.err
    failed = [t.failure for t in made(tmp_path / SHARD) if t.failure]
    lost = [failure for failure in failed if failure.reason == "retriever"]
    assert len(lost) >= 10
    assert "500" in lost[0].detail or "no answer within" in lost[0].detail
    assert f'"retriever": {len(lost)}' in done.out
