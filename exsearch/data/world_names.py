"""Invented names: pronounceable, and far enough apart that none is taken for another."""

from __future__ import annotations

import itertools
import random

_ONSETS = (
    *("b", "br", "d", "dr", "f", "fl", "g", "gl", "h", "j", "k", "kr", "l", "m", "n", "p"),
    *("pr", "r", "s", "sk", "st", "t", "tr", "v", "z"),
)
_VOWELS = ("a", "e", "i", "o", "u")
_MIDDLES = ("l", "ld", "lm", "m", "n", "nd", "r", "rk", "rn", "rv", "s", "st", "v", "z", "k")
_CODAS = ("", "l", "n", "r", "s", "k", "m", "th", "x", "sk", "rn", "nd")
FIRST_NAMES = (
    *("Adel", "Benno", "Carla", "Dario", "Edda", "Felix", "Greta", "Hugo", "Irma", "Jonas"),
    *("Karin", "Leo", "Mara", "Nils", "Olga", "Paul", "Rosa", "Simon", "Tilda", "Viktor"),
)
_ADJECTIVES = (
    *("Silent", "Glass", "Amber", "Broken", "Hidden", "Winter", "Golden", "Paper", "Crooked"),
    *("Distant", "Velvet", "Burning", "Hollow", "Gentle", "Iron", "Borrowed", "Midnight"),
    *("Salt", "Copper", "Wandering", "Frozen", "Scarlet", "Narrow", "Forgotten", "Painted"),
)
_NOUNS = (
    *("Harbour", "Orchard", "Lantern", "Garden", "Letter", "Bridge", "Mirror", "Island"),
    *("Clock", "Tower", "Violin", "Forest", "Window", "Staircase", "Compass", "Feather"),
    *("Kingdom", "Market", "Ladder", "Carnival", "Library", "Meadow", "Anchor", "Balcony"),
)


class NameMaker:
    """Draws names without ever repeating one; the same generator gives the same names."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._near: set[str] = set()
        self._starts: set[str] = set()
        self._titles = [f"The {a} {n}" for a in _ADJECTIVES for n in _NOUNS]
        rng.shuffle(self._titles)

    def word(self) -> str:
        """A new word of two syllables (more once those run out) that begins like no other.

        No consonant comes twice in it, and it differs in two letters or more from every other.
        """
        draw = self._rng.choice
        for attempt in itertools.count():
            start = draw(_ONSETS) + draw(_VOWELS) + draw(_MIDDLES)
            extra = "".join(draw(_VOWELS) + draw(_MIDDLES) for _ in range(attempt // 500))
            word = start + extra + draw(_VOWELS) + draw(_CODAS)
            consonants = [letter for letter in start + word[-1] if letter not in _VOWELS]
            if len(word) < 5 or len(set(consonants)) < len(consonants):
                continue
            if start + extra in self._starts or self._near & _one_letter_off(word):
                continue
            self._starts.add(start + extra)
            self._near |= _one_letter_off(word)
            return word.capitalize()
        raise AssertionError("unreachable: longer words never run out")

    def title(self) -> str:
        """A new title of a work; its words recur in other titles, the pair does not."""
        return self._titles.pop() if self._titles else f"The Song of {self.word()}"


def _one_letter_off(word: str) -> set[str]:
    """The word and its one-letter deletions and wildcards: two words that share one are too near.

    Wildcards catch a changed letter, deletions a missing one (the symmetric-delete trick).
    """
    cut = {word[:i] + word[i + 1 :] for i in range(len(word))}
    masked = {f"{word[:i]}_{word[i + 1 :]}" for i in range(len(word))}
    return {word} | cut | masked
