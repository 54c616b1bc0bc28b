"""The demo fits itself to the machine, and leaves alone what is settled already."""

from __future__ import annotations

from pathlib import Path

import pytest

from exsearch import config
from exsearch.cli import demo

pytestmark = pytest.mark.unit


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The speeds that will be measured."""
    speeds = {"float32": 170.0, "bfloat16": 400.0}
    monkeypatch.setattr(demo, "matmul_gflops", lambda dtype: speeds[dtype])
    return speeds


def chosen(folder: Path, *overrides: str) -> dict[str, str]:
    run = config.load("examples/demo.yaml", [f"run={folder}/run", *overrides])
    settings = demo.fitting(run, list(overrides))
    config.load("examples/demo.yaml", settings)
    return dict(setting.split("=") for setting in settings)


def test_a_machine_with_fast_bfloat16_uses_it(machine: dict[str, float], tmp_path: Path) -> None:
    assert chosen(tmp_path) == {
        "model.dtype": "bfloat16",
        "retrieval.dtype": "bfloat16",
        "data.train_limit": "80",
        "data.eval_limit": "128",
    }


def test_a_machine_without_computes_in_float32(machine: dict[str, float], tmp_path: Path) -> None:
    machine["bfloat16"] = 20.0
    assert chosen(tmp_path)["model.dtype"] == "float32"


@pytest.mark.parametrize(
    ("speed", "questions"), [(300.0, "80"), (100.0, "56"), (75.0, "40"), (10.0, "24")]
)
def test_a_slow_machine_takes_fewer_questions(
    machine: dict[str, float], tmp_path: Path, speed: float, questions: str
) -> None:
    machine.update(float32=speed, bfloat16=speed / 10)
    assert chosen(tmp_path)["data.train_limit"] == questions


def test_what_the_user_sets_is_not_touched(machine: dict[str, float], tmp_path: Path) -> None:
    settings = chosen(tmp_path, "model.dtype=float32", "data.eval_limit=16")
    assert settings == {"retrieval.dtype": "float32", "data.train_limit": "80"}


def test_a_run_that_has_begun_goes_on_as_it_began(
    machine: dict[str, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = ["model.dtype=float32", "data.train_limit=8"]
    run = config.load("examples/demo.yaml", [f"run={tmp_path}/run", *begun])
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.yaml").write_text(config.dump(run), encoding="utf-8")
    settings = chosen(tmp_path)
    assert settings["model.dtype"] == "float32"
    assert settings["data.train_limit"] == "8"
    assert "going on with the run" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_speed_is_measured(dtype: str) -> None:
    assert demo.matmul_gflops(dtype, size=64, repeats=2) > 0.0
