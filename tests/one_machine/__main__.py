"""`python -m one_machine`: the demo world as a SearchAgent, from `kubectl apply` to an answer."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
import yaml
from kube_api.cluster import crd_folder
from manifest_checks import ROOT

from exsearch import config as settings
from exsearch.cli.common import SetOption, console
from exsearch.cli.demo import fitting, prepare
from one_machine.machine import machine, resource
from one_machine.story import tell_story

EXAMPLE = ROOT / "examples/searchagent-laptop.yaml"


def main(
    overrides: SetOption = None,
    patience: Annotated[float, typer.Option(help="Hours that the pipeline's run may take.")] = 3.0,
    folder: Annotated[
        str, typer.Option(help="Where everything is kept; default: a temporary folder.")
    ] = "",
) -> None:
    """Apply examples/searchagent-laptop.yaml to a cluster that is played on this machine.

    The operator makes schedule and InferenceService of it, the pipeline runs as it was uploaded,
    the gate decides, the operator serves what it promotes, and one question is answered.

    Example: `PYTHONPATH=tests python -m one_machine --set data.train_limit=24`
    """
    if crd_folder() is None:
        console.print(
            "KServe's CustomResourceDefinitions are needed: put its release's into a folder, as "
            "YAML, and name the folder in EXSEARCH_CRDS"
        )
        raise typer.Exit(2)
    where = Path(folder or tempfile.mkdtemp(prefix="exsearch-agent-"))
    demo = settings.load(ROOT / "examples/demo.yaml", [f"run={where}"])
    prepare(demo)
    chosen = [*fitting(demo, overrides or []), *(overrides or [])]
    console.print(f"everything is kept in {where}", markup=False)
    fill(where / "volume", Path(demo.data.corpus).parent, Path(demo.model.path).parent)
    lines = Path(demo.data.corpus).with_name("dev.jsonl").read_text().splitlines()
    questions = [json.loads(line)["question"] for line in lines[:32]]
    with machine(where) as found:
        agent = resource(yaml.safe_load(EXAMPLE.read_text()), found)
        for override in chosen:
            settings.apply_override(agent["spec"], override)
        told = tell_story(found, agent, questions, say, patience * 3600)
    verdict = "promoted" if told.champion else "kept what was there"
    console.print(f"the gate {verdict}; answered: {told.answer}", markup=False)


def fill(volume: Path, world: Path, models: Path) -> None:
    """Put data and models on the volume, under the paths of the example."""
    volume.mkdir(parents=True, exist_ok=True)
    for name, source in (("data", world), ("models", models)):
        (volume / name).unlink(missing_ok=True)
        (volume / name).symlink_to(source.resolve())


def say(text: str) -> None:
    """Print it with the time."""
    console.print(f"{time.strftime('%H:%M:%S')}  {text}", markup=False, highlight=False)


if __name__ == "__main__":
    typer.run(main)
