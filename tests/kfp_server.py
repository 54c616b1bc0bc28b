"""A stand-in for Kubeflow Pipelines' API server: v2beta1, as its published client speaks it.

Bodies must deserialise into the client's own models with no field left over; names are unique,
lists come in pages, and what the real server fills in is filled in.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import kfp_server_api
import yaml

PREFIX = "/apis/v2beta1"
PAGE = 2
"""Small, so that every list needs more than one page."""


class Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Kubeflow:
    """The server's state; tests read it and break it."""

    def __init__(self) -> None:
        self.url = ""
        self.token = ""
        """Where set, requests must bring it."""
        self.pipelines: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, dict[str, Any]] = {}
        self.experiments: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.recurring: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, str]] = []
        self.before: Callable[[str, str], None] = lambda method, path: None
        """Called with each request first; may raise `Refused` or change the state."""
        self.most_enabled = 0
        """The largest number of enabled schedules there ever was."""

    def answer(self, method: str, target: str, body: bytes, headers: Any) -> Any:
        split = urlsplit(target)
        path, query = unquote(split.path), {k: v[0] for k, v in parse_qs(split.query).items()}
        self.asked.append((method, path))
        self.before(method, path)
        if self.token and headers.get("authorization") != f"Bearer {self.token}":
            raise Refused(401, "Request header error: there is no user identity header.")
        for pattern, verb, handle in self._routes():
            match = re.fullmatch(PREFIX + pattern, path)
            if match and verb == method:
                found = handle(*match.groups(), query=query, body=body, headers=headers)
                enabled = sum(r["status"] == "ENABLED" for r in self.recurring.values())
                self.most_enabled = max(self.most_enabled, enabled)
                return found
        raise Refused(404, f"no such path: {method} {path}")

    def _routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        return [
            (r"/pipelines/names/([^/]+)", "GET", self.pipeline_by_name),
            (r"/pipelines", "POST", self.create_pipeline),
            (r"/pipelines/upload_version", "POST", self.upload_version),
            (r"/pipelines/([^/]+)/versions", "GET", self.list_versions),
            (r"/experiments", "GET", self.list_experiments),
            (r"/experiments", "POST", self.create_experiment),
            (r"/runs", "POST", self.create_run),
            (r"/recurringruns", "GET", self.list_recurring),
            (r"/recurringruns", "POST", self.create_recurring),
            (r"/recurringruns/([^/:]+)", "DELETE", self.delete_recurring),
            (r"/recurringruns/([^/:]+):(enable|disable)", "POST", self.switch),
        ]

    def pipeline_by_name(self, name: str, **_: Any) -> Any:
        found = next((p for p in self.pipelines.values() if p["display_name"] == name), None)
        if found is None:
            raise Refused(404, f"Pipeline {name} not found")
        return found

    def create_pipeline(self, *, body: bytes, **_: Any) -> Any:
        asked = parsed(body, "V2beta1Pipeline")
        return self._add(self.pipelines, "pipeline_id", asked)

    def upload_version(self, *, query: Any, body: bytes, headers: Any, **_: Any) -> Any:
        if query.get("pipelineid") not in self.pipelines:
            raise Refused(404, "Pipeline not found")
        documents = list(yaml.safe_load_all(uploaded(body, headers["content-type"])))
        if "pipelineInfo" not in documents[0]:
            raise Refused(400, "The pipeline spec is invalid.")
        entry = {"display_name": query["name"], "pipeline_id": query["pipelineid"]}
        return self._add(self.versions, "pipeline_version_id", {**entry, "pipeline_spec": {}})

    def list_versions(self, pipeline: str, *, query: Any, **_: Any) -> Any:
        own = [v for v in self.versions.values() if v["pipeline_id"] == pipeline]
        return paged("pipeline_versions", own, query)

    def list_experiments(self, *, query: Any, **_: Any) -> Any:
        return paged("experiments", filtered(self.experiments, query), query)

    def create_experiment(self, *, body: bytes, **_: Any) -> Any:
        return self._add(self.experiments, "experiment_id", parsed(body, "V2beta1Experiment"))

    def create_run(self, *, body: bytes, **_: Any) -> Any:
        asked = self._startable(parsed(body, "V2beta1Run"))
        return self._add(self.runs, "run_id", asked, unique=False)

    def list_recurring(self, *, query: Any, **_: Any) -> Any:
        return paged("recurringRuns", filtered(self.recurring, query), query)

    def create_recurring(self, *, body: bytes, **_: Any) -> Any:
        asked = self._startable(parsed(body, "V2beta1RecurringRun"))
        if len(asked["trigger"]["cron_schedule"]["cron"].split()) != 6:
            raise Refused(400, "Schedule cron is not a supported format")
        if not 1 <= int(asked["max_concurrency"]) <= 10:
            raise Refused(400, "The max concurrency of the recurring run is out of range.")
        asked["status"] = "ENABLED" if asked.pop("mode") == "ENABLE" else "DISABLED"
        return self._add(self.recurring, "recurring_run_id", asked, unique=False)

    def delete_recurring(self, name: str, **_: Any) -> Any:
        if self.recurring.pop(name, None) is None:
            raise Refused(404, f"Recurring run {name} not found")
        return {}

    def switch(self, name: str, verb: str, **_: Any) -> Any:
        self.recurring[name]["status"] = "ENABLED" if verb == "enable" else "DISABLED"
        return {}

    def _startable(self, asked: dict[str, Any]) -> dict[str, Any]:
        reference = asked["pipeline_version_reference"]
        if reference["pipeline_version_id"] not in self.versions:
            raise Refused(404, "pipeline version not found")
        if asked["experiment_id"] not in self.experiments:
            raise Refused(404, "experiment not found")
        return asked

    def _add(
        self, shelf: dict[str, Any], key: str, entry: dict[str, Any], *, unique: bool = True
    ) -> Any:
        name = entry["display_name"]
        if unique and any(e["display_name"] == name for e in shelf.values()):
            raise Refused(409, f"{name} already exists")
        made = {**entry, key: str(uuid.uuid4())}
        shelf[made[key]] = made
        return made


