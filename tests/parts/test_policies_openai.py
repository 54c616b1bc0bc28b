"""The policy for OpenAI-compatible servers, against a real HTTP server with moods."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from chat_templates import tokenizer

from exsearch.agent.chat import ChatFormat
from exsearch.agent.policies import Sampling, open_policy
from exsearch.agent.policies import openai as subject
from exsearch.agent.policies.openai import OpenAIPolicy
from exsearch.config import RunConfig, load
from exsearch.errors import InputError, PolicyError

pytestmark = pytest.mark.unit

CHAT = ChatFormat(tokenizer("chatml"))
TURN = CHAT.turn("<QUERY> who?").ids


@dataclass
class Mood:
    """What the server answers each completion with, in order; then ids."""

    acts: list[Any] = field(default_factory=list)
    seen: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    models: list[str] = field(default_factory=lambda: ["tiny"])


def choice(**more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "text": "", "finish_reason": "stop", **more}]}


def with_ids(body: dict[str, Any]) -> dict[str, Any]:
    """As vLLM's server answers `return_token_ids` and `prompt_logprobs`."""
    if "prompt_logprobs" in body:
        told = [{str(i): {"logprob": -i / 100, "rank": 1}} for i in body["prompt"]]
        return choice(prompt_logprobs=[None, *told[1:]])
    chosen = {"token_logprobs": [-0.5] * len(TURN), "tokens": ["x"] * len(TURN)}
    return choice(text="<QUERY> who?", token_ids=list(TURN), logprobs=chosen)


