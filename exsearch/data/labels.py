"""Which passage of a retrieved list supports a gold hop (the paper's selection labels)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer

from exsearch.data.sentences import states
from exsearch.records import Hop, Passage

LONGEST = 400
"""Words of a passage that are compared: a longer one is not worth the quadratic time."""
How = Literal["pid", "title", "overlap"]


@dataclass(frozen=True)
class Label:
    """The position of the supporting passage, from 1, and what told it."""

    position: int
    how: How


class _Words(Tokenizer):
    """Words in any script (rouge-score's own tokenizer keeps a–z and digits alone)."""

    def tokenize(self, text: str) -> list[str]:
        return re.findall(r"\w+", text.lower())[:LONGEST]


class Labeller:
    """Finds the gold passage: by id where the hop names one, else by title, else by overlap.

    Overlap is ROUGE-L's recall of the gold fact (the share of its words found in order): a
    passage is much longer than a fact, so precision, and F with it, would only measure
    length. Where the data set marks no fact, sub-query and answer stand in for it. A passage
    of another title must also state the answer, where the fact does: sentences of one
    pattern ("… was born in …") overlap well and say different things.
    """

    def __init__(self, min_overlap: float) -> None:
        self._min_overlap = min_overlap
        self._scorer = RougeScorer(["rougeL"], tokenizer=_Words())

    def find(self, hop: Hop, passages: Sequence[Passage]) -> Label | None:
        """The best passage, or None where none will do.

        The earliest wins among equals: it is the one the retriever thinks best.
        """
        places = list(enumerate(passages, 1))
        if hop.pid is not None:
            known = next((place for place, passage in places if passage.pid == hop.pid), None)
            return None if known is None else Label(known, "pid")
        fact = hop.fact or f"{hop.query} {hop.answer}"
        titled = [(place, p.text) for place, p in places if p.title == hop.title]
        if (found := self._best(fact, titled)) is not None:
            return Label(found, "title")
        telling = states(fact, hop.answer)
        others = [
            (place, p.text) for place, p in places if not telling or states(p.text, hop.answer)
        ]
        found = self._best(fact, others)
        return None if found is None else Label(found, "overlap")

    def _best(self, fact: str, texts: Sequence[tuple[int, str]]) -> int | None:
        """The place of the text that overlaps most, if by `min_overlap`."""
        scores = {place: self._recall(fact, text) for place, text in texts}
        best = max(scores, key=lambda place: scores[place], default=None)
        return best if best is not None and scores[best] >= self._min_overlap else None

    def _recall(self, fact: str, text: str) -> float:
        return float(self._scorer.score(fact, text)["rougeL"].recall)
