"""What a local pipeline run shows of all that kfp.local prints."""

from __future__ import annotations

import io

import pytest

from exsearch.pipelines.readable import Readable

pytestmark = pytest.mark.unit

PRINTED = """\
13:52:46.509 - INFO - Running pipeline: \x1b[95m'exsearch-em'\x1b[0m
--------
13:52:46.516 - INFO - Executing task \x1b[96m'merge'\x1b[0m
13:52:46.516 - INFO - Streamed logs:

    [KFP Executor 2026-11-25 13:52:46,563 INFO]: Got executor_input:
    {
        "inputs": {
            "settings": "finding centroids: none\\nof ours"
        }
    }
    [KFP Executor 2026-11-25 13:52:47,563 INFO]: Could not load library with AVX2 support due to:
    ModuleNotFoundError("No module named 'faiss.swigfaiss_avx2'")
    [KFP Executor 2026-11-25 13:52:48,563 WARNING]: the disk is nearly full
    finding centroids: 4 of 4, 4.3/s, 0 s left
      two more of our lines, {
    }


13:53:14.990 - INFO - Task \x1b[96m'merge'\x1b[0m finished with status \x1b[92mSUCCESS\x1b[0m
13:53:14.991 - INFO - Task \x1b[96m'merge'\x1b[0m outputs:
    index: 'run: a
seed: 0
'
13:53:15.000 - INFO - Executing task \x1b[96m'gate'\x1b[0m
13:53:15.100 - ERROR - Task \x1b[96m'gate'\x1b[0m finished with status \x1b[91mFAILURE\x1b[0m
"""

SHOWN = """\
13:52:46 merge
the disk is nearly full
  finding centroids: 4 of 4, 4.3/s, 0 s left
    two more of our lines, {
  }
13:53:15 gate
Task 'gate' finished with status FAILURE
"""


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_steps_and_their_own_words_are_shown_and_all_is_kept(size: int) -> None:
    shown, everything = io.StringIO(), io.StringIO()
    stream = Readable(shown, everything)
    for begin in range(0, len(PRINTED), size):
        stream.write(PRINTED[begin : begin + size])
    assert shown.getvalue() == SHOWN
    assert everything.getvalue() == PRINTED
