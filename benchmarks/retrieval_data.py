"""Passages and questions for the retrieval benchmarks, and how results are written.

Reads the samples named by EXSEARCH_SHARED (or `../shared` beside the repository):
9,002 Wikipedia passages and 100 HotpotQA questions whose gold passages are among them.
"""

from __future__ import annotations

import json
import os
import platform
import random
import sys
from pathlib import Path
from typing import Any

from exsearch.data.corpus import read_corpus
from exsearch.records import Passage
from exsearch.retrieval import compat
from exsearch.retrieval.kernel import cache_folder
from exsearch.retrieval.ranker import processors
from exsearch.storage import write_json

Asked = tuple[str, set[str]]
"""A question and the titles of its gold passages."""


def shared() -> Path:
    """The folder with the samples; ends the program where there is none."""
    given = os.environ.get("EXSEARCH_SHARED")
    folder = Path(given) if given else Path(__file__).parents[2] / "shared"
    if not (folder / "data").is_dir():
        sys.exit(f"no sample data in {folder}: set EXSEARCH_SHARED")
    return folder / "data"


def questions() -> list[Asked]:
    """HotpotQA's sample."""
    text = (shared() / "hotpotqa" / "hotpot_train_sample.json").read_text(encoding="utf-8")
    return [
        (row["question"], {title for title, _ in row["supporting_facts"]})
        for row in json.loads(text)
    ]


def passages(count: int) -> list[Passage]:
    """`count` passages: first those the questions need, then others, in a fixed order."""
    everything = list(read_corpus(str(shared() / "wiki" / "psgs_sample.tsv")))
    gold = set().union(*(titles for _, titles in questions()))
    random.Random(0).shuffle(everything)
    everything.sort(key=lambda passage: passage.title not in gold)
    chosen = everything[:count]
    random.Random(1).shuffle(chosen)
    return chosen


def many_queries(count: int) -> list[str]:
    """Distinct queries: the questions, then sub-queries about passages."""
    asked = [question for question, _ in questions()]
    patterns = ("Who or what is {}?", "Where is {}?", "When did {} begin?", "What is {} known for?")
    titles = dict.fromkeys(passage.title for passage in passages(9002))
    more = (pattern.format(title) for pattern in patterns for title in titles)
    return [*asked, *more][:count]


def work_folder() -> Path:
    """Where indexes are kept between benchmarks."""
    return cache_folder() / "benchmarks"


def machine() -> dict[str, Any]:
    return {
        "processor": _processor(),
        "processors": processors(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_average_before": os.getloadavg()[0],
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def finish(name: str, result: dict[str, Any]) -> None:
    """Print the result as JSON and write it to `results/NAME.json`."""
    arguments = " ".join(sys.argv[1:])
    command = f"python benchmarks/{name}.py {arguments}".strip()
    whole = {"command": command, **result}
    write_json(Path(__file__).parent / "results" / f"{name}.json", whole)
    print(json.dumps(whole, indent=2))


def ready() -> None:
    """Compile what colbert-ai compiles at first use, so that nobody's time includes it."""
    compat.compile_extensions()
