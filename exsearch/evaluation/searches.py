"""Hops a question needs against searches made: over- and under-search as a matrix."""

from __future__ import annotations

from collections.abc import Iterable

from exsearch.evaluation.judgement import Judgement

MOST = 5
"""Counts from here on share a class."""


def search_matrix(judgements: Iterable[Judgement]) -> tuple[list[str], list[list[int]]]:
    """Counts of questions by gold hops (rows) and searches made (columns).

    Returns:
        the classes, `0` to `5+`, and the counts, shape [classes, classes]. Questions whose
        hops or searches are not known are left out.
    """
    names = [*map(str, range(MOST)), f"{MOST}+"]
    counts = [[0] * len(names) for _ in names]
    for judgement in judgements:
        if judgement.hops is not None and judgement.steps is not None:
            counts[min(judgement.hops, MOST)][min(judgement.steps, MOST)] += 1
    return names, counts
