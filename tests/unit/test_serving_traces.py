"""Traces and logs of served questions: what they hold, and what they do not."""

from __future__ import annotations

import json
import logging

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from served import question, serving

from exsearch.serving.logs import JsonLines, TextLines

pytestmark = pytest.mark.unit

CHAT = "/openai/v1/chat/completions"
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def spans(chatml, body: dict[str, object], **more: object):
    memory = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    with serving(chatml, tracer=provider.get_tracer("test"), watch=False, **more) as running:
        message = {"role": "user", "content": question("T1")}
        sent = {"model": "exsearch", "messages": [message], **body}
        headers = {"traceparent": CALLER, "x-request-id": "r1"}
        httpx.post(running.url + CHAT, json=sent, headers=headers)
    return memory.get_finished_spans()


def test_one_span_a_step_under_one_a_question_under_the_callers(chatml) -> None:
    first, second, episode = spans(chatml, {})
    assert [first.name, second.name, episode.name] == ["step", "step", "episode"]
    assert format(episode.context.trace_id, "032x") == CALLER.split("-")[1]
    assert format(episode.parent.span_id, "016x") == CALLER.split("-")[2]
    assert {first.parent.span_id, second.parent.span_id} == {episode.context.span_id}
    assert first.end_time <= second.start_time
    assert first.attributes == {"exsearch.step": 1, "exsearch.passages": 3, "exsearch.kept": 2}
    assert episode.attributes == {"exsearch.request_id": "r1"}


def test_texts_are_in_traces_only_where_asked_for(chatml) -> None:
    first, _, episode = spans(chatml, {}, log_questions=True)
    assert first.attributes["exsearch.query"] == "code T1"
    assert episode.attributes["exsearch.answer"] == "It means T1."


def test_failures_are_marked(chatml) -> None:
    *_, episode = spans(chatml, {"max_tokens": 2})
    assert episode.status.description == "token_budget"


def record(**fields: object) -> logging.LogRecord:
    made = logging.LogRecord("exsearch.x", logging.INFO, __file__, 1, "answered", (), None)
    made.fields = fields
    return made


def test_log_lines_are_one_json_object_each() -> None:
    line = JsonLines().format(record(request_id="a\nb", text="\ud800\u2028 Ω"))
    assert "\n" not in line
    told = json.loads(line)
    assert told["event"] == "answered"
    assert told["request_id"] == "a\nb"
    line.encode()


def test_a_request_cannot_forge_a_log_line() -> None:
    assert "\n" not in TextLines().format(record(request_id="a\nerror   forged"))


@pytest.mark.parametrize("on", [False, True])
def test_questions_are_logged_only_where_asked_for(chatml, caplog, on: bool) -> None:
    caplog.set_level(logging.INFO, "exsearch")
    with serving(chatml, watch=False, log_questions=on) as running:
        message = {"role": "user", "content": question("PRIVATE")}
        body = {"model": "exsearch", "messages": [message]}
        httpx.post(running.url + CHAT, json=body)
        httpx.post(running.url + CHAT, json=body | {"max_tokens": 2})
    told = "".join(JsonLines().format(r) for r in caplog.records)
    assert told.count("PRIVATE") > 0 if on else "PRIVATE" not in told
    assert "token_budget" in told
