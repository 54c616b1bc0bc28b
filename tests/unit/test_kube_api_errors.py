"""What an error of the Kubernetes API tells a person, and a log across broken connections."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest

from exsearch.errors import ExSearchError, InputError
from exsearch.kube.answers import (
    Asked,
    Exists,
    Expired,
    Invalid,
    Kind,
    NotServed,
    Passing,
    Refused,
    raise_error,
)
from exsearch.kube.logs import Follower

pytestmark = pytest.mark.unit

JOBS = Kind("kubeflow.org", "v1", "pytorchjobs", "the training operator")
ASKED = Asked("create", JOBS, "ns", "x")
DENIED = (
    'pytorchjobs.kubeflow.org is forbidden: User "system:serviceaccount:ns:me" cannot create '
    'resource "pytorchjobs" in API group "kubeflow.org" in the namespace "ns"'
)


def status(code: int, reason: str = "", message: str = "no", **more: Any) -> httpx.Response:
    said = {"kind": "Status", "code": code, "reason": reason, "message": message, **more}
    return httpx.Response(code, json=said)


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (status(403, message=DENIED), InputError, "system:serviceaccount:ns:me may not create"),
        (status(403, message="exceeded quota: gpus"), InputError, "policies forbid.*quota: gpus"),
        (status(401), InputError, "does not know these credentials"),
        (status(404, details={"name": "x"}), Refused, "refused to create pytorchjobs"),
        (status(404, details={}), NotServed, "the training operator is not installed"),
        (httpx.Response(404, text="404 page not found"), NotServed, "not installed"),
        (status(409, "AlreadyExists"), Exists, "no"),
        (status(409, "Conflict"), Refused, "409 no"),
        (status(410, "Expired"), Expired, "no"),
        (status(422, message="spec.x: Invalid"), Invalid, r"spec\.x: Invalid"),
        (status(400, message='unknown field "spec.y"'), Invalid, 'unknown field "spec.y"'),
        (status(503), Passing, "503"),
        (httpx.Response(502, text="bad gateway"), Passing, "502 bad gateway"),
    ],
)
def test_every_answer_has_its_error(
    answer: httpx.Response, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words) as caught:
        raise_error(ASKED, answer)
    assert type(caught.value) is kind


def test_retry_after_is_read() -> None:
    answer = httpx.Response(429, headers={"Retry-After": "7"}, text="slow down")
    with pytest.raises(Passing) as caught:
        raise_error(ASKED, answer)
    assert caught.value.pause == 7


class Connections:
    """An API whose log requests are answered by a script, one connection after the other."""

    patience = 10.0

    def __init__(self, *answers: list[str | Exception]) -> None:
        self._answers = list(answers)
        self.since: list[str | None] = []

    @property
    def spent(self) -> bool:
        return not self._answers

    @contextlib.asynccontextmanager
    async def stream(
        self, verb: str, kind: Kind, namespace: str, params: Mapping[str, str], **_: Any
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        self.since.append(params.get("sinceTime"))
        answer = self._answers.pop(0)

        async def lines() -> AsyncIterator[bytes]:
            for line in answer:
                if isinstance(line, Exception):
                    raise line
                yield line.encode()

        yield lines()


def at(second: int, fraction: str, text: str) -> str:
    return f"2026-01-01T00:00:{second:02d}.{fraction}Z {text}"


LOST = ConnectionError("reset")


A, B, C = at(1, "1", "a"), at(1, "2", "b"), at(2, "0", "c")
SOON = at(1, "100000001", "b")
"""A nanosecond after A."""


@pytest.mark.parametrize(
    "answers",
    [
        [[A, B, LOST], [A, B, C]],
        # Three lines of one moment, the last two of which were not read.
        [[A, LOST], [A, at(1, "1", "b"), at(1, "1", "c")]],
        [[A, SOON, LOST], [A, SOON, C]],
        [[LOST], [A, B, C]],
        [[A, B], [Invalid("being made")], [C]],
    ],
    ids=["overlap", "one moment", "nanoseconds", "nothing read", "ended early"],
)
async def test_each_line_of_a_log_is_read_once(answers: list[list[str | Exception]]) -> None:
    api: Any = Connections(*answers)
    follower = Follower(api, "ns", "pod", "pytorch", lambda: len(api._answers) <= 1)
    assert [line async for line in follower.lines()] == ["a", "b", "c"]
    assert api.spent


async def test_a_log_is_asked_for_from_the_last_lines_second() -> None:
    api: Any = Connections([at(7, "25", "a"), LOST], [])
    follower = Follower(api, "ns", "pod", "pytorch", lambda: len(api._answers) <= 1)
    assert [line async for line in follower.lines()] == ["a"]
    assert api.since == [None, "2026-01-01T00:00:07Z"]


@pytest.mark.parametrize(
    ("error", "quiet"), [(Refused("gone", 404), True), (InputError("403"), False)]
)
async def test_a_log_ends_with_its_pod_and_a_refusal_is_told(error: Exception, quiet: bool) -> None:
    api: Any = Connections([error])
    follower = Follower(api, "ns", "pod", "pytorch", lambda: False)
    if quiet:
        assert [line async for line in follower.lines()] == []
    else:
        with pytest.raises(ExSearchError, match="403"):
            [line async for line in follower.lines()]
