"""What may be said: turns, selections, replies, and data made harmless."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scripted import passages

from exsearch.agent import protocol
from exsearch.agent.protocol import (
    Malformed,
    Turn,
    parse_selection,
    parse_turn,
    plain,
    write_selection,
    write_turn,
)
from exsearch.config import AgentConfig
from exsearch.records import Demonstration, Step

pytestmark = pytest.mark.unit

anything = st.text(st.characters(), max_size=60)
fragments = st.sampled_from(
    [
        *(
            "<",
            ">",
            "</",
            " ",
            "\n",
            "\t",
            "QUERY",
            "fact",
            "Final",
            "SEARCH",
            "<FACT>",
            "< query >",
        ),
        *("\x00", "\u202e", "\u200b", "\ufeff", "\ud800", "‹", "|", "<|im_end|>", "x" * 45, "ä"),
    ]
)
hostile = st.lists(st.one_of(fragments, anything), max_size=14).map("".join)
said = hostile.map(lambda text: plain(text, 30)).filter(bool)
MARKER = re.compile(r"<\s*/?\s*(query|search|fact|final)\s*/?\s*>", re.IGNORECASE)


# --- the agent's turns


@given(fact=st.none() | said, query=st.none() | said)
def test_reading_undoes_writing(fact: str | None, query: str | None) -> None:
    assert parse_turn(write_turn(fact, query)) == Turn(fact, query)


@pytest.mark.parametrize(
    ("text", "turn"),
    [
        ("<QUERY> who?", Turn(None, "who?")),
        ("  <QUERY>who\n  else? ", Turn(None, "who else?")),
        ("<FACT> it is so.\n<QUERY> who?", Turn("it is so.", "who?")),
        ("<FACT> it is so. <FINAL>", Turn("it is so.", None)),
        ("<FINAL>", Turn(None, None)),
        ("<FINAL> forty-two", Turn(None, None)),
        ("<FACT> two\nlines <FINAL>", Turn("two\nlines", None)),
        ("<QUERY> a < b > c", Turn(None, "a < b > c")),
    ],
)
def test_turns_that_follow_the_protocol(text: str, turn: Turn) -> None:
    assert parse_turn(text) == turn
    assert turn.final is (turn.query is None)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no marker"),
        ("The answer is 42.", "no marker"),
        ("Well, <QUERY> who?", "text before <QUERY>"),
        ("<QUERY>", "empty <QUERY>"),
        ("<QUERY> \n\t", "empty <QUERY>"),
        ("<FACT> <FINAL>", "empty <FACT>"),
        ("<FACT> so", "exactly one"),
        ("<FACT> so <FACT> and so <FINAL>", "exactly one"),
        ("<QUERY> a <QUERY> b", "exactly one"),
        ("<QUERY> a <FINAL>", "exactly one"),
        ("<FINAL> <QUERY> a", "exactly one"),
        ("<QUERY> a <SEARCH> [1] Title: I found it", "only the environment"),
        ("<SEARCH> x", "only the environment"),
        ("<query> who?", "no marker"),
    ],
)
def test_turns_that_do_not(text: str, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        parse_turn(text)


@given(hostile)
def test_a_turn_is_read_or_refused_never_more(text: str) -> None:
    try:
        turn = parse_turn(text)
    except Malformed:
        return
    assert turn.query is None or turn.query.strip()
    assert turn.fact is None or turn.fact


# --- selections


@given(st.lists(st.integers(1, 20), unique=True, max_size=6))
def test_reading_undoes_writing_of_selections(kept: list[int]) -> None:
    assert parse_selection(write_selection(kept), 20, 6) == tuple(kept)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("[2] > [1]", (2, 1)),
        ("[3]", (3,)),
        ("I pick [ 2 ], then [2] and [3].", (2, 3)),
        ("[9] > [0] > [1]", (1,)),
        ("[1] > [2] > [3]", (1, 2)),
        ("none", ()),
        ("None.", ()),
    ],
)
def test_selections(text: str, kept: tuple[int, ...]) -> None:
    assert parse_selection(text, 3, 3 if "3" in text and "2] > [3" not in text else 2) == kept


@pytest.mark.parametrize("text", ["", "2 > 1", "[4]", "[0]", "[-1]", "[99999]", "all", "[one]"])
def test_selections_that_choose_nothing_usable(text: str) -> None:
    with pytest.raises(Malformed, match=r"between \[1\] and \[3\]"):
        parse_selection(text, 3, 3)


@given(hostile, st.integers(1, 30), st.integers(1, 9))
def test_a_selection_stays_within_what_was_offered(text: str, offered: int, most: int) -> None:
    try:
        kept = parse_selection(text, offered, most)
    except Malformed:
        return
    assert len(kept) <= most
    assert len(set(kept)) == len(kept)
    assert all(1 <= n <= offered for n in kept)


# --- data made harmless


@given(hostile, st.integers(1, 12))
@example("<" + "x" * 50 + "FACT>", 3)
@example("<<FACT>FACT>", 3)
@example("< FACT\u200b>", 3)
@example("<FA\x00CT> <\nQUERY\t>", 5)
def test_plain_text_is_one_short_line_without_markers(text: str, words: int) -> None:
    done = plain(text, words)
    assert MARKER.search(done) is None
    assert len(done) <= words * 41
    assert len(done.split()) <= words
    assert done == " ".join(done.split())
    assert not re.search(
        "[\x00-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", done
    )
    done.encode()


@given(hostile, st.integers(1, 12))
def test_plain_text_made_plain_again_holds_no_marker_and_never_grows(text: str, words: int) -> None:
    once = plain(text, words)
    twice = plain(once, words)
    assert len(twice) <= len(once)
    assert MARKER.search(twice) is None


@given(st.lists(st.text("abcä?.,-", min_size=1, max_size=30), min_size=1, max_size=8))
def test_ordinary_words_stay_as_they_are(words: list[str]) -> None:
    assert plain("  \n".join(words), 8) == " ".join(words)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<FACT> lies", "‹FACT› lies"),
        ("< /final >", "‹final›"),
        ("<Query/>", "‹Query›"),
        ("a\u202eb\x00c\u061cd", "a b c d"),
        ("FACT", "FACT"),
        ("<b>bold</b> 1 < 2", "<b>bold</b> 1 < 2"),
    ],
)
def test_markers_stay_readable(text: str, shown: str) -> None:
    assert plain(text, 10) == shown


def test_a_megabyte_costs_no_more_than_a_page() -> None:
    assert len(plain("<FACT> " * 150_000, 20)) <= 20 * 41
    assert plain("x" * 1_000_000, 20) == "x" * 40
    assert plain("\x00" * 1_000_000, 20) == ""


@given(hostile, hostile)
def test_replies_open_with_the_one_marker_that_is_the_environments(title: str, text: str) -> None:
    passage = passages(1)[0].model_copy(update={"title": title, "text": text})
    reply = protocol.search_reply([passage, passage], [2, 1], 12)
    assert reply.startswith("<SEARCH> [2] Title: ")
    assert MARKER.findall(reply) == ["SEARCH"]
    assert reply.count("\n") == 1


def test_passages_are_shown_under_the_number_they_are_picked_by() -> None:
    listed = protocol.list_passages(passages(3), [3, 1], 10)
    assert listed.splitlines() == [
        "[3] Title: Title 3 Content: Text of passage 3.",
        "[1] Title: Title 1 Content: Text of passage 1.",
    ]


def test_an_empty_selection_is_said() -> None:
    assert protocol.search_reply(passages(), (), 10) == "<SEARCH> nothing useful was found."


# --- demonstrations


DEMO = Demonstration(
    id="d1",
    question="Who?",
    steps=(
        Step(query="first", passages=tuple(passages(3)), kept=(2,), evidence="one"),
        Step(query="second", passages=tuple(passages(3)), kept=(3, 1), evidence="two"),
    ),
    answer="Ada",
)


def test_a_demonstration_is_what_a_good_agent_would_have_written() -> None:
    [chat] = protocol.demonstrate(DEMO, AgentConfig(selection="top_n", top_n=2))
    assert [m.role for m in chat.messages[:2]] == ["system", "user"]
    turns = [m.content for m in chat.messages if m.role == "assistant"]
    assert turns == [
        "<QUERY> first",
        "<FACT> one\n<QUERY> second",
        "<FACT> two\n<FINAL>",
        "Ada",
    ]
    replies = [m.content for m in chat.messages if m.role == "user"][1:]
    assert replies[0].startswith("<SEARCH> [1] Title")
    assert replies[-1] == protocol.closing_reply("Who?")


def test_with_learned_selection_it_also_shows_how_to_select() -> None:
    whole, *selections = protocol.demonstrate(DEMO, AgentConfig(selection="learned", top_n=2))
    assert "[2] Title: Title 2" in whole.messages[3].content
    assert "[1] Title" not in whole.messages[3].content
    assert [s.messages[-1].content for s in selections] == ["[2]", "[3] > [1]"]
    assert [s.id for s in selections] == ["d1/selection-1", "d1/selection-2"]


@given(said, said)
def test_every_demonstrated_turn_follows_the_protocol(query: str, fact: str) -> None:
    steps = (Step(query=query, passages=tuple(passages()), kept=(1,), evidence=fact),)
    demo = DEMO.model_copy(update={"steps": steps})
    [chat] = protocol.demonstrate(demo, AgentConfig(selection="top_n"))
    turns = [m.content for m in chat.messages if m.role == "assistant"]
    assert parse_turn(turns[0]).query
    assert parse_turn(turns[1]).final
