"""What every component folder holds: a thin body, its metadata, a page that names its ends."""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp.dsl.base_component import BaseComponent

pytestmark = pytest.mark.pipeline

FOLDERS = sorted(
    path.parent for path in (Path(__file__).parents[2] / "components").glob("*/component.py")
)


def components(folder: Path) -> list[Any]:
    module = importlib.import_module(f"exsearch.components.{folder.name}.component")
    return [c for c in vars(module).values() if isinstance(c, BaseComponent)]


def test_all_folders_are_there() -> None:
    assert {f.name for f in FOLDERS} == {
        "deploy", "evaluate", "gate", "index", "prerequisites", "report", "rollout", "train",
        "warmup_data", "weigh",
    }  # fmt: skip


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_a_folder_tells_what_its_component_takes_and_gives(folder: Path) -> None:
    page = (folder / "README.md").read_text()
    metadata = yaml.safe_load((folder / "metadata.yaml").read_text())
    assert metadata["name"] == folder.name.replace("_", "-")
    assert metadata["description"] in page
    for component in components(folder):
        spec = component.component_spec
        for name in [*(spec.inputs or {}), *(spec.outputs or {})]:
            assert name in page, f"{folder.name}: README.md does not name {name}"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_a_component_holds_no_logic(folder: Path) -> None:
    """Its body is copied into the compiled pipeline: it imports what it calls, and is short."""
    for component in components(folder):
        body = ast.parse(textwrap.dedent(inspect.getsource(component.python_func)))
        function = body.body[0]
        assert isinstance(function, ast.FunctionDef)
        work = [n for n in function.body if not isinstance(n, ast.ImportFrom | ast.Import)]
        assert len(work) <= 8, component.name
        for node in ast.walk(function):
            assert not isinstance(node, ast.For | ast.While | ast.Try), component.name
            if isinstance(node, ast.ImportFrom):
                assert node.module is not None
                assert node.module.split(".")[0] in {"exsearch", "collections", "pathlib"}
