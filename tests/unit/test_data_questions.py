"""Question readers: every format, its decomposition, and its broken records."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exsearch.data.hotpotqa import Support, derive
from exsearch.data.lines import FieldError, Skipped
from exsearch.data.musique import resolve
from exsearch.data.questions import PARSERS, detect_format, read_questions
from exsearch.data.sentences import content_words, split_sentences, supporting_sentence
from exsearch.errors import BadLine, InputError
from exsearch.records import Question

pytestmark = pytest.mark.unit

HOTPOT = {
    "_id": "5a7a", "type": "bridge", "level": "easy",
    "question": "In which town was the director of Silver Kettle born?",
    "answer": "Tolm",
    "supporting_facts": [["Ada Brisk", 1], ["Silver Kettle", 0]],
    "context": [
        ["Ada Brisk", ["Ada Brisk paints.", " She was born in Tolm."]],
        ["Silver Kettle", ["Silver Kettle is a film by Ada Brisk.", " It won no prize."]],
        ["Kettle", ["A kettle boils water."]],
    ],
}  # fmt: skip
COMPARISON = {
    "_id": "5b1c", "type": "comparison", "level": "hard",
    "question": "Are Mount Fen and Orla Peak both in the same country?",
    "answer": "no",
    "supporting_facts": [["Orla Peak (mountain)", 0], ["Mount Fen", 0]],
    "context": [
        ["Mount Fen", ["Mount Fen is in Norland."]],
        ["Orla Peak (mountain)", ["Orla Peak stands in Sudland."]],
    ],
}  # fmt: skip
WIKI2 = {
    **{k: HOTPOT[k] for k in ("question", "answer", "supporting_facts", "context")},
    "_id": "2w1", "type": "compositional",
    "evidences": [["Silver Kettle", "director", "Ada Brisk"],
                  ["Ada Brisk", "place of birth", "Tolm"]],
}  # fmt: skip
MUSIQUE = {
    "id": "3hop1__1_2_3", "answerable": True,
    "question": "Which river crosses the town where the singer of Blue Door was born?",
    "answer": "Fen", "answer_aliases": ["River Fen", "Fen"],
    "paragraphs": [
        {"idx": 0, "title": "Tolm", "paragraph_text": "Tolm is old. The river Fen crosses Tolm.",
         "is_supporting": True},
        {"idx": 1, "title": "Blue Door", "paragraph_text": "Blue Door is a song by Ed Pax. Nice!",
         "is_supporting": True},
        {"idx": 2, "title": "Ed Pax", "paragraph_text": "Ed Pax (born in 1950) comes from Tolm.",
         "is_supporting": True},
    ],
    "question_decomposition": [
        {"id": 1, "question": "Blue Door >> performer", "answer": "Ed Pax",
         "paragraph_support_idx": 1},
        {"id": 2, "question": "Where was #1 born ?", "answer": "Tolm", "paragraph_support_idx": 2},
        {"id": 3, "question": "Which river crosses #2 , home of #1?", "answer": "Fen",
         "paragraph_support_idx": 0},
    ],
}  # fmt: skip
FLASHRAG = {
    "id": "test_0",
    "question": "who sang blue door",
    "golden_answers": ["Ed Pax", "Pax", "Ed Pax"],
}
KILT = {
    "id": "-43", "input": "who wrote the hymn", "meta": {},
    "output": [
        {"answer": "Ed Pax", "provenance": [
            {"wikipedia_id": "12", "title": "The Hymn", "section": "S"},
            {"wikipedia_id": "12", "title": "The Hymn"},
            {"wikipedia_id": "13", "title": "Ed Pax"}]},
        {"answer": "E. Pax", "provenance": [{"wikipedia_id": "99", "title": "Other"}]},
        {"provenance": [{"title": "Nothing"}]},
    ],
}  # fmt: skip
OWN = {"id": "q1", "question": "Why?", "answers": ["because"]}

SAMPLES: dict[str, dict[str, Any]] = {
    **{"hotpotqa": HOTPOT, "2wiki": WIKI2, "musique": MUSIQUE},
    **{"flashrag": FLASHRAG, "kilt": KILT, "exsearch": OWN},
}


def shared(*parts: str) -> Path:
    place = Path(os.environ.get("EXSEARCH_SHARED") or Path(__file__).parents[3] / "shared")
    path = place.joinpath("data", *parts)
    if not path.exists():
        pytest.skip(f"no shared sample data at {path}")
    return path


def write(path: Path, records: list[Any], form: str) -> str:
    if form == "array":
        text = json.dumps(records, indent=2)
    else:
        text = "\n".join(json.dumps(record) for record in records)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def parse(name: str, record: dict[str, Any]) -> Question:
    return PARSERS[name](record)


@pytest.mark.parametrize("form", ["array", "lines"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("name", SAMPLES)
def test_detected_and_read_in_any_wrapping(
    tmp_path: Path, name: str, suffix: str, form: str
) -> None:
    path = write(tmp_path / f"q.json{suffix}", [SAMPLES[name]], form)
    assert detect_format(path) == name
    read = list(read_questions(path))
    assert read == list(read_questions(path, name)) == [parse(name, SAMPLES[name])]


def test_hotpotqa_bridge() -> None:
    question = parse("hotpotqa", HOTPOT)
    assert (question.kind, question.hops, question.answers) == ("bridge", 2, ("Tolm",))
    assert question.titles == ("Ada Brisk", "Silver Kettle")
    first, second = question.decomposition
    assert (first.query, first.answer, first.title) == (
        "Silver Kettle", "Ada Brisk", "Silver Kettle",
    )  # fmt: skip
    assert first.fact == "Silver Kettle is a film by Ada Brisk."
    assert (second.query, second.answer) == ("Ada Brisk town director born", "Tolm")
    assert second.fact == "She was born in Tolm."


def test_hotpotqa_comparison_follows_the_question() -> None:
    question = parse("hotpotqa", COMPARISON)
    first, second = question.decomposition
    assert first.query == "Mount Fen same country"
    assert second.query == "Orla Peak same country"
    assert first.answer == first.fact == "Mount Fen is in Norland."


def test_a_sub_query_names_nothing_the_agent_cannot_know() -> None:
    facts = [
        Support("Secret Game", "Secret Game shows Ed Pax and was made by Foxco."),
        Support("Ed Pax", "Ed Pax came second in the 1999 race."),
    ]
    question = "Who made the game that shows the one who came second in the 1999 race?"
    first, second = derive(question, "Foxco", facts, comparison=False)
    assert (first.query, first.title, first.answer) == (question, "Ed Pax", "Secret Game")
    assert second.query == "Ed Pax made game shows one"
    assert "Secret" not in second.query


def test_hotpotqa_without_context_or_facts() -> None:
    bare = {k: v for k, v in HOTPOT.items() if k != "context"}
    question = parse("hotpotqa", bare)
    assert question.titles == ("Ada Brisk", "Silver Kettle")
    assert [hop.fact for hop in question.decomposition] == [None, None]
    unmarked = parse("hotpotqa", {**bare, "supporting_facts": []})
    assert (unmarked.hops, unmarked.decomposition) == (None, ())


def test_columns_of_the_copies_on_hubs() -> None:
    columns = {
        **{k: HOTPOT[k] for k in ("type", "question", "answer")},
        "id": HOTPOT["_id"],
        "supporting_facts": {"title": ["Ada Brisk", "Silver Kettle"], "sent_id": [1, 0]},
        "context": {
            "title": [title for title, _ in HOTPOT["context"]],
            "sentences": [sentences for _, sentences in HOTPOT["context"]],
        },
    }
    assert parse("hotpotqa", columns) == parse("hotpotqa", HOTPOT)


def test_2wiki_evidences() -> None:
    question = parse("2wiki", WIKI2)
    assert [(hop.query, hop.answer, hop.title) for hop in question.decomposition] == [
        ("director of Silver Kettle", "Ada Brisk", "Silver Kettle"),
        ("place of birth of Ada Brisk", "Tolm", "Ada Brisk"),
    ]
    assert question.decomposition[1].fact == "She was born in Tolm."
    strange = {**WIKI2, "evidences": [["Nobody", "friend", "x"]]}
    assert parse("2wiki", strange).decomposition == parse("hotpotqa", HOTPOT).decomposition


def test_musique() -> None:
    question = parse("musique", MUSIQUE)
    assert (question.answers, question.hops, question.kind) == (("Fen", "River Fen"), 3, "3hop1")
    assert question.titles == ("Blue Door", "Ed Pax", "Tolm")
    assert [hop.query for hop in question.decomposition] == [
        "Blue Door performer",
        "Where was Ed Pax born?",
        "Which river crosses Tolm, home of Ed Pax?",
    ]
    assert [hop.fact for hop in question.decomposition] == [
        "Blue Door is a song by Ed Pax.",
        "Ed Pax (born in 1950) comes from Tolm.",
        "The river Fen crosses Tolm.",
    ]


@given(answers=st.lists(st.text(st.characters(codec="ascii"), min_size=1), max_size=12))
def test_musique_references(answers: list[str]) -> None:
    clean = [
        a.translate({ord(c): "x" for c in "#>?,.' \n\t\r\x0b\x0c\x1c\x1d\x1e\x1f"}) for a in answers
    ]
    text = " and ".join(f"#{n}" for n in range(1, len(clean) + 1))
    assert resolve(text, clean) == " and ".join(clean).strip()
    with pytest.raises(FieldError, match="refers to none"):
        resolve(f"#{len(answers) + 1}", answers)
    with pytest.raises(FieldError, match="refers to none"):
        resolve("#0", answers)


def test_flashrag() -> None:
    plain = parse("flashrag", FLASHRAG)
    assert plain.answers == ("Ed Pax", "Pax")
    assert (plain.hops, plain.decomposition) == (None, ())
    hotpot = {
        "id": "dev_1", "question": HOTPOT["question"], "golden_answers": "Tolm",
        "metadata": {
            "type": "bridge",
            "supporting_facts": {"title": ["Ada Brisk", "Silver Kettle"], "sent_id": [1, 0]},
            "context": {"title": [t for t, _ in HOTPOT["context"]],
                        "content": [s for _, s in HOTPOT["context"]]},
        },
    }  # fmt: skip
    assert parse("flashrag", hotpot).decomposition == parse("hotpotqa", HOTPOT).decomposition
    musique = {
        "id": "dev_2", "question": MUSIQUE["question"], "golden_answers": ["Fen"],
        "metadata": {k: MUSIQUE[k] for k in ("question_decomposition", "paragraphs")},
    }  # fmt: skip
    assert parse("flashrag", musique).decomposition == parse("musique", MUSIQUE).decomposition


def test_kilt() -> None:
    question = parse("kilt", KILT)
    assert (question.id, question.answers) == ("-43", ("Ed Pax", "E. Pax"))
    assert (question.titles, question.hops, question.pids) == (("The Hymn", "Ed Pax"), 2, ())


BROKEN: list[tuple[str, dict[str, Any], str]] = [
    ("hotpotqa", {"question": None}, "question"),
    ("hotpotqa", {"answer": "  "}, "answer"),
    ("hotpotqa", {"_id": ["x"]}, "_id"),
    ("hotpotqa", {"supporting_facts": [["Ada Brisk"]]}, "supporting_facts"),
    ("hotpotqa", {"supporting_facts": [["Ada Brisk", "one"]]}, "supporting_facts"),
    ("hotpotqa", {"supporting_facts": {"title": ["x"]}}, "supporting_facts"),
    ("hotpotqa", {"context": "text"}, "context"),
    ("2wiki", {"evidences": [["a", "b"]]}, "evidences"),
    ("2wiki", {"evidences": None}, "evidences"),
    ("musique", {"answerable": False}, "answerable"),
    ("musique", {"question_decomposition": []}, "question_decomposition"),
    ("musique", {"question_decomposition": ["x"]}, "question_decomposition"),
    ("musique", {"question_decomposition": [{"question": "#1?", "answer": "x"}]},
     "question_decomposition"),
    ("musique", {"question_decomposition": [{"question": "who?"}]}, "answer"),
    ("flashrag", {"golden_answers": []}, "golden_answers"),
    ("flashrag", {"golden_answers": [" ", None]}, "golden_answers"),
    ("flashrag", {"metadata": "x"}, "metadata"),
    ("flashrag", {"id": True}, "id"),
    ("kilt", {"output": [{"provenance": []}]}, "output"),
    ("kilt", {"output": ["x"]}, "output"),
    ("kilt", {"input": ""}, "input"),
    ("kilt", {"output": [{"answer": "x", "provenance": ["y"]}]}, "output.provenance"),
    ("exsearch", {"answers": []}, "answers"),
    ("exsearch", {"colour": "red"}, "colour"),
]  # fmt: skip


@pytest.mark.parametrize("form", ["array", "lines"])
@pytest.mark.parametrize(("name", "change", "field"), BROKEN)
def test_broken_records(
    tmp_path: Path, name: str, change: dict[str, Any], field: str, form: str
) -> None:
    good = SAMPLES[name]
    key = "_id" if "_id" in good else "id"
    path = write(tmp_path / "q.json", [good, {**good, key: "bad", **change}], form)
    with pytest.raises(BadLine) as caught:
        list(read_questions(path, name))
    error = caught.value
    assert (error.line, error.field) == (2, field)
    assert error.unit == ("element" if form == "array" else "line")
    assert f"{error.unit} 2" in str(error)
    assert path in str(error)
    report = Skipped()
    assert len(list(read_questions(path, name, skip_bad=True, report=report))) == 1
    assert report.counts == {field: 1}


def test_a_second_question_of_the_same_id(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", [OWN, {**OWN, "question": "What?"}], "lines")
    with pytest.raises(BadLine, match="earlier question"):
        list(read_questions(path))


def test_an_array_that_breaks_off(tmp_path: Path) -> None:
    path = tmp_path / "q.json"
    path.write_text(json.dumps([OWN, {**OWN, "id": "q2"}])[:-20])
    with pytest.raises(BadLine) as caught:
        list(read_questions(str(path), skip_bad=True))
    assert (caught.value.line, caught.value.unit) == (2, "element")


@pytest.mark.parametrize("text", ["", "[]", "\n\n", "[", "{", "3"])
def test_nothing_to_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "q.json"
    path.write_text(text)
    with pytest.raises(InputError):
        list(read_questions(str(path)))


def test_unknown_formats_say_what_is_known(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", [{"prompt": "x", "target": "y"}], "lines")
    with pytest.raises(InputError, match=r"prompt, target.*hotpotqa"):
        detect_format(path)
    with pytest.raises(InputError, match="unknown question format 'squad'"):
        read_questions(path, "squad")


def test_nul_and_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    record = {"id": "1", "question": "a\0b?", "golden_answers": ["x\0y"]}
    path.write_text("\ufeff" + json.dumps(record), encoding="utf-8")
    (question,) = read_questions(str(path))
    assert (question.question, question.answers) == ("ab?", ("xy",))


def test_sentences() -> None:
    text = 'Tolm is old. "Fen" (a river) crosses it! St. 5 people live there? Yes.'
    assert len(split_sentences(text)) >= 4
    assert supporting_sentence("It has 350 cars. It has 35 ships.", "35", "ships") == (
        "It has 35 ships."
    )
    assert supporting_sentence("Nothing here.", "35", "ships") is None
    assert content_words("Who is Ed Pax's best friend of the best?") == [
        "Ed", "Pax", "best", "friend",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("parts", "name", "count"),
    [
        (("hotpotqa", "hotpot_train_sample.json"), "hotpotqa", 100),
        (("musique", "musique_ans_train_sample.jsonl"), "musique", 100),
    ],
)
def test_shared_samples(parts: tuple[str, str], name: str, count: int) -> None:
    path = str(shared(*parts))
    assert detect_format(path) == name
    questions = list(read_questions(path))
    assert len(questions) == count
    for question in questions:
        assert question.hops == len(question.decomposition) >= 2
        assert not any("#" in hop.query or ">>" in hop.query for hop in question.decomposition)
        assert set(hop.title for hop in question.decomposition) == set(question.titles)
    facts = [hop.fact for question in questions for hop in question.decomposition]
    assert sum(fact is not None for fact in facts) > 0.97 * len(facts)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("[0:2]", ["a", "b"]),
        ("[1:]", ["b", "c"]),
        ("[:1]", ["a"]),
        ("[2:9]", ["c"]),
        ("", ["a", "b", "c"]),
    ],
)
def test_a_range_after_the_path_takes_some_questions(
    tmp_path: Path, part: str, expected: list[str]
) -> None:
    file = tmp_path / "q.jsonl"
    lines = [f'{{"id":"{i}","question":"{i}?","answers":["x"]}}' for i in "abc"]
    file.write_text("\n".join(lines))
    assert [q.id for q in read_questions(f"{file}{part}")] == expected
    assert detect_format(f"{file}{part}") == "exsearch"
