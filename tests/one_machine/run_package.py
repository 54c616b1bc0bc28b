"""Runs a compiled pipeline package, as it was uploaded, with `kfp.local`: one process, one run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main(package: str, parameters: str, folder: str) -> None:
    """Run to the end; raises where a task fails.

    Args:
        package: file of the compiled pipeline.
        parameters: of the run, as JSON.
        folder: for Kubeflow's own files.
    """
    from kfp import components, local

    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=folder)
    pipeline: Any = components.load_component_from_file(package)
    pipeline(**json.loads(Path(parameters).read_text()))


if __name__ == "__main__":
    main(*sys.argv[1:])
