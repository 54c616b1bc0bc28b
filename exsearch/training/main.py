"""One process of a training run.

A run is described by a JSON file (`TrainingJob`) and carried out by one process or
many; each of them executes this module. The loss is a sum over all examples of an
optimizer step divided by their total weight, so the trained model does not depend on how
many processes there are.

One process, on a laptop:

    python -m exsearch.training.main out/job.json

Two processes on one machine, ZeRO-3 if the job's settings say `zero_stage: 3`:

    torchrun --standalone --nproc_per_node=2 -m exsearch.training.main out/job.json

Several machines: the same line without `--standalone --nproc_per_node`, under the
PET_NNODES, PET_NODE_RANK, PET_MASTER_ADDR, ... that a PyTorchJob sets; the output
folder must then be on a file system that all of them mount, or at a URL.

Events go to standard output, one JSON object a line (`journal`). Exit codes: 0 done,
1 failed, 2 unusable input. `exsearch sft` and `exsearch align` run this through
`launch` and draw a progress bar.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from exsearch.errors import ExSearchError, InputError
from exsearch.training import journal
from exsearch.training.job import TrainingResult, finished, read_job
from exsearch.training.plan import plan

LAUNCHER = "EXSEARCH_LAUNCHER_PID"
"""Environment variable with the process that must be alive for the run to go on."""

LOCAL_WORLD = "LOCAL_WORLD_SIZE"
"""Environment variable in which torchrun says how many processes share this machine."""


def main(path: str) -> int:
    """Run the job in `path`; returns the exit code."""
    _end_with_launcher()
    try:
        result = _run(path)
    except ExSearchError as error:
        journal.emit("error", message=str(error), input=isinstance(error, InputError))
        return error.exit_code
    if int(os.environ.get("RANK", "0")) == 0:
        journal.emit("done", result=result.model_dump())
    return 0


def _run(path: str) -> TrainingResult:
    """What can be refused is refused before torch is imported, which takes long."""
    job = read_job(path).with_local_inputs()
    fingerprint = job.fingerprint()
    done = finished(job, fingerprint)
    if done is not None:
        return done
    prepared = plan(job)
    _set_environment()
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from exsearch.training.run import run

    result = run(job, prepared, fingerprint)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return result


def _set_environment() -> None:
    """What libraries read when they are imported."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("OMP_NUM_THREADS", str(threads(int(os.environ.get(LOCAL_WORLD, "1")))))
    if "RANK" not in os.environ:
        # One process with several GPUs in sight would fall into the Trainer's DataParallel.
        first, *_ = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")
        os.environ["CUDA_VISIBLE_DEVICES"] = first


def threads(processes: int) -> int:
    """Threads for each of `processes` on this machine: the cores we may use, shared out."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, cores // processes)


def _end_with_launcher() -> None:
    """Leave when the launcher is gone, killed outright perhaps, lest two runs write at once."""
    launcher = int(os.environ.get(LAUNCHER, "0"))
    if not launcher:
        return

    def watch() -> None:
        while True:
            try:
                os.kill(launcher, 0)
            except ProcessLookupError:
                os._exit(1)
            time.sleep(0.5)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m exsearch.training.main JOB.json")
    sys.exit(main(sys.argv[1]))
