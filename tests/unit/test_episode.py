"""One episode under a scripted agent: every way it can go."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from scripted import FakeRetriever, ScriptedPolicy, in_order, passages, setting

from exsearch.agent import protocol
from exsearch.agent.chat import ChatFormat
from exsearch.agent.episode import EpisodeResult, Event, Setting, run_episode
from exsearch.agent.policies.base import Sampling
from exsearch.errors import PolicyError, RetrieverError

pytestmark = pytest.mark.unit

WELL = (
    "<QUERY> the novel's author",
    "<FACT> Ada wrote it.\n<QUERY> Ada's home town",
    "<FACT> Ada lived in Orla.\n<FINAL>",
    "Orla",
)


def policy_of(how: Setting) -> ScriptedPolicy:
    assert isinstance(how.policy, ScriptedPolicy)
    return how.policy


async def run(how: Setting, question: str = "Where?", **sampling: object) -> EpisodeResult:
    return await run_episode(question, how, replace(Sampling(), **sampling))


def written(chat: ChatFormat, result: EpisodeResult) -> list[str]:
    """The turns that carry loss."""
    return [chat.decode(s.ids).strip() for s in result.transcript.segments if s.agent]


async def test_searching_noting_and_answering(chatml: ChatFormat) -> None:
    how = setting(chatml, in_order(*WELL))
    result = await run(how)
    assert result.answer == "Orla"
    assert chatml.decode(result.answer_ids) == "Orla"
    assert result.answer_ids[-len(chatml.end_ids) :] == chatml.end_ids
    assert [s.query for s in result.steps] == ["the novel's author", "Ada's home town"]
    assert [s.evidence for s in result.steps] == ["Ada wrote it.", "Ada lived in Orla."]
    assert [s.kept for s in result.steps] == [(1, 2), (1, 2)]
    assert all(len(s.passages) == 3 for s in result.steps)
    assert (result.failure, result.forced, result.repairs, result.exact) == (None, False, 0, True)
    assert written(chatml, result) == list(WELL[:-1])


async def test_the_transcript_is_what_the_engine_saw(chatml: ChatFormat) -> None:
    how = setting(chatml, in_order(*WELL))
    result = await run(how)
    prompts = policy_of(how).prompts
    assert prompts[-1] == result.transcript.token_ids
    for earlier, later in itertools.pairwise(prompts):
        assert later[: len(earlier)] == earlier


async def test_only_kept_passages_are_shown(chatml: ChatFormat) -> None:
    how = setting(chatml, in_order(*WELL), top_n=1)
    shown = chatml.tokenizer.decode((await run(how)).transcript.token_ids)
    assert "[1] Title: Title 1" in shown
    assert "Title 2" not in shown


async def test_a_learned_selection_is_an_exchange_of_its_own(chatml: ChatFormat) -> None:
    turns = (WELL[0], "[3] > [1]", WELL[1], "none", *WELL[2:])
    how = setting(chatml, in_order(*turns), selection="learned")
    result = await run(how)
    assert [s.kept for s in result.steps] == [(3, 1), ()]
    shown = chatml.tokenizer.decode(result.transcript.token_ids)
    assert shown.index("[3] Title: Title 3") < shown.index("[1] Title: Title 1")
    assert "nothing useful was found" in shown
    assert "[3] > [1]" not in shown
    first = result.steps[0].selection
    assert first is not None
    assert [chatml.decode(s.ids) for s in first.segments if s.agent] == ["[3] > [1]"]
    assert written(chatml, result) == list(WELL[:-1])
    assert result.exact


async def test_nothing_found_needs_no_selection(chatml: ChatFormat) -> None:
    how = setting(chatml, in_order(*WELL), FakeRetriever(), selection="learned")
    result = await run(how)
    assert result.answer == "Orla"
    assert [(s.kept, s.selection) for s in result.steps] == [((), None), ((), None)]


async def test_a_malformed_turn_gets_a_repair_and_is_not_learned(chatml: ChatFormat) -> None:
    how = setting(chatml, in_order("I know it!", *WELL))
    result = await run(how)
    assert result.answer == "Orla"
    assert result.repairs == 1
    assert written(chatml, result) == list(WELL[:-1])
    assert "Not understood: no marker" in chatml.tokenizer.decode(result.transcript.token_ids)
    assert result.exact


async def test_after_the_repairs_it_fails_and_can_still_be_scored(chatml: ChatFormat) -> None:
    how = setting(chatml, in_order("I know it!", "Believe me."))
    result = await run(how)
    assert result.answer is None
    assert result.failure is not None
    assert (result.failure.reason, result.failure.detail) == ("malformed", "no marker")
    assert result.repairs == 1
    text = chatml.tokenizer.decode(result.transcript.token_ids)
    assert protocol.closing_reply("Where?") in text
    assert text.endswith("<|im_start|>assistant\n")


async def test_a_bad_selection_counts_among_the_repairs(chatml: ChatFormat) -> None:
    turns = (WELL[0], "all of them", "[2]", WELL[2], WELL[3])
    how = setting(chatml, in_order(*turns), selection="learned")
    result = await run(how)
    assert result.steps[0].kept == (2,)
    assert result.repairs == 1
    again = setting(chatml, in_order(WELL[0], "all", "really all"), selection="learned")
    failed = await run(again)
    assert failed.failure is not None
    assert failed.failure.reason == "malformed"
    assert len(failed.steps) == 1


async def test_the_step_limit_forces_the_final_turn(chatml: ChatFormat) -> None:
    how = setting(chatml, in_order("<QUERY> a", "<QUERY> b", "<QUERY> c", "Orla"), max_steps=2)
    result = await run(how)
    assert result.answer == "Orla"
    assert result.forced
    assert [s.query for s in result.steps] == ["a", "b"]
    assert how.retriever.queries == ["a", "b"]  # type: ignore[attr-defined]


async def test_a_turn_that_runs_out_of_tokens_is_malformed(chatml: ChatFormat) -> None:
    how = setting(chatml, in_order("<QUERY> a", "<QUERY> b"))
    policy_of(how).runs_on = True
    result = await run(how)
    assert result.failure is not None
    assert "ran out of tokens" in result.failure.detail
    assert result.repairs == 1
    assert result.exact


async def test_an_answer_that_runs_on_is_still_an_answer(chatml: ChatFormat) -> None:
    how = setting(chatml, in_order("<FINAL>", "Orla " * 50), answer_tokens=6)
    result = await run(how)
    assert result.answer is not None
    assert result.answer.startswith("Orl")
    assert len(result.answer_ids) == 6


async def test_an_empty_answer_is_a_failure_with_a_name(chatml: ChatFormat) -> None:
    result = await run(setting(chatml, in_order("<FINAL>", "  ")))
    assert result.failure is not None
    assert result.failure.reason == "empty_answer"
    assert result.answer is None


async def test_no_room_is_a_failure_with_a_name(chatml: ChatFormat) -> None:
    how = setting(chatml, in_order(*WELL))
    full = await run(how)
    policy_of(how).max_tokens = len(full.transcript.token_ids) - 40
    policy_of(how).author = in_order(*WELL)
    result = await run(how)
    assert result.failure is not None
    assert result.failure.reason == "too_long"
    assert len(result.steps) == 2


@pytest.mark.parametrize("spare", range(1, 60, 7))
async def test_no_turn_is_asked_for_beyond_the_room(chatml: ChatFormat, spare: int) -> None:
    how = setting(chatml, in_order(*WELL))
    policy = policy_of(how)
    policy.max_tokens = len(chatml.opening(how.agent.instruction, "Where?").ids) + spare
    result = await run(how)
    assert result.failure is not None
    for prompt, sampling in zip(policy.prompts, policy.samplings, strict=True):
        assert sampling.max_tokens >= 1
        assert len(prompt) + sampling.max_tokens < policy.max_tokens


async def test_a_retriever_that_fails_ends_the_episode_with_its_reason(chatml: ChatFormat) -> None:
    broken = FakeRetriever(error=RetrieverError("no answer within 30 s"))
    result = await run(setting(chatml, in_order(*WELL), broken))
    assert result.failure is not None
    assert (result.failure.reason, result.failure.detail) == ("retriever", "no answer within 30 s")
    assert result.steps == ()


async def test_an_engine_that_is_gone_is_no_failed_episode(chatml: ChatFormat) -> None:
    how = setting(chatml, in_order(*WELL))
    policy_of(how).dies_after = 1
    with pytest.raises(PolicyError):
        await run(how)


async def test_events_come_in_order(chatml: ChatFormat) -> None:
    seen: list[Event] = []
    how = setting(chatml, in_order("nonsense", *WELL))
    await run_episode("Where?", how, Sampling(), seen.append)
    kinds = [(e.kind, e.step) for e in seen]
    assert kinds == [
        ("repair", 0),
        ("query", 1),
        ("passages", 1),
        ("kept", 1),
        ("evidence", 1),
        ("query", 2),
        ("passages", 2),
        ("kept", 2),
        ("evidence", 2),
        ("answer", 2),
    ]
    assert seen[-1].text == "Orla"
    assert seen[3].kept == (1, 2)
    assert seen[3].passages == tuple(passages())
    failing: list[Event] = []
    await run_episode("Where?", setting(chatml, in_order("a", "b")), Sampling(), failing.append)
    assert [e.kind for e in failing] == ["repair", "failure"]


async def test_every_turn_has_a_seed_of_its_own(chatml: ChatFormat) -> None:
    async def seeds(seed: int | None) -> list[int | None]:
        how = setting(chatml, in_order(*WELL))
        await run(how, temperature=0.8, seed=seed)
        assert {s.temperature for s in policy_of(how).samplings} == {0.8}
        return [s.seed for s in policy_of(how).samplings]

    first = await seeds(7)
    assert len(set(first)) == 4
    assert first == await seeds(7)
    assert not set(first) & set(await seeds(8))
    assert await seeds(None) == [None] * 4
    assert all(s is not None and 0 <= s < 2**31 for s in first)


async def test_turns_and_answers_have_their_own_length(chatml: ChatFormat) -> None:
    how = setting(chatml, in_order(*WELL), turn_tokens=77, answer_tokens=9)
    await run(how)
    assert [s.max_tokens for s in policy_of(how).samplings] == [77, 77, 77, 9]


async def test_evidence_before_any_search_is_dropped(chatml: ChatFormat) -> None:
    how = setting(chatml, in_order("<FACT> I just know\n<FINAL>", "Orla"))
    result = await run(how)
    assert result.answer == "Orla"
    assert result.steps == ()