def parsed(body: bytes, model: str) -> dict[str, Any]:
    """A body that is this model and nothing else."""
    sent = json.loads(body)
    known = getattr(kfp_server_api, model).openapi_types
    unknown = set(sent) - set(known)
    if unknown:
        raise Refused(400, f"unknown fields {sorted(unknown)} for {model}")
    return sent


def uploaded(body: bytes, content_type: str) -> str:
    """The file of a multipart upload."""
    boundary = content_type.partition("boundary=")[2].encode()
    part = next(p for p in body.split(b"--" + boundary) if b'name="uploadfile"' in p)
    return part.partition(b"\r\n\r\n")[2].decode().rstrip("\r\n")


def filtered(shelf: dict[str, Any], query: dict[str, str]) -> list[Any]:
    """Entries whose display name the filter names."""
    predicates = json.loads(query["filter"])["predicates"]
    names = [p["stringValue"] for p in predicates if p["key"] == "display_name"]
    return [e for e in shelf.values() if e["display_name"] in names]


def paged(field: str, entries: list[Any], query: dict[str, str]) -> dict[str, Any]:
    start = int(query.get("page_token") or 0)
    page = {field: entries[start : start + PAGE]}
    return page | ({"next_page_token": str(start + PAGE)} if start + PAGE < len(entries) else {})


@contextmanager
def kubeflow() -> Iterator[Kubeflow]:
    """A new one, on a free port of 127.0.0.1."""
    state = Kubeflow()
    with serving(state):
        yield state


@contextmanager
def serving(state: Kubeflow) -> Iterator[None]:
    """Serve a state on a free port of 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            try:
                status, answer = 200, state.answer(self.command, self.path, body, self.headers)
            except Refused as refused:
                status, answer = refused.status, {"message": str(refused), "code": 5}
            payload = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_POST = do_DELETE = handle_any

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
