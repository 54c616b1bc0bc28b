"""The playground's three files, and what the page may do."""

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
FILES = {
    "": ("index.html", "text/html; charset=utf-8"),
    "app.js": ("app.js", "text/javascript; charset=utf-8"),
    "style.css": ("style.css", "text/css; charset=utf-8"),
}
"""Path below `/playground/`: file, type. Nothing else is served."""


def router() -> APIRouter:
    routes = APIRouter()
    folder = files("exsearch.serving") / "playground"

    def add(path: str, name: str, kind: str) -> None:
        content = (folder / name).read_bytes()
        headers = {
            "content-security-policy": POLICY,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cache-control": "no-cache",
        }

        @routes.get(f"{PLAYGROUND}/{path}", include_in_schema=False)
        async def page() -> Response:
            return Response(content, media_type=kind, headers=headers)

    for path, (name, kind) in FILES.items():
        add(path, name, kind)

    @routes.get(PLAYGROUND, include_in_schema=False)
    async def slash() -> Response:
        return RedirectResponse("playground/")  # relative: a gateway may add a prefix

    return routes
