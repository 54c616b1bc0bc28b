"""Answer metrics over strings, as KILT computes them.

Normalisation, exact match and F1 follow KILT's published scorer
(facebookresearch/KILT, `kilt/eval_downstream.py`), step by step and in its order:

1. lower-case (Unicode-aware);
2. delete the 32 ASCII punctuation signs, *without* leaving a space
   ("co-op" → "coop", "U.S." → "us"); other Unicode signs such as “ or – stay;
3. replace the words a, an, the by a space;
4. collapse white space.

Digits and accents stay. There is no special treatment of yes and no: F1 of
"yes, it is" against "yes" is 0.5 (the official HotpotQA scorer would give 0).

KILT defines no accuracy. It is taken as in the ExSearch paper's code and in most
work on retrieval-augmented generation: 1 where the normalised gold answer is a
*substring* of the normalised prediction. Word boundaries are not required, so
that figures compare with published ones; the price is that gold "no" counts as
contained in "unknown". Read accuracy beside EM, never alone.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalise(text: str) -> str:
    """KILT's normal form of an answer."""
    bare = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def exact_match(prediction: str | None, answers: Iterable[str]) -> float:
    """1.0 where the prediction's normal form equals a gold answer's, else 0.0."""
    return _best(_equal, prediction, answers)


def f1(prediction: str | None, answers: Iterable[str]) -> float:
    """Token F1 in 0..1 against the gold answer that fits best.

    Tokens are the words of the normal form, counted with multiplicity. Where
    either side has no token left, F1 is 0, also when both have none (as in KILT).
    """
    return _best(_overlap, prediction, answers)


def accuracy(prediction: str | None, answers: Iterable[str]) -> float:
    """1.0 where a gold answer's normal form is a substring of the prediction's, else 0.0.

    A gold answer whose normal form is empty ("The") is contained in nothing but
    another empty one.
    """
    return _best(_contains, prediction, answers)


def _best(
    score: Callable[[str, str], float], prediction: str | None, answers: Iterable[str]
) -> float:
    """The highest score over the gold answers that are not blank.

    A prediction that is missing or blank is wrong, whatever the gold answers: KILT
    refuses such a line, we count it.
    """
    if prediction is None or not prediction.strip():
        return 0.0
    guess = normalise(prediction)
    return max((score(guess, normalise(gold)) for gold in answers if gold.strip()), default=0.0)


def _equal(guess: str, gold: str) -> float:
    return float(guess == gold)


def _contains(guess: str, gold: str) -> float:
    return float(gold in guess if gold else not guess)


def _overlap(guess: str, gold: str) -> float:
    ours, theirs = guess.split(), gold.split()
    common = (Counter(ours) & Counter(theirs)).total()
    if common == 0:
        return 0.0
    precision, recall = common / len(ours), common / len(theirs)
    return 2 * precision * recall / (precision + recall)
