"""One connection of the stand-in: from HTTP to the API's verbs, and back."""

from __future__ import annotations

import json
import select
import ssl
import threading
from collections.abc import Iterable, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any, Protocol

from kube_api import discovery, rbac, selectors, subresources, watching
from kube_api import request as requests
from kube_api.api import Api
from kube_api.request import Request
from kube_api.resources import REVIEWS
from kube_api.status import ApiError
from kube_api.store import Object


class Broken(Exception):
    """The connection is to be cut without an answer."""


class Served(Protocol):
    """What a connection needs of its server."""

    api: Api

    def admit(self, handled: Request) -> None:
        """Record a request, and refuse it where it is to be refused."""


class Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    protocol_version = "HTTP/1.1"
    served: Served
    stop_sign: threading.Event

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except Broken:
            self.close_connection = True
            self.connection.close()

    def _serve(self) -> None:
        data = self.rfile.read(int(self.headers.get("content-length") or 0))
        try:
            parts, _ = requests.split(self.path)
            if parts and parts[0] in ("healthz", "livez", "readyz"):
                self._send(200, b"ok", "text/plain")
            elif len(parts) < 3 or (parts[0] == "apis" and len(parts) < 4) or (
                parts[0] not in ("api", "apis")
            ):  # fmt: skip
                user = self._user()
                if user == rbac.ANONYMOUS and parts != ["version"]:
                    text = f'forbidden: User "{user.name}" cannot get path "{self.path}"'
                    raise ApiError(403, text)
                self._json(200, discovery.answer(parts, self.served.api.catalogue))
            else:
                self._objects(data)
        except ApiError as error:
            self._refuse(error)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def _user(self) -> rbac.User:
        return self.served.api.tokens.user(self.headers.get("authorization"))

    def _objects(self, data: bytes) -> None:
        api = self.served.api
        handled = requests.read(
            self._user(), self.command, self.path, self.headers.get("content-type") or "", data,
            api.catalogue,
        )  # fmt: skip
        self.served.admit(handled)
        match handled.attributes.verb:
            case "watch":
                match_all = _selected(handled)
                self._stream_events(watching.events(api.store, handled, match_all, self.stop_sign))
            case "list":
                self._json(200, self._list(handled))
            case "get" if handled.attributes.subresource == "log":
                self._log(handled)
            case "get" if handled.attributes.subresource in ("", "status"):
                self._json(200, api.get(handled.resource, handled.namespace, handled.name))
            case "deletecollection":
                self._json(200, self._delete_all(handled))
            case "delete":
                self._json(200, self._delete(handled))
            case _:
                self._write(handled)

    def _list(self, handled: Request) -> Object:
        api, resource = self.served.api, handled.resource
        match = _selected(handled)
        with api.store.lock:
            version = str(api.store.version)
            found = [item for item in api.list(resource, handled.namespace) if match(item)]
        limit = int(handled.query.get("limit") or 0)
        start = int(handled.query.get("continue") or 0)
        meta: dict[str, Any] = {"resourceVersion": version}
        if limit and start + limit < len(found):
            meta |= {"continue": str(start + limit),
                     "remainingItemCount": len(found) - start - limit}  # fmt: skip
        items = found[start : start + limit] if limit else found[start:]
        # A typed list's items do not repeat the kind; a custom kind's do.
        if not resource.custom:
            items = [{k: v for k, v in i.items() if k not in ("kind", "apiVersion")} for i in items]
        return {"kind": f"{resource.kind}List", "apiVersion": resource.api_version,
                "metadata": meta, "items": items}  # fmt: skip

    def _delete(self, handled: Request) -> Object:
        resource = handled.resource
        options = handled.deletion()
        item, gone = self.served.api.delete(resource, handled.namespace, handled.name, options)
        if not gone or resource.key == ("", "pods"):
            return item
        details = {"name": handled.name, "group": resource.group, "kind": resource.plural,
                   "uid": item["metadata"]["uid"]}  # fmt: skip
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                     "details": details}  # fmt: skip

    def _delete_all(self, handled: Request) -> Object:
        listed = self._list(handled)
        for item in listed["items"]:
            meta = item["metadata"]
            home = meta.get("namespace", "")
            if self.served.api.store.find(handled.resource.key, home, meta["name"]):
                self.served.api.delete(handled.resource, home, meta["name"], handled.deletion())
        return listed

    def _write(self, handled: Request) -> None:
        api, resource = self.served.api, handled.resource
        options = handled.options(self.headers.get("user-agent") or "")
        sub = handled.attributes.subresource
        verb = handled.attributes.verb
        code = 200
        match sub:
            case "token":
                code, item = 201, subresources.issue_token(api, handled)
            case "binding":
                code, item = 201, subresources.bind(api, handled)
            case "eviction":
                code, item = 201, subresources.evict(api, handled)
            case "scale":
                item = subresources.rescale(api, handled, options)
            case _ if resource.plural in REVIEWS:
                code, item = 201, subresources.review(api, handled)
            case _ if verb == "create":
                code, item = 201, api.create(resource, handled.namespace, handled.body(), options)
            case _ if verb == "update":
                item = api.update(
                    resource, handled.namespace, handled.name, handled.body(), options, sub
                )
            case _:
                known = api.store.find(resource.key, handled.namespace, handled.name)
                item = api.patch(resource, handled.namespace, handled.name,
                                 handled.content_type, handled.data,
                                 options, sub, handled.user)  # fmt: skip
                code = 200 if known else 201
        self._json(code, item, options.warnings)

    def _log(self, handled: Request) -> None:
        pieces = subresources.log(self.served.api, handled)
        if pieces is None:
            self._send(204, b"", "text/plain")
        else:
            self._stream("text/plain", pieces)

    def _stream_events(self, events: Iterable[dict[str, Any] | None]) -> None:
        lines = (json.dumps(e).encode() + b"\n" if e is not None else b"" for e in events)
        self._stream("application/json", lines)

    def _stream(self, kind: str, pieces: Iterable[bytes]) -> None:
        """Send pieces as they come; an empty one only looks whether the client is still there."""
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        for piece in pieces:
            if self.stop_sign.is_set():
                self.close_connection = True
                return
            if piece:
                self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                self.wfile.flush()
            elif _left(self.connection):
                self.close_connection = True
                return
        self.wfile.write(b"0\r\n\r\n")

    def _json(self, code: int, body: Object, warnings: Iterable[str] = ()) -> None:
        headers = {"warning": [f"299 - {json.dumps(text)}" for text in warnings]}
        self._send(code, json.dumps(body).encode(), "application/json", headers)

    def _refuse(self, error: ApiError) -> None:
        headers = {}
        if error.retry_after is not None:
            headers["retry-after"] = [str(error.retry_after)]
        self._send(error.code, json.dumps(error.status()).encode(), "application/json", headers)

    def _send(
        self, code: int, data: bytes, kind: str, headers: Mapping[str, list[str]] | None = None
    ) -> None:
        self.send_response(code)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        for name, values in (headers or {}).items():
            for value in values:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def _selected(handled: Request) -> selectors.Match:
    by_labels = selectors.by_labels(handled.query.get("labelSelector") or "")
    plural = handled.resource.plural
    by_fields = selectors.by_fields(handled.query.get("fieldSelector") or "", plural)
    return lambda item: by_labels(item) and by_fields(item)


def _left(connection: Any) -> bool:
    """Whether the client has closed its side."""
    readable, _, _ = select.select([connection], [], [], 0)
    if not readable:
        return False
    try:
        connection.settimeout(0.05)
        return connection.recv(1) == b""
    except (TimeoutError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True
    finally:
        connection.settimeout(600)
