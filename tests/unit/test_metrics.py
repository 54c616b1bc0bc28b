"""Answer metrics against literal expectations worked out from KILT's published scorer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exsearch.evaluation.metrics import accuracy, exact_match, f1, normalise

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Beatles", "beatles"),
        ("A man, a plan: an island!", "man plan island"),
        ("Theatre", "theatre"),  # the article only as a word
        ("co-op", "coop"),  # punctuation leaves no space behind
        ("U.S.", "us"),
        ("the-end", "theend"),  # punctuation goes first, so no article is left
        ("Born in 1964", "born in 1964"),
        ("1,234.5", "12345"),
        ("3 000", "3 000"),
        ("  two\t words\n", "two words"),
        ("Ångström", "ångström"),
        ("ÉCOLE", "école"),
        ("“quoted”", "“quoted”"),  # KILT strips ASCII punctuation only
        ("1914–1918", "1914–1918"),
        ("北京", "北京"),
        ("a", ""),
        ("the", ""),
        ("?!", ""),
        ("", ""),
        ("Yes.", "yes"),
    ],
)
def test_normalise(text: str, normal: str) -> None:
    assert normalise(text) == normal


@pytest.mark.parametrize(
    ("prediction", "answers", "em", "f1_score", "contained"),
    [
        ("The Beatles!", ["beatles"], 1, 1, 1),
        ("It was Paris, France", ["Paris"], 0, 0.4, 1),
        ("New York", ["New York City"], 0, 0.8, 0),
        ("1965", ["1964"], 0, 0, 0),  # digits are kept
        ("in 1964", ["1964"], 0, 2 / 3, 1),
        ("1,000", ["1000"], 1, 1, 1),
        ("yes", ["yes"], 1, 1, 1),
        ("no", ["yes"], 0, 0, 0),
        ("yes, it is", ["yes"], 0, 0.5, 1),  # KILT has no special case for yes and no
        ("unknown", ["no"], 0, 0, 1),  # a substring, as published figures count it
        ("Paris", ["London", "paris"], 1, 1, 1),  # the best gold answer counts
        ("Beyonce", ["Beyoncé"], 0, 0, 0),  # accents are kept
        ("bora bora", ["bora"], 0, 2 / 3, 1),  # words count with multiplicity
        ("bora bora bora", ["bora bora"], 0, 0.8, 1),
        ("the", ["a"], 1, 0, 1),  # both normalise to nothing
        ("the", ["an apple"], 0, 0, 0),
        ("an apple", ["the"], 0, 0, 0),
        ("", ["the"], 0, 0, 0),  # blank is wrong
        ("  ", ["x"], 0, 0, 0),
        (None, ["x"], 0, 0, 0),
        ("x", [" "], 0, 0, 0),  # a blank gold answer is none
        ("x", [], 0, 0, 0),
    ],
)
def test_scores(
    prediction: str | None, answers: list[str], em: float, f1_score: float, contained: float
) -> None:
    assert exact_match(prediction, answers) == em
    assert f1(prediction, answers) == pytest.approx(f1_score)
    assert accuracy(prediction, answers) == contained


TEXT = st.text(alphabet=st.sampled_from("abthe né19.,-“ \t"), max_size=12)
SCORES = [exact_match, f1, accuracy]


@given(TEXT, st.lists(TEXT, max_size=4))
def test_bounds_and_order_of_strictness(prediction: str, answers: list[str]) -> None:
    em, overlap, contained = (score(prediction, answers) for score in SCORES)
    assert em in (0.0, 1.0)
    assert contained in (0.0, 1.0)
    assert 0.0 <= overlap <= 1.0
    assert em <= contained


@given(TEXT, st.lists(TEXT, min_size=1, max_size=4), st.randoms())
def test_the_best_gold_answer_counts(prediction: str, answers: list[str], random) -> None:
    shuffled = random.sample(answers, len(answers))
    for score in SCORES:
        singly = max(score(prediction, [answer]) for answer in answers)
        assert score(prediction, answers) == score(prediction, shuffled) == singly


@given(TEXT)
def test_normal_form_is_stable(text: str) -> None:
    assert "  " not in normalise(text)
    assert normalise(text) == normalise(text.upper().lower())


@given(st.text(alphabet="bcdé19 ", min_size=1).filter(str.strip))
def test_an_answer_is_right_about_itself(text: str) -> None:
    assert [score(text, [text]) for score in SCORES] == [1.0, 1.0, 1.0]
