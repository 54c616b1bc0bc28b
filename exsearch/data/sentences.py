"""Sentences and words, as far as choosing a supporting fact needs them."""

from __future__ import annotations

import re

_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[^\W_a-z])")
_WORD = re.compile(r"\w+(?:['’.-]\w+)*")
_POSSESSIVE = re.compile(r"['’]s$")
_COMMON = """
a an and any are as at be been being both by can could did do does for from had has have he her
his how i in is it its many much of on or our she that the their them there they this to was we
were what when where which who whom whose why will with would you
"""
STOPWORDS = frozenset(_COMMON.split())


def split_sentences(text: str) -> list[str]:
    """Sentences of a paragraph, roughly: cut after . ! ? where a capital or digit follows."""
    return [part.strip() for part in _END.split(text) if part.strip()]


def content_words(text: str) -> list[str]:
    """The words of a text that say something, in order, without repeats, as written."""
    found: dict[str, str] = {}
    for word in _WORD.findall(text):
        word = _POSSESSIVE.sub("", word)
        if word.lower() not in STOPWORDS:
            found.setdefault(word.lower(), word)
    return list(found.values())


def states(text: str, answer: str) -> bool:
    """True when `answer` stands in `text` as words of their own, in any case."""
    return re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text, re.IGNORECASE) is not None


def supporting_sentence(paragraph: str, answer: str, query: str) -> str | None:
    """The sentence that states `answer`: of those that contain it, nearest to `query`'s words.

    None where no sentence contains the answer.
    """
    asked = {word.lower() for word in content_words(query)}
    candidates = [s for s in split_sentences(paragraph) if states(s, answer)]

    def shared(sentence: str) -> int:
        return len(asked & {word.lower() for word in content_words(sentence)})

    return max(candidates, key=shared, default=None)
