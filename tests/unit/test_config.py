"""Settings: one file, overrides, and every mistake named."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from exsearch import config
from exsearch.config import RunConfig, Section
from exsearch.errors import InputError

pytestmark = pytest.mark.unit

FOLDER = Path(__file__).resolve().parents[2] / "examples"
EXAMPLES = sorted(f for f in FOLDER.glob("*.yaml") if not f.name.startswith("searchagent-"))
"""Settings of runs; the SearchAgents beside them are resources, with tests of their own."""


def test_defaults_are_the_papers() -> None:
    run = config.load()
    assert run.sampling.temperature == 0.8
    assert run.sampling.top_p == 0.95
    assert run.agent.max_steps == 8
    assert run.agent.passages == 20
    assert run.align.learning_rate == 2e-6
    assert run.weighing.aliases == "max"


def test_file_then_overrides_in_order(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("seed: 1\nsampling: {samples: 2}\n")
    run = config.load(file, ["seed=2", "seed=3", "agent.top_n=4", "data.train=[a, b]"])
    assert (run.seed, run.sampling.samples, run.agent.top_n) == (3, 2, 4)
    assert run.data.train == ("a", "b")


def test_what_is_dumped_is_loaded_again(tmp_path: Path) -> None:
    run = config.load(None, ["data.warmup_hops={2: 0.5, 3: 0.5}", "agent.instruction='ä: #x'"])
    (tmp_path / "run.yaml").write_text(config.dump(run), encoding="utf-8")
    assert config.load(tmp_path / "run.yaml") == run


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_are_valid(file: Path) -> None:
    assert config.load(file).model.path


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("# nothing yet\n")
    assert config.load(tmp_path / "run.yaml") == RunConfig()


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["agent.max_step=3"], r"agent\.max_step"),
        (["agents.max_steps=3"], "agents"),
        (["sampling.samples=0"], r"sampling\.samples"),
        (["sampling.samples=many"], r"sampling\.samples"),
        (["policy.kind=magic"], r"policy\.kind"),
        (["weighing.temperature=0"], r"weighing\.temperature"),
        (["seed"], "not of the form"),
        (["=3"], "not of the form"),
        (["seed.deep=3", "seed.deep.er=4"], "is a value, not a section"),
        (["run=[unclosed"], "not a YAML value"),
    ],
)
def test_mistakes_are_named(overrides: list[str], named: str) -> None:
    with pytest.raises(InputError, match=named):
        config.load(None, overrides)


@pytest.mark.parametrize(
    ("content", "named"),
    [("- a\n- b\n", "must hold a mapping"), ("a: [", "is not YAML"), ("sed: 1\n", "sed")],
)
def test_files_with_mistakes(tmp_path: Path, content: str, named: str) -> None:
    (tmp_path / "run.yaml").write_text(content)
    with pytest.raises(InputError, match=rf"run\.yaml.*{named}"):
        config.load(tmp_path / "run.yaml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.yaml"):
        config.load(tmp_path / "gone.yaml")


def test_yaml_cannot_make_objects(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("run: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(InputError, match="is not YAML"):
        config.load(tmp_path / "run.yaml")


def sections(model: type[Section]) -> list[type[Section]]:
    found = [model]
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found += sections(field.annotation)
    return found


def test_every_setting_is_described() -> None:
    silent = [
        f"{section.__name__}.{name}"
        for section in sections(RunConfig)
        for name, field in section.model_fields.items()
        if not field.description and not isinstance(field.default, Section)
    ]
    assert not silent


def test_dumped_settings_are_plain_yaml() -> None:
    assert yaml.safe_load(config.dump(RunConfig()))["sampling"]["samples"] == 5


def test_an_empty_value_is_an_empty_text() -> None:
    run = config.load(None, ["policy.url=http://127.0.0.1:1", "policy.url="])
    assert run.policy.url == ""


def test_an_override_does_not_leak_through_a_yaml_alias(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("sft: &how {epochs: 1}\nalign: *how\n")
    run = config.load(file, ["align.epochs=3"])
    assert (run.sft.epochs, run.align.epochs) == (1, 3)