@pytest.fixture
def server() -> Iterator[tuple[str, Mood]]:
    mood = Mood()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self.answer(200, {"data": [{"id": name} for name in mood.models]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            mood.seen.append(body)
            mood.keys.append(self.headers.get("authorization"))
            act = mood.acts.pop(0) if mood.acts else "ids"
            if act == "drop":
                self.close_connection = True
                self.connection.close()
            elif isinstance(act, int):
                self.answer(act, {"message": f"scripted {act}"})
            else:
                self.answer(200, with_ids(body) if act == "ids" else act)

        def answer(self, code: int, value: Any) -> None:
            data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
            self.send_response(code)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{running.server_address[1]}/v1", mood
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    where = tmp_path_factory.mktemp("tokenizer")
    tokenizer("chatml").save_pretrained(where)
    return str(where)


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three attempts, short pauses."""
    monkeypatch.setattr(subject, "ATTEMPTS", 3)
    pause = subject.wait_random_exponential(multiplier=0.01, max=0.02)
    monkeypatch.setattr(subject, "wait_random_exponential", lambda **_: pause)


def config(url: str, *more: str) -> RunConfig:
    return load(None, ["policy.kind=openai", f"policy.url='{url}'", "model.max_tokens=512", *more])


async def connect(url: str, folder: str, *more: str) -> OpenAIPolicy:
    policy = await open_policy(config(url, *more), folder)
    assert isinstance(policy, OpenAIPolicy)
    return policy


async def turn(policy: OpenAIPolicy, **how: Any):
    [completion] = await policy.generate([[5, 6, 7]], [Sampling(**how)])
    return completion


async def test_ids_go_in_and_ids_come_out(server: tuple[str, Mood], folder: str) -> None:
    url, mood = server
    policy = await connect(url, folder)
    done = await turn(policy, temperature=0.8, top_p=0.9, top_k=5, min_p=0.1, seed=3, max_tokens=40)
    assert done.ids == TURN
    assert done.ended
    assert done.logprobs == (-0.5,) * len(TURN)
    assert policy.stats.notes == {}
    body = mood.seen[0]
    assert body["prompt"] == [5, 6, 7]
    assert body["model"] == "tiny"
    sent = {key: body[key] for key in ("temperature", "top_p", "top_k", "min_p", "seed")}
    assert sent == {"temperature": 0.8, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "seed": 3}
    assert (body["max_tokens"], body["stop_token_ids"]) == (40, [CHAT.end_ids[-1]])
    await policy.close()


async def test_a_server_that_tells_text_only_is_counted(
    server: tuple[str, Mood], folder: str
) -> None:
    url, mood = server
    policy = await connect(url, folder)
    mood.acts = [
        choice(text=" <QUERY> who? "),
        choice(text="<QUERY> who", finish_reason="length"),
        choice(text="a<|im_end|>b"),
    ]
    ended, cut, nasty = [await turn(policy) for _ in range(3)]
    assert ended.ids == TURN
    assert (ended.ended, cut.ended) == (True, False)
    assert CHAT.decode(cut.ids) == "<QUERY> who"
    assert [i for i in nasty.ids if i in CHAT.specials] == [CHAT.end_ids[-1]]
    assert policy.stats.notes == {"ids_from_text": 3}
    await policy.close()


async def test_cached_prompt_tokens_are_counted_where_they_are_told(
    server: tuple[str, Mood], folder: str
) -> None:
    url, mood = server
    policy = await connect(url, folder)
    for details in ({"cached_tokens": 2}, {"cached_tokens": None}, None):
        mood.acts = [choice(token_ids=[9]) | {"usage": {"prompt_tokens_details": details}}]
        await turn(policy)
    assert (policy.stats.cached_tokens, policy.stats.prompt_tokens) == (2, 9)
    await policy.close()


async def test_scores_are_the_prompts_log_probabilities(
    server: tuple[str, Mood], folder: str
) -> None:
    url, mood = server
    policy = await connect(url, folder)
    assert await policy.score([[5, 6], [7]], [[8, 9], [10]]) == [[-0.08, -0.09], [-0.1]]
    assert mood.seen[0]["prompt"] in ([5, 6, 8, 9], [7, 10])
    assert policy.stats.scored_tokens == 3
    mood.acts = [choice()]
    with pytest.raises(PolicyError, match="does not report prompt_logprobs"):
        await policy.score([[5]], [[6]])
    await policy.close()


@pytest.mark.parametrize("acts", [[429], [500, 503], ["drop"], ["drop", 429]])
async def test_what_passes_is_tried_again(
    server: tuple[str, Mood], folder: str, acts: list[Any]
) -> None:
    url, mood = server
    policy = await connect(url, folder)
    mood.acts = list(acts)
    assert (await turn(policy)).ids == TURN
    assert len(mood.seen) == len(acts) + 1
    await policy.close()


@pytest.mark.parametrize("code", [500, 429])
async def test_what_does_not_pass_ends_in_an_error_with_its_cause(
    server: tuple[str, Mood], folder: str, code: int
) -> None:
    url, mood = server
    policy = await connect(url, folder)
    mood.acts = [code] * 9
    with pytest.raises(PolicyError, match=rf"after 3 attempts.*scripted {code}"):
        await turn(policy)
    assert len(mood.seen) == 3
    await policy.close()


async def test_a_refusal_is_told_at_once(server: tuple[str, Mood], folder: str) -> None:
    url, mood = server
    policy = await connect(url, folder)
    mood.acts = [400]
    with pytest.raises(PolicyError, match=r"refused a completion \(400\).*scripted 400"):
        await turn(policy)
    assert len(mood.seen) == 1
    await policy.close()


@pytest.mark.parametrize("answer", ["<html>welcome</html>", {"detail": "?"}, {"choices": []}, []])
async def test_nonsense_is_named(server: tuple[str, Mood], folder: str, answer: Any) -> None:
    url, mood = server
    policy = await connect(url, folder)
    mood.acts = [answer]
    with pytest.raises(PolicyError, match="does not answer as a completions endpoint should"):
        await turn(policy)
    await policy.close()


async def test_the_key_is_sent_and_never_shown(
    server: tuple[str, Mood], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, mood = server
    monkeypatch.setenv("MY_KEY", "hush")
    policy = await connect(url, folder, "policy.api_key_env=MY_KEY")
    mood.acts = [400]
    with pytest.raises(PolicyError) as caught:
        await turn(policy)
    assert mood.keys == ["Bearer hush"]
    assert "hush" not in str(caught.value)
    await policy.close()


async def test_the_model_must_be_clear(server: tuple[str, Mood], folder: str) -> None:
    url, mood = server
    mood.models = ["a", "b"]
    with pytest.raises(InputError, match=r"serves \['a', 'b'\]; set policy\.served_model"):
        await connect(url, folder)
    a = await connect(url, folder, "policy.served_model=a")
    b = await connect(url, folder, "policy.served_model=b")
    assert a.digest != b.digest
    with pytest.raises(InputError, match="cannot be given new weights"):
        await a.load("other")
    await a.close()
    await b.close()


async def test_no_server_and_no_url(folder: str) -> None:
    with pytest.raises(PolicyError, match="cannot list the models"):
        await connect("http://127.0.0.1:9/v1", folder)
    with pytest.raises(InputError, match=r"policy\.url is empty"):
        await connect("", folder)


async def test_a_model_folder_without_tokenizer_is_an_input_error(
    server: tuple[str, Mood], tmp_path: Path
) -> None:
    url, _ = server
    with pytest.raises(InputError):
        await connect(url, str(tmp_path))
