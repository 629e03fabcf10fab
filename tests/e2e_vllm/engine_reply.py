"""What vLLM says of a request's prompt, whichever API and whether streamed or not.

With `return_token_ids: true` vLLM echoes the ids of the prompt that its engine ran: chats at the top,
completions in each choice, streams in their first events (protocol.py of both). Its other APIs only count.
"""

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from loadtests.stack.sse import EventParser

__all__ = ["EngineReply", "ask", "read"]

Ids = tuple[int, ...]

TIMEOUT: Final = aiohttp.ClientTimeout(total=180)
_ERROR_CHARACTERS: Final = 300


@dataclass(frozen=True, slots=True)
class EngineReply:
    """`prompts` has the ids of each prompt that the engine ran, the same ones once.

    `prompt_tokens` and `cached_tokens` are of its usage, None where it has none. `status` 0 means that there
    was no HTTP response; `error` then says why, and else is the server's message.
    """

    request_id: str
    status: int
    prompts: tuple[Ids, ...] = ()
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    error: str = ""


async def ask(session: aiohttp.ClientSession, url: str, body: str) -> EngineReply:
    """POST a body as it is. Never raises for what a server or a network can do."""
    request_id = str(uuid.uuid4())
    headers = {"content-type": "application/json", "x-request-id": request_id}
    try:
        async with session.post(url, data=body.encode(), headers=headers, timeout=TIMEOUT) as response:
            content = await response.read()
            return read(request_id, response.status, response.content_type, content)
    except (aiohttp.ClientError, TimeoutError) as error:
        return EngineReply(request_id, 0, error=f"{type(error).__name__}: {error}")


def read(request_id: str, status: int, content_type: str, content: bytes) -> EngineReply:
    """A whole response as a reply."""
    try:
        if content_type == "text/event-stream":
            events = EventParser().feed(content)
            documents = [json.loads(event) for event in events if event != "[DONE]"]
        else:
            documents = [json.loads(content)]
        problem = next((each["error"] for each in documents if each.get("error")), None)
        if status != 200 or problem is not None:
            return EngineReply(request_id, status, error=_message(problem, content))
        usage = next((each["usage"] for each in reversed(documents) if each.get("usage")), {})
        details = usage.get("prompt_tokens_details") or {}
        return EngineReply(
            request_id,
            status,
            prompts=tuple(dict.fromkeys(_prompts(documents))),
            prompt_tokens=_prompt_tokens(usage),
            cached_tokens=details.get("cached_tokens"),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return EngineReply(
            request_id, status, error=f"not an OpenAI response: {type(error).__name__}: {error}"
        )


def _prompt_tokens(usage: Mapping[str, Any]) -> int | None:
    """Of chats and completions; of responses; of Anthropic's messages, which count cached tokens apart."""
    if "prompt_tokens" in usage:
        return int(usage["prompt_tokens"])
    if "input_tokens" not in usage:
        return None
    apart = ("cache_creation_input_tokens", "cache_read_input_tokens")
    return int(usage["input_tokens"]) + sum(usage.get(name) or 0 for name in apart)


def _prompts(documents: Iterable[Mapping[str, Any]]) -> Iterable[Ids]:
    for document in documents:
        holders = (document, *sorted(document.get("choices") or (), key=lambda choice: choice["index"]))
        for holder in holders:
            if holder.get("prompt_token_ids") is not None:
                yield tuple(holder["prompt_token_ids"])


def _message(problem: Any, content: bytes) -> str:
    if isinstance(problem, dict) and isinstance(problem.get("message"), str):
        return problem["message"][:_ERROR_CHARACTERS]
    return content[:_ERROR_CHARACTERS].decode("utf-8", "replace")
