"""Corpus readers: both formats, packed, broken, odd."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exsearch.data.corpus import detect_corpus_format, read_corpus
from exsearch.data.lines import Skipped
from exsearch.errors import BadLine, InputError, StorageError
from exsearch.records import Passage

pytestmark = pytest.mark.unit

HEADER = "id\ttext\ttitle\n"


def shared(*parts: str) -> Path:
    place = Path(os.environ.get("EXSEARCH_SHARED") or Path(__file__).parents[3] / "shared")
    path = place.joinpath("data", *parts)
    if not path.exists():
        pytest.skip(f"no shared sample data at {path}")
    return path


def write(path: Path, text: str | bytes) -> str:
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


@pytest.mark.parametrize("name", ["psgs.tsv", "psgs.tsv.gz"])
def test_dpr(tmp_path: Path, name: str) -> None:
    line = '1\t"He said ""no""; Zoë (名) left."\t"The ""Orla"""\n2\tplain text\tOrla\n'
    path = write(tmp_path / name, HEADER + line)
    assert detect_corpus_format(path) == "dpr"
    assert list(read_corpus(path)) == [
        Passage(pid="1", title='The "Orla"', text='He said "no"; Zoë (名) left.'),
        Passage(pid="2", title="Orla", text="plain text"),
    ]


def test_dpr_columns_may_come_in_any_order(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "title\tid\ttext\nT\t7\tx\n")
    assert list(read_corpus(path)) == [Passage(pid="7", title="T", text="x")]


@pytest.mark.parametrize("name", ["c.jsonl", "c.jsonl.gz"])
def test_jsonl_and_flashrag(tmp_path: Path, name: str) -> None:
    records = [
        {"id": 0, "title": "Orla", "text": "a river"},
        {"id": "w1", "contents": '"Orla (film)"\nA film\nof 1957.'},
        {"id": "w2", "contents": "no title here"},
        {"_id": "w3", "title": '"Heroes" (album)', "text": "by Bowie"},
        {"id": "w4", "title": "T", "contents": '"T"\nbody', "score": 1},
    ]
    path = write(tmp_path / name, "\n".join(json.dumps(r) for r in records) + "\n\n")
    assert detect_corpus_format(path) == "jsonl"
    assert [(p.pid, p.title, p.text) for p in read_corpus(path)] == [
        ("0", "Orla", "a river"),
        ("w1", "Orla (film)", "A film\nof 1957."),
        ("w2", "", "no title here"),
        ("w3", '"Heroes" (album)', "by Bowie"),
        ("w4", "T", "body"),
    ]


BROKEN = {
    "not JSON": ('{"id": "a", "text": "x', "(line)"),
    "no object": ('["a"]', "(record)"),
    "no id": ('{"text": "x"}', "id"),
    "null id": ('{"id": null, "text": "x"}', "id"),
    "no text": ('{"id": "b", "title": "t"}', "text"),
    "empty text": ('{"id": "b", "text": "  "}', "text"),
    "text of another type": ('{"id": "b", "text": ["x"]}', "text"),
    "title of another type": ('{"id": "b", "title": 3.5, "text": "x"}', "title"),
    "duplicate": ('{"id": "first", "text": "x"}', "id"),
    "lone surrogate": ('{"id": "b", "text": "\\ud800"}', "text"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_jsonl(tmp_path: Path, case: str) -> None:
    line, field = BROKEN[case]
    good = ['{"id": "first", "text": "one"}', line, '{"id": "last", "text": "three"}']
    path = write(tmp_path / "c.jsonl", "\n".join(good))
    with pytest.raises(BadLine) as caught:
        list(read_corpus(path))
    assert (caught.value.source, caught.value.line, caught.value.field) == (path, 2, field)
    report = Skipped()
    kept = [p.pid for p in read_corpus(path, skip_bad=True, report=report)]
    assert kept == ["first", "last"]
    assert report.total == 1
    assert report.counts[field] == 1
    assert "line 2" in report.summary()


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("3\tonly two", "(line)"),
        ("3\ta\tb\tc", "(line)"),
        ('3\t"open quote\tT', "(line)"),
        ('3\t"closed" early\tT', "(line)"),
        ("\ttext\tT", "id"),
        ("3\t\tT", "text"),
        ("1\ttext\tT", "id"),
    ],
)
def test_broken_tsv(tmp_path: Path, line: str, field: str) -> None:
    path = write(tmp_path / "p.tsv", f"{HEADER}1\tx\tT\n{line}\n4\ty\tT\n")
    with pytest.raises(BadLine) as caught:
        list(read_corpus(path))
    assert (caught.value.line, caught.value.field) == (3, field)
    report = Skipped()
    assert [p.pid for p in read_corpus(path, skip_bad=True, report=report)] == ["1", "4"]
    assert report.counts == {field: 1}


