"""The render API over HTTP, by Starlette. Knows nothing of tokens."""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from extproc.tracing import trace_parent
from tokenext.render_api.bodies import CHAT, COMPLETION
from tokenext.render_api.errors import RETRY_AFTER_SECONDS, ApiError, Refusal, malformed
from tokenext.render_api.hashes import are_wanted
from tokenext.render_api.openapi import document
from tokenext.render_api.service import Asked, RenderApi

__all__ = ["Application", "HttpLimits", "application"]

Application = Callable[[Any, Any, Any], Awaitable[None]]
_Answer = Callable[[Request, bytes], Awaitable[bytes]]

_JSON: Final = "application/json"
_CLIENT_GONE: Final = 499  # nobody reads it; what Envoy and nginx write into their logs
_TOO_LARGE: Final = Refusal(413, "RequestEntityTooLarge", "the request is larger than is tokenized here")
_FAILED: Final = Refusal(500, "InternalServerError", "the server failed on this request")
_FULL: Final = Refusal(503, "ServiceUnavailableError", "too many requests are open or wait", retry=True)


class HttpLimits:
    """`max_body_bytes` of a request, and how many may be open at once; the rest is refused at once, unread.

    So are all while the process is `busy`: to read a body first and then to refuse it costs four times as
    much, which is what tokenizing is to be done with.

    Owns the count, and what was refused by it since the start.
    """

    def __init__(
        self, *, max_body_bytes: int, max_requests: int, busy: Callable[[], bool] = lambda: False
    ) -> None:
        self.max_body_bytes: Final = max_body_bytes
        self.max_requests: Final = max_requests
        self.busy: Final = busy
        self.open = 0
        self.refused = 0

    def over(self) -> bool:
        """Whether the next request is refused."""
        return self.open >= self.max_requests or self.busy()


def application(
    api: RenderApi, limits: HttpLimits, *, version: str, ready: Callable[[], bool]
) -> Application:
    """The ASGI application. `ready` is what /health answers."""
    posts: Mapping[str, _Answer] = {
        f"{CHAT}/render": _rendering(api, CHAT),
        f"{COMPLETION}/render": _rendering(api, COMPLETION),
        "/tokenize": lambda request, body: api.tokenize(body, _asked(request)),
        "/detokenize": lambda _, body: api.detokenize(body),
    }
    schema = document(version)
    gets: Mapping[str, Callable[[], Response]] = {
        "/v1/models": lambda: Response(api.models(created=int(time.time())), media_type=_JSON),
        "/health": lambda: Response(status_code=200 if ready() else 503),
        "/version": lambda: JSONResponse({"version": version}),
        "/openapi.json": lambda: JSONResponse(schema),
    }
    app = Starlette(
        routes=[
            *(Route(path, _posting(answer, limits), methods=["POST"]) for path, answer in posts.items()),
            *(_getting_only(path, answer) for path, answer in gets.items()),
        ],
        exception_handlers={404: _plain, 405: _plain, 500: _failed},
    )
    return _refusing(app, frozenset(posts), limits)


def _refusing(app: Application, paths: frozenset[str], limits: HttpLimits) -> Application:
    """Whoever has to be refused is refused before Starlette, which would take twice the time for it."""
    answer = _answer_of(_FULL)
    start = {"type": "http.response.start", "status": answer.status_code, "headers": answer.raw_headers}
    body = {"type": "http.response.body", "body": answer.body}

    async def gate(scope: Any, receive: Any, send: Any) -> None:
        if limits.over() and scope["path"] in paths and scope["method"] == "POST":
            limits.refused += 1
            await send(start)
            await send(body)
        else:
            await app(scope, receive, send)

    return gate


def _rendering(api: RenderApi, path: str) -> _Answer:
    async def answer(request: Request, body: bytes) -> bytes:
        return await api.render(path, body, _asked(request))

    return answer


def _asked(request: Request) -> Asked:
    headers = request.headers
    return Asked(headers.get("x-request-id"), trace_parent(headers), are_wanted(headers))


def _posting(answer: _Answer, limits: HttpLimits) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        limits.open += 1
        try:
            _check_content_type(request)
            return Response(await answer(request, await _body(request, limits)), media_type=_JSON)
        except ApiError as error:
            return _answer_of(error.refusal)
        except ClientDisconnect:
            return Response(status_code=_CLIENT_GONE)
        finally:
            limits.open -= 1

    return endpoint


def _getting_only(path: str, answer: Callable[[], Response]) -> Route:
    """Starlette adds HEAD; FastAPI, which vLLM's server is made of, does not."""
    route = Route(path, _getting(answer))
    route.methods = {"GET"}
    return route


def _getting(answer: Callable[[], Response]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(_: Request) -> Response:
        return answer()

    return endpoint


async def _body(request: Request, limits: HttpLimits) -> bytes:
    """Raises ApiError for one that is too large, as soon as it is."""
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > limits.max_body_bytes:
            raise ApiError(_TOO_LARGE)
        pieces.append(piece)
    return b"".join(pieces)


def _check_content_type(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _JSON:
        raise malformed("the content-type must be application/json", None)


def _answer_of(refusal: Refusal) -> Response:
    headers = {"retry-after": str(RETRY_AFTER_SECONDS)} if refusal.retry else {}
    return Response(refusal.body(), refusal.status, headers, _JSON)


async def _plain(_: Request, error: Any) -> Response:
    """Of no route: Starlette's words in JSON, as vLLM has them."""
    return JSONResponse({"detail": error.detail}, error.status_code, error.headers)


async def _failed(_: Request, __: Exception) -> Response:
    """Of a bug of ours, which uvicorn writes into the log."""
    return _answer_of(_FAILED)
