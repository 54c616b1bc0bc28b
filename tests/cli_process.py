"""The command line as a process: settings of the tiny world, runs, kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml
from tiny_model import AGENT


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


def environment() -> dict[str, str]:
    """One thread: the tiny model only waits for more, and sums come out alike."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}


def interruptible() -> None:
    """Before a child begins: SIGINT reaches it even where these tests run in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(*arguments: str, **how: object) -> subprocess.Popen[str]:
    """Start `exsearch ARGUMENTS`."""
    return subprocess.Popen(
        [sys.executable, "-m", "exsearch", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        **how,  # type: ignore[call-overload]
    )


def run(*arguments: str, **how: object) -> Done:
    child = start(*arguments, **how)
    out, err = child.communicate(timeout=300)
    return Done(child.returncode, out, err)


def stop_when(
    child: subprocess.Popen[str], ready: Callable[[], bool], number: int = signal.SIGKILL
) -> Done:
    """Send a signal as soon as `ready()`; a child that ends before is left to."""
    while child.poll() is None and not ready():
        time.sleep(0.002)
    if child.poll() is None:
        child.send_signal(number)
    out, err = child.communicate(timeout=300)
    return Done(child.returncode, out, err)


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def settings(folder: Path, world: Path, model: str, url: str, **sections: object) -> Path:
    """A configuration of the tiny world, in `folder/run.yaml`."""
    tree: dict[str, object] = {
        "run": str(folder / "run"),
        "data": {name: [f"{world}/{name}.jsonl"] for name in ("train", "dev", "test", "warmup")}
        | {"corpus": f"{world}/corpus.jsonl"},
        "model": {"path": model, "dtype": "float32", "max_tokens": 1024},
        "retrieval": {"url": url, "timeout": 5.0},
        "agent": AGENT,
        "policy": {"kind": "transformers", "concurrency": 6},
        "sampling": {"samples": 3},
        "evaluation": {"bootstrap": 200},
        **sections,
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "settings.yaml"
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return file
