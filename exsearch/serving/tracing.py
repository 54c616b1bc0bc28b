"""Traces by OpenTelemetry: one span per question, one within it per step.

Without `serving.traces` the API's own no-op tracer is used and nothing leaves the process.
Texts are attributes only where `serving.log_questions` allows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import context, propagate, trace
from opentelemetry.trace import Span, Status, StatusCode, Tracer

from exsearch.agent.episode import Event
from exsearch.errors import InputError


def open_tracer(endpoint: str) -> Tracer:
    """A tracer that sends to `endpoint` in the background, or one that does nothing.

    Raises:
        InputError: OpenTelemetry's SDK is not installed.
    """
    if not endpoint:
        return trace.NoOpTracer()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise InputError(
            f"serving.traces is set, but OpenTelemetry is not installed ({error}): "
            "pip install 'exsearch[serving]', or leave serving.traces empty"
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": "exsearch-agent"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return provider.get_tracer("exsearch")


class EpisodeTrace:
    """The spans of one question; told of its events as they happen."""

    def __init__(self, tracer: Tracer, span: Span, texts: bool) -> None:
        self._tracer, self.span, self._texts = tracer, span, texts
        self._inside = trace.set_span_in_context(span)
        self._step: Span | None = None

    def __call__(self, event: Event) -> None:
        if event.kind == "query":
            self._end_step()
            self._step = self._tracer.start_span("step", context=self._inside)
            self._step.set_attribute("exsearch.step", event.step)
            self._note(self._step, "exsearch.query", event.text)
        elif event.kind == "passages" and self._step:
            self._step.set_attribute("exsearch.passages", len(event.passages))
        elif event.kind == "kept" and self._step:
            self._step.set_attribute("exsearch.kept", len(event.kept))
        elif event.kind == "evidence" and self._step:
            self._note(self._step, "exsearch.evidence", event.text)
        elif event.kind == "repair":
            (self._step or self.span).add_event("repair")
        elif event.kind == "answer":
            self._end_step()
            self._note(self.span, "exsearch.answer", event.text)

    def failed(self, reason: str) -> None:
        self.span.set_status(Status(StatusCode.ERROR, reason))

    def close(self) -> None:
        self._end_step()
        self.span.end()

    def _note(self, span: Span, name: str, text: str) -> None:
        if self._texts:
            span.set_attribute(name, text)

    def _end_step(self) -> None:
        if self._step is not None:
            self._step.end()
            self._step = None


@contextmanager
def traced(
    tracer: Tracer, request: str, headers: Mapping[str, str], texts: bool
) -> Iterator[EpisodeTrace]:
    """The trace of one question; a child of the client's own, where its headers name one."""
    caller: context.Context = propagate.extract(headers)
    span = tracer.start_span("episode", context=caller)
    span.set_attribute("exsearch.request_id", request)
    episode = EpisodeTrace(tracer, span, texts)
    try:
        yield episode
    finally:
        episode.close()
