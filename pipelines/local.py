"""The same pipeline on one machine: `kfp.local` runs the components as processes."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

from exsearch.config import RunConfig
from exsearch.em.record import failure_of
from exsearch.errors import ExSearchError
from exsearch.pipelines.em import build, parameter
from exsearch.pipelines.readable import Readable
from exsearch.storage import digest_bytes, exists, is_remote, join, read_json, remove

HERE = [
    "cluster.training.launcher=local",
    "cluster.deploy.name=",
    "pipeline.parallelism=1",
    "pipeline.index_shards=1",
    "pipeline.retries=0",
]
"""Settings of a pipeline run that stays on this machine: one engine at a time fits it."""
LOG = "kfp.log"
"""Beside kfp.local's own files: all that it and the components printed."""


def run_local(config: RunConfig, root: str, name: str) -> dict[str, Any]:
    """Run the pipeline to its end; a run of the same name goes on where it stopped.

    Args:
        config: settings; those in `HERE` should have been applied.
        root: folder or URL of runs, indexes and the champion's record.
        name: of the run, a folder under `ROOT/runs`.

    Returns:
        what the run's `summary.json` holds, with `run` (its folder or URL) and
        `champion_record` (the model in service; None: none has been promoted) added.

    Raises:
        ExSearchError: a component failed; its own message.
    """
    from kfp import local

    root = root if is_remote(root) else str(Path(root).absolute())
    run = join(root, "runs", name)
    here = _place(run)
    failure = join(run, "failure.json")
    if exists(failure):
        remove(failure)
    logging.getLogger("kfp").setLevel(logging.WARNING)
    # It warns that images and resources mean nothing here, once for every task.
    warnings.filterwarnings("ignore", module=r"kfp\.local")
    # use_venv=False: the components run in this environment, where exsearch is installed.
    runner = local.SubprocessRunner(use_venv=False)
    local.init(runner=runner, pipeline_root=str(here / "kfp"))
    try:
        # Components' output is for people; standard output is kept for `--json`.
        with (
            open(here / LOG, "a", encoding="utf-8") as everything,
            contextlib.redirect_stdout(Readable(sys.stderr, everything)),
        ):
            build(config)(config=parameter(config), root=root, run=run)
    except RuntimeError as error:
        raise ExSearchError(failure_of(run) or str(error)) from error
    summary = dict(read_json(join(run, "summary.json")))
    return {**summary, "run": run, "champion_record": _champion(root)}


def _place(run: str) -> Path:
    """A local folder for kfp.local's own files: the run's, or one named after its URL."""
    path = Path(".cache/pipeline", digest_bytes(run.encode())) if is_remote(run) else Path(run)
    path = path.absolute()
    path.mkdir(parents=True, exist_ok=True)
    return path


def _champion(root: str) -> str | None:
    path = join(root, "champion.json")
    return str(read_json(path)["current"]["model"]) if exists(path) else None