def test_bytes_that_are_not_utf8_spoil_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "p.tsv", HEADER.encode() + b"1\tcaf\xe9\tT\n2\tgood\tT\n")
    with pytest.raises(BadLine, match="not UTF-8"):
        list(read_corpus(path))
    assert [p.pid for p in read_corpus(path, skip_bad=True)] == ["2"]


def test_nul_is_dropped_and_length_does_not_matter(tmp_path: Path) -> None:
    long = "word " * 250_000
    path = write(tmp_path / "p.tsv", f"{HEADER}1\ta\0b\tT\0\n2\t{long}\tT\n")
    first, second = read_corpus(path)
    assert (first.text, first.title) == ("ab", "T")
    assert len(second.text) == len(long) - 1


@pytest.mark.parametrize("text", ["", "hello\n", "id;text;title\n1;a;b\n", "\n\n"])
def test_neither_format(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="neither"):
        read_corpus(write(tmp_path / "x.txt", text))


def test_a_packed_file_that_breaks_off(tmp_path: Path) -> None:
    lines = "".join(f"{i}\t{os.urandom(40).hex()}\tT\n" for i in range(2000))
    whole = gzip.compress((HEADER + lines).encode())
    path = tmp_path / "p.tsv.gz"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StorageError, match="breaks off"):
        list(read_corpus(str(path)))


def test_missing_file() -> None:
    with pytest.raises(StorageError, match="cannot read"):
        read_corpus("/nowhere/at/all.tsv")


def test_reading_stops_where_the_reader_stops(tmp_path: Path) -> None:
    path = write(tmp_path / "c.jsonl", '{"id": "a", "text": "x"}\n' + "broken\n" * 3)
    assert next(iter(read_corpus(path))).pid == "a"


texts = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1)


@given(rows=st.lists(st.tuples(texts, st.text(st.sampled_from('ab" ')), st.booleans())))
def test_jsonl_round_trip(tmp_path_factory: pytest.TempPathFactory, rows) -> None:
    records = [
        {"id": f"{place}" if number else f"id {place}", "title": title, "text": f"x{text}x"}
        for place, (text, title, number) in enumerate(rows)
    ]
    folder = tmp_path_factory.mktemp("round")
    path = write(folder / "c.jsonl", "\n".join(json.dumps(r) for r in [*records, dict(LAST)]))
    read = [(p.pid, p.title, p.text) for p in read_corpus(path)]
    assert read == [(r["id"], r["title"].strip(), r["text"]) for r in [*records, dict(LAST)]]


LAST = {"id": "last", "title": "", "text": "end"}


@given(order=st.permutations([*range(0, 60, 7), 3, 1000]))
def test_duplicates_are_found_whatever_the_order(
    tmp_path_factory: pytest.TempPathFactory, order: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("dup")
    names = [str(n) for n in order] + ["007", "7x"]
    lines = [json.dumps({"id": name, "text": "x"}) for name in [*names, *names]]
    path = write(folder / "c.jsonl", "\n".join(lines))
    report = Skipped()
    assert [p.pid for p in read_corpus(path, skip_bad=True, report=report)] == names
    assert report.counts["id"] == len(names)
    assert len(report.examples) == 3


def test_shared_sample() -> None:
    passages = list(read_corpus(str(shared("wiki", "psgs_sample.tsv"))))
    assert len(passages) == 9002
    assert len({p.pid for p in passages}) == 9002
    assert all(p.title and p.text for p in passages)
    assert not any('""' in p.title for p in passages)
