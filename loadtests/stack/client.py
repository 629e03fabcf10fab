"""A client of OpenAI-compatible servers that notes usage, and when the first token came."""

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import aiohttp

from loadtests.stack.sse import EventParser

__all__ = ["Reply", "Usage", "send"]

TIMEOUT = aiohttp.ClientTimeout(total=120)
REQUEST_ID_HEADER = "x-request-id"


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Self:
        details = document.get("prompt_tokens_details") or {}
        return cls(
            prompt_tokens=int(document["prompt_tokens"]),
            completion_tokens=int(document.get("completion_tokens") or 0),
            cached_tokens=int(details.get("cached_tokens") or 0),
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. `status` 0 means that there was no HTTP response; `error` then says why.

    `first_token_seconds` is None unless the reply was streamed.
    """

    request_id: str
    status: int
    text: str
    usage: Usage | None
    first_token_seconds: float | None
    total_seconds: float
    error: str = ""


async def send(session: aiohttp.ClientSession, url: str, body: Mapping[str, object]) -> Reply:
    """POST a chat or completion request. Never raises for what a server or a network can do."""
    request_id = str(uuid.uuid4())
    started = time.perf_counter()

    def failed(status: int, error: str) -> Reply:
        return Reply(request_id, status, "", None, None, time.perf_counter() - started, error)

    try:
        async with session.post(
            url, json=body, headers={REQUEST_ID_HEADER: request_id}, timeout=TIMEOUT
        ) as response:
            if response.status != 200:
                return failed(response.status, (await response.text())[:500])
            if response.content_type == "text/event-stream":
                return await _streamed(response, request_id, started)
            document = await response.json()
            return Reply(
                request_id=request_id,
                status=response.status,
                text=_text(document["choices"][0], "message"),
                usage=Usage.parse(document["usage"]) if document.get("usage") else None,
                first_token_seconds=None,
                total_seconds=time.perf_counter() - started,
            )
    except (aiohttp.ClientError, TimeoutError) as error:
        return failed(0, f"{type(error).__name__}: {error}")
    except (ValueError, KeyError, IndexError, TypeError) as error:
        return failed(200, f"not an OpenAI response: {type(error).__name__}: {error}")


async def _streamed(response: aiohttp.ClientResponse, request_id: str, started: float) -> Reply:
    parser = EventParser()
    texts: list[str] = []
    usage: Usage | None = None
    first: float | None = None
    done = False
    async for chunk in response.content.iter_any():
        for event in parser.feed(chunk):
            if event == "[DONE]":
                done = True
                continue
            document = json.loads(event)
            text = "".join(_text(choice, "delta") for choice in document.get("choices", ()))
            if text and first is None:
                first = time.perf_counter() - started
            texts.append(text)
            if document.get("usage"):
                usage = Usage.parse(document["usage"])
    return Reply(
        request_id=request_id,
        status=response.status,
        text="".join(texts),
        usage=usage,
        first_token_seconds=first,
        total_seconds=time.perf_counter() - started,
        error="" if done else "the stream ended early",
    )


def _text(choice: Mapping[str, Any], part: str) -> str:
    """The text of a chat choice (message or delta) or of a completion choice."""
    text = choice[part].get("content") if part in choice else choice.get("text")
    return text or ""
