"""The predictor's application: every route over the served agents."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.middleware.cors import CORSMiddleware

from exsearch import __version__
from exsearch.config import ServingConfig
from exsearch.serving import chat, pages
from exsearch.serving.agent import ServedAgent
from exsearch.serving.chat import Json, body_of
from exsearch.serving.feedback import FeedbackRequest, LearningLog, Remembered
from exsearch.serving.guard import Guard
from exsearch.serving.kserve import add_kserve
from exsearch.serving.metrics import Metrics
from exsearch.serving.refusals import Refused
from exsearch.serving.requests import understood

log = logging.getLogger(__name__)


def create_app(
    served: Sequence[ServedAgent],
    config: ServingConfig,
    metrics: Metrics,
    learning: LearningLog,
    token: str = "",
) -> FastAPI:
    """The application; the agents' engines are open already, and closed by whoever opened them.

    Args:
        served: the champion first.
        token: the bearer token that requests must bring; empty: none.
    """
    agents = {agent.name: agent for agent in served}
    remembered = Remembered()
    app = FastAPI(
        title="ExSearch agent", version=__version__, docs_url=None, redoc_url=None, openapi_url=None
    )
    app.add_middleware(Guard, metrics=metrics, token=token)
    if config.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(config.cors),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "x-request-id"],
            expose_headers=["x-request-id", "retry-after"],
        )
    app.add_exception_handler(Refused, _told)
    app.add_exception_handler(Exception, _broken)
    add_kserve(app, agents, remembered)
    app.include_router(chat.router(agents, remembered))
    app.include_router(pages.router())
    app.include_router(_own(served, metrics, remembered, learning))
    return app


async def _told(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return Json(error.body(), status_code=error.status, headers=error.headers)


async def _broken(request: Request, error: Exception) -> Response:
    """A mistake of ours: the client gets the request's id, the log gets the rest."""
    name = request.state.request_id
    log.error("broken", exc_info=error, extra={"fields": {"request_id": name}})
    message = f"an error of this server's own; its log tells more under request id {name}"
    content = {"error": {"message": message, "type": "server_error", "code": "internal"}}
    return Json(content, status_code=500)


def _own(
    served: Sequence[ServedAgent], metrics: Metrics, remembered: Remembered, learning: LearningLog
) -> APIRouter:
    routes = APIRouter()

    @routes.get("/")
    async def root() -> Response:
        return Json({"status": "alive", "playground": pages.PLAYGROUND + "/"})

    @routes.get("/metrics")
    async def prometheus() -> Response:
        return Response(metrics.text(), media_type=metrics.content_type)

    @routes.get("/agent")
    async def agent() -> Response:
        return Json(about(served, learning))

    @routes.post("/feedback")
    async def feedback(request: Request) -> Response:
        said: FeedbackRequest = understood(FeedbackRequest, await body_of(request))
        question, answer = remembered.get(said.request_id)
        metrics.feedback.labels(said.verdict).inc()
        try:
            kept = learning.write(question, answer, said)
        except OSError as error:
            log.error("feedback lost", extra={"fields": {"problem": str(error)}})
            raise Refused("storage", "the verdict could not be written down") from error
        return Json({"kept": kept})

    return routes


def about(served: Sequence[ServedAgent], learning: LearningLog) -> Mapping[str, object]:
    """What is served here and within which limits: `GET /agent`."""
    first = served[0]
    limits = first.limits
    return {
        "name": first.name,
        "models": [
            {"id": agent.name, "role": agent.role, "digest": agent.setting.policy.digest}
            for agent in served
        ],
        "index": first.setting.retriever.digest,
        "limits": {
            "max_steps": limits.max_steps,
            "passages": limits.passages,
            "max_tokens": limits.max_tokens,
            "deadline": limits.deadline,
            "question": first.config.max_question,
        },
        "feedback": {"kept": learning.keeps},
    }
