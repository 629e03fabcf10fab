"""The render API on a real HTTP port, with models of fakes."""

import json
import time
from contextlib import asynccontextmanager

import aiohttp

from tests.tokenext.models import fake_model
from tokenext.callout import Callout
from tokenext.catalog import Catalog
from tokenext.conversations import Conversations
from tokenext.observer import RecordingObserver
from tokenext.pool import TokenizationPool
from tokenext.render_api.asgi import HttpLimits, application
from tokenext.render_api.http_server import serve_http
from tokenext.render_api.service import RenderApi
from tokenext.vocabulary import FakeVocabulary

__all__ = ["CHAT_PATH", "COMPLETION_PATH", "Port", "serving"]

CHAT_PATH, COMPLETION_PATH = "/v1/chat/completions/render", "/v1/completions/render"


class Port:
    """A client of the port, and what is behind it."""

    def __init__(
        self,
        url: str,
        session: aiohttp.ClientSession,
        observer: RecordingObserver,
        pool: TokenizationPool,
        limits: HttpLimits,
        *,
        callout: Callout,
    ):
        self.url, self.session, self.observer, self.pool, self.limits = url, session, observer, pool, limits
        self.callout = callout

    async def post(self, path: str, body: object, **headers: str):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"content-type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
        async with self.session.post(self.url + path, data=data, headers=sent) as answer:
            return answer.status, await answer.json(), answer.headers

    async def get(self, path: str):
        async with self.session.get(self.url + path) as answer:
            return answer.status, await answer.read()


@asynccontextmanager
async def serving(*models, workers: int = 1, max_queued: int = 4, deadline: float = 5.0, **limits: int):
    catalog = Catalog(
        models or [fake_model("m", aliases=("alias",), vocabulary=FakeVocabulary(), max_model_len=200)]
    )
    observer = RecordingObserver()
    pool = TokenizationPool(workers=workers, max_queued=max_queued, deadline_seconds=deadline)
    conversations = Conversations(1 << 20)
    callout = Callout(
        catalog=lambda: catalog,
        pool=pool,
        observer=observer,
        clock=time.perf_counter,
        max_body_bytes=1_000_000,
        conversations=conversations,
    )
    api = RenderApi(catalog=lambda: catalog, pool=pool, callout=callout, conversations=conversations)
    bounds = HttpLimits(**{"max_body_bytes": 100_000, "max_requests": 64, **limits})
    app = application(api, bounds, version="7", ready=lambda: True)
    try:
        async with (
            serve_http(app, "127.0.0.1", 0, drain_seconds=1) as port,
            aiohttp.ClientSession() as session,
        ):
            yield Port(f"http://127.0.0.1:{port}", session, observer, pool, bounds, callout=callout)
    finally:
        pool.close()
