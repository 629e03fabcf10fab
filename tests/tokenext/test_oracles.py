"""One contract for every oracle, then what is special about each."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from extproc.token_metadata import TokenIds
from tests.tokenext import engine_server
from tests.tokenext.engine_server import serving
from tokenext.openai import Api
from tokenext.oracle import FakeOracle, NotAsked, Oracle, OracleError, Refusal
from tokenext.oracles import http
from tokenext.oracles.opening import open_oracle
from tokenext.parity import OracleKind

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
COMPLETION = {"model": "m", "prompt": "hi there"}


def ids_of(body: dict) -> list[int]:
    return list((body.get("prompt") or body["messages"][-1]["content"]).encode())


def fake_answer(api: Api, body: bytes) -> TokenIds | Refusal:
    document = json.loads(body)
    if document["model"] == "unknown":
        raise OracleError("no such model")
    return Refusal(400) if document.get("documents") else TokenIds.pack(ids_of(document))


@asynccontextmanager
async def opened(kind: str) -> AsyncIterator[Oracle]:
    if kind == "fake":
        yield FakeOracle(fake_answer)
        return
    routes = {
        "dynamo": engine_server.dynamo(ids_of),
        "vllm render": engine_server.vllm_render(ids_of),
        "vllm tokenize": engine_server.vllm_tokenize(ids_of),
    }[kind]
    async with serving(*routes) as url, open_oracle(OracleKind(kind.partition(" ")[0]), url) as oracle:
        yield oracle


def body(document: dict, **fields: object) -> bytes:
    return json.dumps({**document, **fields}).encode()


@pytest.mark.parametrize("kind", ["fake", "dynamo", "vllm render", "vllm tokenize"])
class TestContract:
    async def test_it_shows_the_ids_of_a_chat_and_of_a_completion(self, kind):
        async with opened(kind) as oracle:
            assert await oracle.ids(Api.CHAT, body(CHAT)) == TokenIds.pack(list(b"hi"))
            assert await oracle.ids(Api.COMPLETION, body(COMPLETION)) == TokenIds.pack(list(b"hi there"))

    async def test_what_it_cannot_show_is_an_answer_and_no_error(self, kind):
        async with opened(kind) as oracle:
            answer = await oracle.ids(Api.CHAT, body(CHAT, documents=[{"text": "x"}]))
            assert answer == (NotAsked() if kind == "vllm tokenize" else Refusal(400))

    async def test_a_model_that_the_engine_does_not_know_is_an_error(self, kind):
        async with opened(kind) as oracle:
            with pytest.raises(OracleError):
                await oracle.ids(Api.CHAT, body(CHAT, model="unknown"))


async def ask(kind: OracleKind, *routes: tuple[str, engine_server.Answer], document: dict = CHAT) -> object:
    async with serving(*routes) as url, open_oracle(kind, url) as oracle:
        return await oracle.ids(Api.CHAT, body(document))


async def test_an_engine_that_is_not_there_is_an_error_that_names_it():
    async with open_oracle(OracleKind.DYNAMO, "http://127.0.0.1:9") as oracle:
        with pytest.raises(OracleError, match=r"^http://127\.0\.0\.1:9 cannot be reached"):
            await oracle.ids(Api.CHAT, body(CHAT))


@pytest.mark.parametrize(
    ("response", "problem"),
    [
        (lambda _: web.Response(status=503), "answers 503"),
        (lambda _: web.Response(status=401), "wants credentials"),
        (lambda _: web.Response(status=302, headers={"location": "/"}), "answers 302"),
        (lambda _: web.Response(body=b"<html>"), "does not answer with JSON"),
        (lambda _: web.json_response({"choices": []}), "shows no ids"),
        (lambda _: web.json_response({"nvext": {"token_ids": ["1"]}}), "shows no ids"),
        (lambda _: web.json_response({"nvext": {"token_ids": [-1]}}), "shows no ids"),
        (lambda _: web.json_response({"nvext": {"token_ids": [2**32]}}), "shows no ids"),
        (lambda _: web.json_response([1]), "shows no ids"),
    ],
)
async def test_an_answer_that_tells_nothing_is_an_error(response, problem):
    with pytest.raises(OracleError, match=problem):
        await ask(OracleKind.DYNAMO, ("/v1/chat/completions", response))


async def test_an_answer_is_bounded(monkeypatch):
    monkeypatch.setattr(http, "_MAX_REPLY_BYTES", 1000)
    with pytest.raises(OracleError, match="more than 1000 bytes"):
        await ask(OracleKind.DYNAMO, ("/v1/chat/completions", lambda _: web.Response(body=b" " * 1001)))


async def test_dynamos_answer_may_be_an_event_stream():
    def stream(_: dict) -> web.Response:
        text = b'event: x\n\ndata: {"nvext": {"token_ids": [4]}}\n\ndata: [DONE]\n\n'
        return web.Response(body=text, content_type="text/event-stream")

    assert await ask(OracleKind.DYNAMO, ("/v1/chat/completions", stream)) == TokenIds.pack([4])


async def test_older_vllms_show_a_conversation_and_prompts():
    def older(_: dict) -> web.Response:
        return web.json_response([[{"role": "user"}], [{"prompt_token_ids": [4, 5]}]])

    assert await ask(OracleKind.VLLM, ("/v1/chat/completions/render", older)) == TokenIds.pack([4, 5])


async def test_tokenize_gets_only_fields_that_it_reads():
    asked = []

    def answer(document: dict) -> web.Response:
        asked.append(document)
        return web.json_response({"tokens": [1]})

    sampled = {**CHAT, "max_tokens": 1, "temperature": 0.5, "add_generation_prompt": False}
    await ask(OracleKind.VLLM, ("/tokenize", answer), document=sampled)
    assert asked == [{**CHAT, "add_generation_prompt": False}]


async def test_tokenize_is_not_asked_about_fields_that_it_passes_over():
    answer = await ask(
        OracleKind.VLLM,
        ("/tokenize", lambda _: web.json_response({"tokens": [1]})),
        document={**CHAT, "reasoning_effort": "low"},
    )
    assert answer == NotAsked()
