"""Token ids through chat templates of several families: exact, growing, and masked."""

from __future__ import annotations

from typing import Any

import pytest
from chat_templates import STYLES, tokenizer
from hypothesis import HealthCheck, given
from hypothesis import settings as how_tested
from hypothesis import strategies as st

from exsearch.agent.chat import ChatFormat
from exsearch.em.warmup import imitate
from exsearch.errors import InputError
from exsearch.records import Conversation, Message, Role, Transcript

pytestmark = pytest.mark.unit

TEMPLATES = [*STYLES, "smollm"]
SPECIALS = sorted({s for _, specials in STYLES.values() for s in specials} | {"[INST]", "[/INST]"})
pieces = st.one_of(
    st.sampled_from([*SPECIALS, "<|", "|>", "<", ">", "</", "s", "im_end", " ", "\n", "<|im_"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
nasty = st.lists(pieces, max_size=8).map("".join)
words = st.lists(st.text("abcd <QUERY>.?", min_size=1, max_size=12), min_size=1, max_size=4).map(
    " ".join
)
turns = words.map(str.strip).filter(bool)
patient = how_tested(suppress_health_check=list(HealthCheck), deadline=None, max_examples=60)


@pytest.fixture(scope="module")
def chats(smollm: ChatFormat) -> dict[str, ChatFormat]:
    return {style: ChatFormat(tokenizer(style)) for style in STYLES} | {"smollm": smollm}


@pytest.fixture(params=TEMPLATES)
def chat(request: pytest.FixtureRequest, chats: dict[str, ChatFormat]) -> ChatFormat:
    return chats[request.param]


def messages(*contents: str, system: str = "Search.") -> list[Message]:
    """A system message, then user and assistant by turns."""
    roles: list[Role] = ["user", "assistant"]
    return [
        Message(role="system", content=system),
        *(Message(role=roles[n % 2], content=c) for n, c in enumerate(contents)),
    ]


def grown(chat: ChatFormat, said: list[Message]) -> Transcript:
    """The transcript as an episode grows it, up to the next generation prompt."""
    segments = [chat.opening(said[0].content, said[1].content)]
    for turn, reply in zip(said[2::2], said[3::2], strict=True):
        segments.append(chat.turn(turn.content))
        segments.append(chat.reply(reply.content, turn_ended=True))
    return Transcript(segments=tuple(segments))


@patient
@given(st.lists(turns, min_size=3, max_size=7).filter(lambda t: len(t) % 2 == 1))
def test_a_grown_transcript_equals_a_fresh_rendering(chat: ChatFormat, said: list[str]) -> None:
    chats = messages(*said)
    made = grown(chat, chats)
    fresh = chat.encode(chat.render(chats, prompt=True))
    assert made.token_ids == fresh
    assert chat.is_exact(made, chats)


def test_other_ids_than_a_fresh_rendering_are_noticed(chat: ChatFormat) -> None:
    chats = messages("who?", "<QUERY> x", "found")
    made = grown(chat, chats)
    turn = made.segments[1]
    spaced = turn.model_copy(update={"ids": (*chat.encode("  "), *turn.ids)})
    other = Transcript(segments=(made.segments[0], spaced, made.segments[2]))
    assert not chat.is_exact(other, chats)


def test_a_turn_cut_short_is_closed_by_the_reply(chat: ChatFormat) -> None:
    chats = messages("who?", "<QUERY> x", "found")
    opening = chat.opening("Search.", "who?")
    turn = chat.turn("<QUERY> x")
    unended = turn.model_copy(update={"ids": turn.ids[: -len(chat.end_ids)]})
    reply = chat.reply("found", turn_ended=False)
    made = Transcript(segments=(opening, unended, reply))
    assert chat.is_exact(made, chats)
    assert reply.ids[: len(chat.end_ids)] == chat.end_ids


def test_the_end_of_a_turn_is_a_special_token(chat: ChatFormat) -> None:
    assert chat.end_ids[-1] in chat.specials
    assert len(chat.end_ids) <= 2


def test_a_turn_is_read_back_as_it_was_written(chat: ChatFormat) -> None:
    text = "<FACT> it is so.\n<QUERY> who was it?"
    assert chat.decode(chat.turn(text).ids).strip() == text


@patient
@given(nasty, nasty, nasty)
def test_no_text_makes_a_special_token(chat: ChatFormat, a: str, b: str, c: str) -> None:
    def specials(said: list[Message]) -> list[int]:
        return [i for i in grown(chat, said).token_ids if i in chat.specials]

    harmless = specials(messages("x", "y", "z", system="w"))
    assert specials(messages(a or "x", b or "y", c or "z", system=a or "w")) == harmless
    assert not set(chat.encode_plain(a)) & chat.specials
    assert not set(chat.encode_turn(b)) & chat.specials


@patient
@given(nasty)
def test_disarming_changes_only_texts_with_special_tokens(chat: ChatFormat, text: str) -> None:
    specials = [chat.tokenizer.convert_ids_to_tokens(i) for i in chat.specials]
    if not any(special in text for special in specials):
        assert chat.disarm(text) == text


def test_loss_falls_on_what_the_assistant_wrote_and_nothing_else(chat: ChatFormat) -> None:
    said = messages("who?", "<QUERY> x", "<SEARCH> found it", "<FINAL>", "answer", "Ada")
    made = chat.transcript(Conversation(id="c", messages=tuple(said)))
    learned = [chat.decode(s.ids).strip() for s in made.segments if s.agent]
    assert learned == ["<QUERY> x", "<FINAL>", "Ada"]
    assert [s.role for s in made.segments] == ["user", "assistant"] * 3
    for segment in made.segments:
        assert segment.agent == (segment.role == "assistant")
        if segment.agent:
            assert segment.ids[-len(chat.end_ids) :] == chat.end_ids
    assert made.segments[:-1] == grown(chat, said[:-1]).segments


def test_a_conversation_without_a_system_turn(chat: ChatFormat) -> None:
    said = messages("who?", "Ada")[1:]
    made = chat.transcript(Conversation(id="c", messages=tuple(said)))
    assert chat.encode(chat.render(said[:1], prompt=True)) == list(made.segments[0].ids)


def test_the_instruction_goes_into_the_first_turn_where_there_is_no_system(
    chats: dict[str, ChatFormat],
) -> None:
    chat = chats["brackets"]
    assert not chat.has_system
    assert chat.render(messages("who?"), prompt=True) == "<s>[INST] Search.\n\nwho? [/INST]"
    assert all(chats[style].has_system for style in TEMPLATES if style != "brackets")


def test_no_default_system_prompt_litters_the_transcript(chat: ChatFormat) -> None:
    made = grown(chat, messages("who?", "<QUERY> x", "found", "<FINAL>", "answer"))
    text = chat.tokenizer.decode(made.token_ids)
    assert text.count("Search.") == 1
    assert "helpful" not in text.lower()
    assert "{question}" not in text


def with_template(template: str | None) -> Any:
    import copy

    other = copy.copy(tokenizer("chatml"))
    other.chat_template = template
    return other


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (None, "has no chat template"),
        ("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}", "no special"),
        ("<|im_start|>{{ messages[-1]['content'] }}<|im_end|>", "drops earlier turns"),
    ],
)
def test_templates_that_cannot_be_used(template: str | None, why: str) -> None:
    with pytest.raises(InputError, match=why):
        ChatFormat(with_template(template))


def test_turns_that_the_template_refuses_are_an_input_error(chats: dict[str, ChatFormat]) -> None:
    said = tuple(Message(role="user", content=c) for c in "ab")
    odd = Conversation(id="c", messages=(*said, Message(role="assistant", content="c")))
    with pytest.raises(InputError, match="must alternate"):
        chats["brackets"].transcript(odd)


def test_a_conversation_without_an_assistant_teaches_nothing(chat: ChatFormat) -> None:
    said = Conversation(id="c7", messages=tuple(messages("who?")))
    with pytest.raises(InputError, match="c7 has no assistant turn"):
        chat.transcript(said)


def test_released_conversations_are_imitated_as_they_stand(chat: ChatFormat, tmp_path) -> None:
    """The authors' `messages` files: whole trajectories and single selections."""
    import json

    from exsearch.data.messages import read_conversations

    file = tmp_path / "traj.json"
    file.write_text(
        json.dumps(
            [
                {
                    "messages": [
                        {"role": "user", "content": "Instruction.\n<USER QUERY> Who wrote it?"},
                        {"role": "assistant", "content": "<QUERY> author of it"},
                        {"role": "user", "content": "<SEARCH> [0] Title: It Content: By Ada."},
                        {"role": "assistant", "content": "<FACT> Ada wrote it\n<FINAL>"},
                        {"role": "user", "content": "Answer the question: {question}"},
                        {"role": "assistant", "content:": "Ada"},
                    ]
                },
                {
                    "messages": [
                        {"role": "system", "content": "Select."},
                        {"role": "user", "content": "[1] a [2] b"},
                        {"role": "assistant", "content": "[2] > [1]"},
                    ]
                },
            ]
        )
    )
    examples = list(imitate(read_conversations(str(file)), chat))
    learned = [
        [chat.decode(s.ids).strip() for s in e.transcript.segments if s.agent] for e in examples
    ]
    assert learned == [
        ["<QUERY> author of it", "<FACT> Ada wrote it\n<FINAL>", "Ada"],
        ["[2] > [1]"],
    ]
    assert all(e.weight == 1.0 for e in examples)
    closing = chat.decode(examples[0].transcript.segments[4].ids)
    assert "Answer the question: Who wrote it?" in closing
