"""An engine's words go to a file, also those of its children, and the terminal is given back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from exsearch.agent.policies.engine_log import EngineLog

pytestmark = pytest.mark.unit

SPEAKS = """
import os, subprocess, sys
from exsearch.agent.policies.engine_log import EngineLog

log = EngineLog()
try:
    with log.listening():
        print("from python")
        sys.stdout.flush()
        os.write(2, b"from C\\n")
        child = subprocess.Popen(
            [sys.executable, "-c", "input(); print('from a child, later')"], stdin=subprocess.PIPE
        )
        raise ValueError
except ValueError:
    print("for people", file=sys.stderr)
child.communicate(b"\\n")
assert log.end().splitlines() == ["from python", "from C", "from a child, later"], log.end()
log.remove()
print(log.path)
"""


def test_words_of_this_process_and_its_children_are_kept_and_the_terminal_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", SPEAKS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "for people\n"
    [path] = done.stdout.splitlines()
    assert not Path(path).exists()


def test_only_the_last_lines_are_told() -> None:
    log = EngineLog()
    log.path.write_text("\n".join(map(str, range(100))), encoding="utf-8")
    assert log.end().splitlines()[-1] == "99"
    assert len(log.end().splitlines()) == 12
    log.remove()
