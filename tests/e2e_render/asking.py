"""Sends every request to both servers, and tells how they answered."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any, Final

import aiohttp
from yarl import URL

from tests.e2e_render.asked import Asked, Reply

__all__ = ["ask_both"]

CONCURRENT: Final = 4
SECONDS: Final = 120.0
_COMPARED_HEADERS: Final = ("allow", "location", "retry-after", "x-request-id")

Pair = tuple[Reply, Reply]


async def ask_both(
    theirs: str, ours: str, asked: Sequence[Asked], on_progress: Callable[[int], None]
) -> list[Pair]:
    """Replies of the server at the URL `theirs`, and at `ours`, in the order of the requests."""
    places = asyncio.Semaphore(CONCURRENT)
    done = 0
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:

        async def both(each: Asked) -> Pair:
            nonlocal done
            async with places:
                pair = await _ask(session, theirs, each), await _ask(session, ours, each)
            done += 1
            on_progress(done)
            return pair

        return await asyncio.gather(*map(both, asked))


async def _ask(session: aiohttp.ClientSession, url: str, asked: Asked) -> Reply:
    headers = dict(asked.headers) if asked.body is not None else {}
    async with session.request(
        asked.method,
        URL(url + asked.path, encoded=True),
        data=asked.body,
        headers=headers,
        allow_redirects=False,
        skip_auto_headers=("content-type",),
    ) as answer:
        text = await answer.read()
        shown = {
            name: answer.headers[name].replace(url, "")
            for name in _COMPARED_HEADERS
            if name in answer.headers
        }
        kind = answer.headers.get("content-type", "").partition(";")[0]
        return Reply(answer.status, _value(text), {**shown, "content-type": kind})


def _value(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.decode("utf-8", "replace")
