"""Warm-up synthesis: labels, choice, drops, and what is written."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exsearch import config
from exsearch.cli import warmup as command
from exsearch.data.labels import Labeller
from exsearch.data.warmup import WarmupRule, evidence, make_demonstrations
from exsearch.data.warmup_files import import_messages, survey, synthesize
from exsearch.data.world import World, build_world, write_world
from exsearch.errors import InputError, RetrieverError
from exsearch.records import Conversation, Demonstration, Hop, Passage, Question, read_records

pytestmark = pytest.mark.unit

SIZES = {"warmup": 40, "train": 4, "dev": 4, "test": 4}


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(0, **SIZES)


class KeywordSearch:
    """Ranks by shared words; remembers what it was asked."""

    def __init__(self, passages: tuple[Passage, ...], hide: frozenset[str] = frozenset()) -> None:
        self.passages = [p for p in passages if p.pid not in hide]
        self.calls: list[int] = []

    def __call__(self, queries: list[str], k: int) -> list[list[Passage]]:
        self.calls.append(len(queries))
        return [self._one(set(query.lower().strip("?").split()), k) for query in queries]

    def _one(self, words: set[str], k: int) -> list[Passage]:
        def shared(passage: Passage) -> int:
            return -len(words & set(f"{passage.title} {passage.text}".lower().split()))

        return sorted(self.passages, key=shared)[:k]


def passage(pid: str, title: str, text: str) -> Passage:
    return Passage(pid=pid, title=title, text=text)


LIST = [
    passage("1", "Orla", "Orla is a river that nobody has filmed."),
    passage("2", "Orla (film)", "Orla cost much and earned little in 1957."),
    passage("3", "Orla (film)", "Velda Marsk directed the film Orla in a hurry."),
    passage("4", "Velda Marsk", "The film Orla was directed by Velda Marsk."),
]


@pytest.mark.parametrize(
    ("hop", "expected"),
    [
        (Hop(query="q", answer="a", pid="4", title="Orla (film)", fact="x"), (4, "pid")),
        (Hop(query="q", answer="a", pid="9", title="Orla", fact=LIST[0].text), None),
        (Hop(query="q", answer="Orla", title="-", fact="The song Orla was directed by me"), None),
        (
            Hop(query="q", answer="a", title="Orla (film)", fact="Velda Marsk directed Orla."),
            (3, "title"),
        ),
        (
            Hop(query="q", answer="a", title="Elsewhere", fact="Orla was directed by Velda Marsk"),
            (4, "overlap"),
        ),
        (
            Hop(query="q", answer="a", title="Orla (film)", fact="Was directed by Velda Marsk"),
            (4, "overlap"),
        ),
        (Hop(query="q", answer="a", title="Orla (film)", fact="Nothing of the kind here"), None),
        (Hop(query="Velda Marsk directed", answer="Orla", title="Orla (film)"), (3, "title")),
    ],
)
def test_labels(hop: Hop, expected: tuple[int, str] | None) -> None:
    label = Labeller(0.75).find(hop, LIST)
    assert (label and (label.position, label.how)) == expected


def test_labels_in_any_script_and_length() -> None:
    fact = "名古屋 は 東京 の 西"
    passages = [passage("1", "x", "word " * 200_000), passage("2", "y", f"{fact} です")]
    label = Labeller(0.5).find(Hop(query="q", answer="a", fact=fact), passages)
    assert label is not None
    assert label.position == 2


@given(texts=st.lists(st.text("abc ", max_size=30), max_size=6), fact=st.text("abc ", min_size=1))
def test_the_label_is_the_first_best_overlap(texts: list[str], fact: str) -> None:
    labeller = Labeller(0.5)
    passages = [passage(str(n), "t", text) for n, text in enumerate(texts)]
    hop = Hop(query="q", answer="elsewhere", fact=fact)
    scores = [labeller._recall(fact, text) for text in texts]
    label = labeller.find(hop, passages)
    if not scores or max(scores) < 0.5:
        assert label is None
    else:
        assert label is not None
        assert label.position == scores.index(max(scores)) + 1


def test_demonstrations_of_the_world(world: World) -> None:
    questions = {q.id: q for q in world.questions["warmup"]}
    search = KeywordSearch(world.passages)
    rule = WarmupRule(k=8, limit=20, batch=7)
    made, report = make_demonstrations(questions.values(), search, rule)
    assert len(made) == report.made == 20
    assert report.read == 40
    assert report.made + report.unused + report.dropped.total() == 40
    assert max(search.calls) <= 7 * 3
    assert set(report.labels) <= {"pid", "title", "overlap"}
    for demonstration in made:
        question = questions[demonstration.id]
        assert demonstration.answer == question.answers[0]
        assert demonstration.question == question.question
        assert [step.query for step in demonstration.steps] == [
            hop.query for hop in question.decomposition
        ]
        for step, hop in zip(demonstration.steps, question.decomposition, strict=True):
            assert len(step.passages) == 8
            (position,) = step.kept
            assert step.passages[position - 1].pid == hop.pid
            assert step.evidence == hop.fact


def test_same_seed_same_choice(world: World) -> None:
    def run(seed: int, batch: int = 64) -> list[Demonstration]:
        rule = WarmupRule(k=5, limit=12, seed=seed, batch=batch)
        questions = world.questions["warmup"]
        return make_demonstrations(questions, KeywordSearch(world.passages), rule)[0]

    assert run(1) == run(1)
    assert {d.id for d in run(1)} == {d.id for d in run(1, batch=3)}
    assert {d.id for d in run(1)} != {d.id for d in run(2)}


@given(
    limit=st.integers(1, 60),
    shares=st.dictionaries(st.sampled_from([2, 3]), st.floats(0.05, 1), min_size=1),
)
@settings(max_examples=25, deadline=None)
def test_shares_of_hops(world: World, limit: int, shares: dict[int, float]) -> None:
    questions = world.questions["warmup"]
    available = Counter(len(q.decomposition) for q in questions)

    def perfect(queries: list[str], k: int) -> list[list[Passage]]:
        return [[passage(hop.pid or "", "", "")] for hop in map(hops.__getitem__, queries)]

    hops = {hop.query: hop for question in questions for hop in question.decomposition}
    made, report = make_demonstrations(
        questions, perfect, WarmupRule(limit=limit, hops=shares, batch=5)
    )
    whole = sum(shares.values())
    assert len(made) <= limit
    for count, share in shares.items():
        assert report.by_hops[count] <= available[count]
        assert abs(report.by_hops[count] - len(made) * share / whole) <= 1
    assert set(report.by_hops) <= set(shares)
    if len(made) < limit:  # one more would take a kind beyond what there is
        assert any(available[h] < (len(made) + 1) * s / whole + 1e-9 for h, s in shares.items())


def test_missing_gold_is_dropped_and_replaced(world: World) -> None:
    questions = world.questions["warmup"]
    hidden = frozenset(pid for question in questions[:20] for pid in question.pids)
    search = KeywordSearch(world.passages, hidden)
    made, report = make_demonstrations(questions, search, WarmupRule(k=5, min_overlap=0.9))
    assert report.dropped["gold passage not retrieved"] >= 15
    assert made
    for demonstration in made:
        assert all(step.kept for step in demonstration.steps)


def test_missing_gold_is_inserted(world: World) -> None:
    questions = world.questions["warmup"]
    hidden = frozenset(pid for question in questions for pid in question.pids)
    search = KeywordSearch(world.passages, hidden)
    rule = WarmupRule(k=5, min_overlap=1.0, missing="insert")
    made, report = make_demonstrations(questions, search, rule)
    assert len(made) == len(questions)
    positions = Counter(step.kept[0] for d in made for step in d.steps)
    assert report.labels["inserted"] > 60
    assert set(positions) == {1, 2, 3, 4, 5}
    for demonstration in made:
        for step in demonstration.steps:
            assert len(step.passages) == 5
            assert (step.evidence or "") in step.passages[step.kept[0] - 1].text


def test_questions_without_hops_are_counted(world: World) -> None:
    bare = Question(id="x", question="Why?", answers=("so",))
    made, report = make_demonstrations([bare], KeywordSearch(world.passages), WarmupRule())
    assert made == []
    assert report.dropped == {"no known hops": 1}


def test_bad_shares_and_bad_retrievers(world: World) -> None:
    questions = world.questions["warmup"]
    with pytest.raises(InputError, match="share above 0"):
        make_demonstrations(questions, lambda q, k: [], WarmupRule(hops={2: 0.0}))
    with pytest.raises(RetrieverError, match="answered 0 of"):
        make_demonstrations(questions, lambda q, k: [], WarmupRule())


def test_evidence_is_short() -> None:
    long = " ".join(["Much is said of it."] * 12) + " It lies in Tolm."
    assert evidence(Hop(query="Where is it?", answer="Tolm", fact=long)) == "It lies in Tolm."
    endless = "It lies in Tolm and " + "so on " * 50
    assert evidence(Hop(query="Where is it?", answer="Tolm", fact=endless)) == "Where is it: Tolm"
    assert evidence(Hop(query="Where is it?", answer="Tolm")) == "Where is it: Tolm"


def settings_for(folder: Path, **data: object) -> config.RunConfig:
    return config.RunConfig.model_validate(
        {
            "run": str(folder / "run"),
            "data": {"warmup": [str(folder / "world/warmup.jsonl")], **data},
            "agent": {"passages": 5},
        }
    )


def test_files(tmp_path: Path, world: World) -> None:
    write_world(tmp_path / "world", 0, **SIZES)
    run = settings_for(tmp_path, warmup_limit=10, warmup_hops={2: 0.5, 3: 0.5})
    files, report = synthesize(run, KeywordSearch(world.passages))
    assert files.path == str(tmp_path / "run/warmup/demonstrations.jsonl")
    lines = Path(files.path).read_text().splitlines()
    read = list(read_records(Demonstration, lines, files.path))
    assert len(read) == files.written == 10
    assert report.by_hops == {2: 5, 3: 5}
    assert files.formats == {run.data.warmup[0]: "exsearch"}
    assert json.dumps(files.document(report))


def test_broken_lines_of_the_files(tmp_path: Path, world: World) -> None:
    write_world(tmp_path / "world", 0, **SIZES)
    path = tmp_path / "world/warmup.jsonl"
    path.write_text("{}\n" + path.read_text() + "not JSON\n")
    lenient = settings_for(tmp_path, format="exsearch", skip_bad=True)
    files, _ = synthesize(lenient, KeywordSearch(world.passages))
    assert files.skipped.total == 2
    with pytest.raises(InputError, match="line 1"):
        survey(settings_for(tmp_path, format="exsearch"))


def test_nothing_made_is_an_error(tmp_path: Path) -> None:
    write_world(tmp_path / "world", 0, **SIZES)
    with pytest.raises(InputError, match="gold passage not retrieved: 40"):
        synthesize(settings_for(tmp_path), lambda queries, k: [[] for _ in queries])
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match=r"data\.warmup"):
        survey(config.RunConfig())


def test_command_imports_messages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content:": "[1]"}]
    source = tmp_path / "m.json"
    source.write_text(json.dumps([{"messages": turns}] * 3 + [{"messages": []}]))
    run = f"run={tmp_path / 'run'}"
    command.main(overrides=[run], messages=str(source), limit=2, skip_bad=True, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["written"] == 2
    lines = Path(document["path"]).read_text().splitlines()
    assert [c.id for c in read_records(Conversation, lines, "x")] == ["m/1", "m/2"]
    with pytest.raises(InputError, match="element 4"):
        import_messages(config.RunConfig(run=str(tmp_path)), str(source))


def test_command_dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_world(tmp_path / "world", 0, **SIZES)
    files = f"data.warmup=[{tmp_path / 'world/warmup.jsonl'}]"
    command.main(overrides=[files, f"run={tmp_path / 'run'}"], dry_run=True, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["questions_by_hops"] == {"2": 30, "3": 10}
    assert not (tmp_path / "run").exists()
