"""Answers as they go out: JSON shapes, made from episodes and their events. Nothing here waits."""

from __future__ import annotations

import time
from typing import Any

from exsearch.agent.episode import Event
from exsearch.records import Passage, Step
from exsearch.serving.agent import Answered

Json = dict[str, Any]


def event_json(event: Event) -> Json:
    """One event of a stream; `kept` are positions in the step's passages, counted from 1."""
    told: Json = {"kind": event.kind, "step": event.step}
    if event.kind == "passages":
        told["passages"] = [passage_json(passage) for passage in event.passages]
    elif event.kind == "kept":
        told["kept"] = list(event.kept)
    else:
        told["text"] = event.text
    return told


def passage_json(passage: Passage) -> Json:
    return passage.model_dump()


def step_json(step: Step) -> Json:
    return {
        "query": step.query,
        "passages": [passage_json(passage) for passage in step.passages],
        "kept": list(step.kept),
        "evidence": step.evidence,
    }


def citations(steps: tuple[Step, ...]) -> list[Json]:
    """Every passage the agent kept, with the evidence that it noted from that step."""
    return [
        {
            "step": number,
            "pid": step.passages[place - 1].pid,
            "title": step.passages[place - 1].title,
            "evidence": step.evidence,
        }
        for number, step in enumerate(steps, 1)
        for place in step.kept
    ]


def summary(answered: Answered) -> Json:
    """The extension field `exsearch` of a finished answer."""
    meter, result = answered.meter, answered.result
    return {
        "request_id": answered.ask.request,
        "steps": [step_json(step) for step in result.steps],
        "citations": citations(result.steps),
        "forced": result.forced,
        "repairs": result.repairs,
        "model": answered.model,
        "index": answered.index,
        "seconds": {
            "total": round(answered.total, 4),
            "waiting": round(answered.waiting, 4),
            "engine": round(meter.engine, 4),
            "retriever": round(meter.retriever, 4),
        },
        "tokens": {"prompt": meter.prompt, "cached": meter.cached, "output": meter.output},
    }


def usage(answered: Answered) -> Json:
    """OpenAI's counts. The prompt's are those of all turns, read once each."""
    meter = answered.meter
    return {
        "prompt_tokens": meter.prompt,
        "completion_tokens": meter.output,
        "total_tokens": meter.prompt + meter.output,
        "prompt_tokens_details": {"cached_tokens": meter.cached},
    }


def completion(answered: Answered, model: str, ignored: int) -> Json:
    """A whole `chat.completion`."""
    message = {"role": "assistant", "content": answered.answer, "refusal": None}
    return {
        "id": answered.ask.request,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": usage(answered),
        "exsearch": summary(answered) | {"ignored": ignored},
    }


class Chunks:
    """The pieces of one streamed `chat.completion`."""

    def __init__(self, request: str, model: str) -> None:
        self._head: Json = {
            "id": request,
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }

    def _chunk(self, delta: Json, finish: str | None = None, **more: Any) -> Json:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return {**self._head, "choices": [choice], **more}

    def opening(self) -> Json:
        return self._chunk({"role": "assistant", "content": ""})

    def event(self, event: Event) -> Json:
        return self._chunk({}, exsearch={"event": event_json(event)})

    def answer(self, text: str) -> Json:
        return self._chunk({"content": text})

    def end(self, answered: Answered, ignored: int) -> Json:
        told = summary(answered) | {"ignored": ignored}
        return self._chunk({}, "stop", exsearch={"summary": told})

    def usage(self, answered: Answered) -> Json:
        return {**self._head, "choices": [], "usage": usage(answered)}


def prediction(answered: Answered) -> Json:
    """One element of KServe v1's `predictions`."""
    return {"answer": answered.answer, **summary(answered)}
