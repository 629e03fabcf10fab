"""HTTP servers that answer as engines do, with ids that are computed from the request."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

Ids = Callable[[dict[str, Any]], list[int]]
Answer = Callable[[dict[str, Any]], web.Response]


@asynccontextmanager
async def serving(*routes: tuple[str, Answer]) -> AsyncIterator[str]:
    """The URL of a server with these POST routes."""
    app = web.Application(client_max_size=64 * 1024 * 1024)
    for path, answer in routes:
        app.router.add_post(path, _handler(answer))
    async with TestServer(app, host="127.0.0.1") as server:
        yield str(server.make_url("")).rstrip("/")


def _handler(answer: Answer) -> Callable[[web.Request], Any]:
    async def handle(request: web.Request) -> web.Response:
        return answer(json.loads(await request.read()))

    return handle


def dynamo(ids: Ids) -> tuple[tuple[str, Answer], ...]:
    def answer(body: dict[str, Any]) -> web.Response:
        if body["model"] == "unknown":
            return web.json_response({"message": "no such model"}, status=404)
        if body.get("documents"):
            return web.json_response({"message": "unknown field"}, status=400)
        assert body["nvext"] == {"annotations": ["query_instance_id:"]}
        return web.json_response({"nvext": {"token_ids": ids(body), "worker_id": {}}, "choices": []})

    return ("/v1/chat/completions", answer), ("/v1/completions", answer)


def vllm_render(ids: Ids) -> tuple[tuple[str, Answer], ...]:
    def chat(body: dict[str, Any]) -> web.Response:
        if body["model"] == "unknown":
            return web.json_response({"error": {"code": 404}}, status=404)
        if body.get("documents"):
            return web.json_response({"error": {"code": 400}}, status=400)
        return web.json_response({"request_id": "r", "token_ids": ids(body)})

    def completion(body: dict[str, Any]) -> web.Response:
        return web.json_response([{"request_id": "r", "token_ids": ids(body)}])

    return ("/v1/chat/completions/render", chat), ("/v1/completions/render", completion)


def vllm_tokenize(ids: Ids) -> tuple[tuple[str, Answer], ...]:
    def answer(body: dict[str, Any]) -> web.Response:
        if body["model"] == "unknown":
            return web.json_response({"error": {"code": 404}}, status=404)
        found = ids(body)
        return web.json_response({"count": len(found), "max_model_len": 9, "tokens": found})

    return (("/tokenize", answer),)
