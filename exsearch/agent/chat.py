"""From text to token ids through the model's own chat template, once.

The whole transcript is one rendering of the template. What the environment adds
between two assistant turns (the end of the turn, the reply, the next generation
prompt) is cut out of that rendering by a sentinel, so that an episode can grow
token by token without ever tokenising again what the engine already saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from exsearch import mirror
from exsearch.errors import InputError
from exsearch.records import Conversation, Message, Segment, Transcript
from exsearch.storage import digest_bytes, explained

_AGENT, _REPLY = "AGENTSAIDTHIS", "REPLYSAIDTHIS"


@dataclass(frozen=True)
class Closing:
    """Text around an assistant turn: what leads it in, and what lies between it and the next."""

    lead: str
    """Written by the agent: the generation prompt ends before it (in Llama 2, a space)."""
    before: str
    """From the turn's end to the reply."""
    after: str
    """From the reply's end to the next turn."""


class ChatFormat:
    """A tokenizer and its chat template, as the episode needs them.

    Raises (on construction):
        InputError: the tokenizer has no chat template, or one that cannot be used
            incrementally (it rewrites earlier turns, or closes none).
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        if not getattr(tokenizer, "chat_template", None):
            raise InputError(
                f"the tokenizer {tokenizer.name_or_path!r} has no chat template; "
                "use an instruction-tuned model, or add chat_template.jinja to its folder"
            )
        self.specials = frozenset(tokenizer.all_special_ids) | _added_specials(tokenizer)
        self._special_texts = sorted(
            {tokenizer.convert_ids_to_tokens(i) for i in self.specials} - {None},
            key=len,
            reverse=True,
        )
        self.has_system = self._accepts_system()
        self._closing = self._find_closing()
        self.end_ids = self._find_end()

    @classmethod
    def load(cls, model: str | Path) -> ChatFormat:
        """Open the tokenizer in a model folder, or at a URL."""
        from transformers import AutoTokenizer

        with explained(model, "open the tokenizer of"):
            try:
                tokenizer = AutoTokenizer.from_pretrained(mirror.local(str(model)))
            except ValueError as error:
                raise InputError(f"{model} holds no usable tokenizer: {error}") from error
        return cls(tokenizer)

    @property
    def digest(self) -> str:
        return digest_bytes(str(self.tokenizer.chat_template).encode())

    def encode(self, text: str) -> list[int]:
        """Ids of a text that may contain the template's own special tokens."""
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def encode_plain(self, text: str) -> list[int]:
        """Ids of a text by a person or the agent, in which nothing is special."""
        return self.encode(self.disarm(text))

    def encode_turn(self, text: str) -> list[int]:
        """Ids of what the agent writes, as the template sets it, without the turn's end."""
        return self.encode(self._closing.lead + self.disarm(text).strip())

    def decode(self, ids: Sequence[int]) -> str:
        """The agent's text, without special tokens."""
        kept = [i for i in ids if i not in self.specials]
        return self.tokenizer.decode(kept, skip_special_tokens=False)

    def disarm(self, text: str) -> str:
        """Break the spelling of every special token: `<|im_end|>` becomes `< |im_end|>`."""
        for special in self._special_texts:
            if len(special) > 1 and special in text:
                text = text.replace(special, f"{special[0]} {special[1:]}")
        return text

    def render(self, messages: Sequence[Message], *, prompt: bool) -> str:
        """The chat template over the messages; `prompt` opens the next assistant turn.

        Raises:
            InputError: the template refuses them, for example turns that do not alternate.
        """
        chat = [
            {"role": m.role, "content": self.disarm(m.content).strip()}
            for m in self._fold(messages)
        ]
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    chat, tokenize=False, add_generation_prompt=prompt
                )
            )
        except jinja2.TemplateError as error:
            roles = ", ".join(m.role for m in messages)
            raise InputError(
                f"the chat template of {self.tokenizer.name_or_path!r} refuses turns by "
                f"{roles}: {error}"
            ) from error

    def opening(self, instruction: str, user: str) -> Segment:
        """Everything before the agent's first turn."""
        messages = [
            Message(role="system", content=instruction),
            Message(role="user", content=user),
        ]
        return Segment(role="user", ids=tuple(self.encode(self.render(messages, prompt=True))))

    def reply(self, text: str, *, turn_ended: bool) -> Segment:
        """Everything between two assistant turns.

        Args:
            text: the environment's reply.
            turn_ended: the agent wrote the end of its turn itself (it did not run out of tokens).
        """
        closing = self._closing
        ids = self.encode(closing.before + self.disarm(text).strip() + closing.after)
        return Segment(role="user", ids=tuple(ids[len(self.end_ids) :] if turn_ended else ids))

    def turn(self, text: str) -> Segment:
        """A complete assistant turn with its end, carrying loss."""
        ids = self.encode_turn(text)
        return Segment(role="assistant", ids=(*ids, *self.end_ids), agent=True)

    def transcript(self, conversation: Conversation) -> Transcript:
        """A whole conversation, loss on every assistant turn.

        Raises:
            InputError: the template does not render the conversation as a growing text.
        """
        segments: list[Segment] = []
        seen = ""
        messages = conversation.messages
        for number, message in enumerate(messages):
            if message.role != "assistant":
                continue
            text = self.render(messages[:number], prompt=True)
            if not text.startswith(seen):
                raise InputError(
                    f"conversation {conversation.id}: the chat template rewrites earlier turns, "
                    "so its tokens cannot be masked exactly; use another template"
                )
            ids = self.encode(text[len(seen) :])
            done = len(self.end_ids) if segments else 0
            segments.append(Segment(role="user", ids=tuple(ids[done:])))
            segments.append(self.turn(message.content))
            seen = text + self._closing.lead + self.disarm(message.content).strip()
        if not segments:
            raise InputError(f"conversation {conversation.id} has no assistant turn to learn from")
        return Transcript(segments=tuple(segments))

    def is_exact(self, transcript: Transcript, messages: Sequence[Message]) -> bool:
        """True when the transcript's ids equal a fresh rendering of the same texts."""
        return self.encode(self.render(messages, prompt=True)) == transcript.token_ids

    def _fold(self, messages: Sequence[Message]) -> list[Message]:
        """Put the system message into the first user turn where the template has no system."""
        if self.has_system or not messages or messages[0].role != "system":
            return list(messages)
        system, *rest = messages
        content = system.content
        if rest and rest[0].role == "user":
            content = f"{content}\n\n{rest.pop(0).content}"
        return [Message(role="user", content=content), *rest]

    def _accepts_system(self) -> bool:
        probe = [{"role": "system", "content": _AGENT}, {"role": "user", "content": _REPLY}]
        try:
            return _AGENT in self.tokenizer.apply_chat_template(probe, tokenize=False)
        except jinja2.TemplateError:
            return False

    def _find_closing(self) -> Closing:
        opening = Message(role="user", content="x")
        turns = [Message(role="assistant", content=_AGENT), Message(role="user", content=_REPLY)]
        head, _, tail = self.render([opening, *turns], prompt=True).partition(_AGENT)
        before, found, after = tail.partition(_REPLY)
        if not found:
            raise InputError(
                f"the chat template of {self.tokenizer.name_or_path!r} drops earlier turns; "
                "an episode cannot grow under it"
            )
        prompt = self.render([opening], prompt=True)
        return Closing(head.removeprefix(prompt) if head.startswith(prompt) else "", before, after)

    def _find_end(self) -> tuple[int, ...]:
        """The tokens that close an assistant turn: up to the first special one."""
        ids = self.encode(self._closing.before)
        for position, token in enumerate(ids[:4]):
            if token in self.specials:
                return tuple(ids[: position + 1])
        raise InputError(
            f"the chat template of {self.tokenizer.name_or_path!r} closes an assistant turn "
            "with no special token; the agent could never end a turn under it"
        )


def _added_specials(tokenizer: Any) -> frozenset[int]:
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return frozenset(i for i, token in added.items() if token.special)
