"""KServe's own protocols: v1 `:predict`, v2 `infer`, and its health endpoints.

The endpoints and the data plane are KServe's. Its `ModelServer` is not
started: it listens on every address, reads the command line when it is imported, and keeps one
application per process. KServe's controller and clients see no difference.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request, Response

from exsearch.serving import answers
from exsearch.serving.agent import Answered, Ask, ServedAgent
from exsearch.serving.chat import Json
from exsearch.serving.feedback import Remembered
from exsearch.serving.refusals import Refused
from exsearch.serving.requests import batch, new_id
from exsearch.serving.sdk import (
    DataPlane,
    InferOutput,
    InferRequest,
    InferResponse,
    Model,
    ModelRepository,
    ModelRepositoryExtension,
    errors,
    register_v1_endpoints,
    register_v2_endpoints,
)

QUESTION, ANSWER, DETAILS = "question", "answer", "exsearch"
"""Names of v2's tensors: BYTES, shape [questions]. `exsearch` holds JSON."""


STATUS = {
    errors.InvalidInput: 400,
    errors.UnsupportedProtocol: 400,
    errors.ModelNotFound: 404,
    errors.InferenceError: 500,
    NotImplementedError: 501,
    errors.ModelNotReady: 503,
    errors.ServerNotLive: 503,
    errors.ServerNotReady: 503,
}
"""Statuses of KServe's errors: its own handlers also log a traceback for each, so that a probe
of a server that is not ready yet would fill the log."""


class AgentModel(Model):
    """One served agent as a KServe model: a batch of questions in, as many answers out.

    v1: `{"instances": ["…", {"question": "…", "exsearch": {"max_steps": 2}}]}` gives
    `{"predictions": [{"answer", "steps", …}]}`. An instance that finds no answer has
    `"answer": null` and `"error"`, and does not fail its neighbours; a batch of one does fail.
    """

    def __init__(self, agent: ServedAgent, remembered: Remembered) -> None:
        super().__init__(agent.name)
        self.ready = True
        self._agent, self._remembered = agent, remembered

    async def healthy(self) -> bool:
        return self._agent.health.ready

    def get_input_types(self) -> list[dict[str, Any]]:
        return [{"name": QUESTION, "datatype": "BYTES", "shape": [-1]}]

    def get_output_types(self) -> list[dict[str, Any]]:
        return [
            {"name": ANSWER, "datatype": "BYTES", "shape": [-1]},
            {"name": DETAILS, "datatype": "BYTES", "shape": [-1]},
        ]

    async def predict(  # type: ignore[override]
        self,
        payload: dict[str, Any] | InferRequest,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> dict[str, Any] | InferResponse:
        """Raises Refused: no instance could be answered."""
        headers = headers or {}
        if isinstance(payload, InferRequest):
            predictions = await self._answer_all(_questions(payload), headers)
            return _v2(payload, self.name, predictions)
        return {"predictions": await self._answer_all(_instances(payload), headers)}

    async def _answer_all(
        self, instances: list[Any], headers: Mapping[str, str]
    ) -> list[answers.Json]:
        agent = self._agent
        if not 1 <= len(instances) <= agent.config.batch:
            raise Refused(
                "invalid", f"send 1 to {agent.config.batch} questions, not {len(instances)}"
            )
        request = headers.get("x-request-id") or new_id()
        asks = batch(instances, request, agent.limits, agent.config.max_question, headers)
        places = agent.take(len(asks))
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._one(ask, place))
                    for ask, place in zip(asks, places, strict=True)
                ]
        finally:
            for place in places:
                place.leave()  # also of those that never began
        results = [task.result() for task in tasks]
        if len(results) == 1 and isinstance(results[0], Refused):
            raise results[0]
        return [_prediction(ask, result) for ask, result in zip(asks, results, strict=True)]

    async def _one(self, ask: Ask, place: Any) -> Answered | Refused:
        try:
            answered = await self._agent.answer(ask, place)
        except Refused as refused:
            return refused
        self._remembered.add(answered)
        return answered


def _prediction(ask: Ask, result: Answered | Refused) -> answers.Json:
    if isinstance(result, Refused):
        return {"answer": None, "request_id": ask.request, **result.body()}
    return answers.prediction(result)


def _instances(payload: object) -> list[Any]:
    instances = payload.get("instances") if isinstance(payload, dict) else None
    if not isinstance(instances, list):
        raise Refused("invalid", 'send {"instances": [question, …]}')
    return instances


def _questions(request: InferRequest) -> list[str]:
    tensors = [t for t in request.inputs if t.name == QUESTION]
    if len(tensors) != 1 or tensors[0].datatype != "BYTES":
        raise Refused("invalid", f"inputs: send one BYTES tensor named {QUESTION!r}")
    data = tensors[0].data
    if not isinstance(data, list) or not all(isinstance(text, str) for text in data):
        raise Refused("invalid", f"inputs: {QUESTION!r} must hold texts only")
    return [str(text) for text in data]


def _v2(request: InferRequest, name: str, predictions: list[answers.Json]) -> InferResponse:
    count = len(predictions)
    texts = [str(p["answer"] or "") for p in predictions]
    details = [json.dumps(prediction) for prediction in predictions]
    return InferResponse(
        response_id=request.id or new_id(),
        model_name=name,
        infer_outputs=[
            InferOutput(name=ANSWER, shape=[count], datatype="BYTES", data=texts),
            InferOutput(name=DETAILS, shape=[count], datatype="BYTES", data=details),
        ],
    )


class AgentDataPlane(DataPlane):
    """KServe's data plane, with answers that mean something to its health endpoints."""

    def __init__(self, agents: Mapping[str, ServedAgent], models: ModelRepository) -> None:
        super().__init__(model_registry=models)
        self._agents = agents

    async def live(self) -> dict[str, str]:  # type: ignore[override]
        """Not alive once an engine inside this process is dead: only a restart mends that."""
        dead = any(agent.health.dead for agent in self._agents.values())
        return {"status": "dead" if dead else "alive"}

    async def ready(self) -> bool:
        return all(
            agent.health.ready and not agent.admission.closing for agent in self._agents.values()
        )

    async def model_ready(
        self, model_name: str, disable_predictor_health_check: bool = False
    ) -> bool:
        """Requests are let through while the retriever is away: it may be back in time."""
        if disable_predictor_health_check:
            self.get_model_from_registry(model_name)
            return True
        return await super().model_ready(model_name)


class _Fixed(ModelRepositoryExtension):
    """What is served is decided by who starts the server, not by who can reach it."""

    async def load(self, model_name: str) -> None:
        raise NotImplementedError("models are not loaded by request here")

    async def unload(self, model_name: str) -> None:
        raise NotImplementedError("models are not unloaded by request here")


def _teller(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def tell(_: Request, error: Exception) -> Response:
        return Json({"error": str(error)}, status_code=status)

    return tell


def add_kserve(app: FastAPI, agents: Mapping[str, ServedAgent], remembered: Remembered) -> None:
    """Add KServe's routes, for these agents, and what its errors become."""
    models = ModelRepository()
    for agent in agents.values():
        models.update(AgentModel(agent, remembered))
    plane = AgentDataPlane(agents, models)
    register_v1_endpoints(app, plane, _Fixed(models))
    register_v2_endpoints(app, plane, _Fixed(models))
    for kind, status in STATUS.items():
        app.add_exception_handler(kind, _teller(status))

    @app.get("/healthz")
    async def healthz(_: Request) -> Response:
        alive = (await plane.live())["status"] == "alive"
        return Response(status_code=200 if alive else 503)
