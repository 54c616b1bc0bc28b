"""The playground's files, and what the page may do."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse

from exsearch.serving.guard import PLAYGROUND

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
"""Of the playground's files, by what their names end in."""


def router() -> APIRouter:
    routes = APIRouter()
    folder = files("exsearch.serving") / "playground"

    def add(path: str, content: bytes, kind: str) -> None:
        headers = {
            "content-security-policy": POLICY,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cache-control": "no-cache",
        }

        @routes.get(f"{PLAYGROUND}/{path}", include_in_schema=False)
        async def page() -> Response:
            return Response(content, media_type=f"{kind}; charset=utf-8", headers=headers)

    for file in folder.iterdir():
        kind = TYPES.get(file.name.rpartition(".")[2])
        if kind is not None:  # nothing else is served
            add("" if file.name == "index.html" else file.name, file.read_bytes(), kind)

    @routes.get(PLAYGROUND, include_in_schema=False)
    async def slash() -> Response:
        return RedirectResponse("playground/")  # relative: a gateway may add a prefix

    return routes
