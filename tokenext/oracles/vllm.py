"""vLLM: its render endpoints show what a request becomes; where they are not served, /tokenize does for most.

vLLM 0.32: POST /v1/chat/completions/render and /v1/completions/render need --enable-scale-out and take the
request as it is (entrypoints/scale_out/render). /tokenize needs no flag and reads fewer fields
(entrypoints/serve/tokenize/protocol.py).
"""

from http import HTTPStatus
from typing import Final

import orjson

from extproc.verdict import JsonValue
from tokenext.openai import Api
from tokenext.oracle import Answer, NotAsked, OracleError, Refusal
from tokenext.oracles.http import EngineClient, Reply, token_ids

__all__ = ["VllmOracle"]

_TOKENIZE: Final = "/tokenize"
# What decides a prompt and is read by /tokenize; the rest of what decides one it would pass over in silence.
_READ_BY_TOKENIZE: Final = frozenset(
    {
        *("model", "messages", "prompt", "tools", "chat_template_kwargs"),
        *("add_generation_prompt", "continue_final_message", "add_special_tokens"),
    }
)
_DECIDES_NOTHING: Final = frozenset({"max_tokens", "temperature", "top_p", "seed", "stop", "stream", "user"})


class VllmOracle:
    """Asks the render endpoints until it learns that they are not there."""

    def __init__(self, client: EngineClient) -> None:
        self._client = client
        self._renders = True

    async def ids(self, api: Api, body: bytes) -> Answer:
        if self._renders:
            reply = await self._client.post(f"{api.value}/render", body)
            if reply.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
                return _answer(reply)
            # An unknown model is a 404 too: /tokenize will tell.
            self._renders = False
        try:
            fields = orjson.loads(body)
        except orjson.JSONDecodeError:
            return NotAsked()
        if not fields.keys() <= _READ_BY_TOKENIZE | _DECIDES_NOTHING:
            return NotAsked()
        asked = {name: value for name, value in fields.items() if name in _READ_BY_TOKENIZE}
        reply = await self._client.post(_TOKENIZE, orjson.dumps(asked))
        if reply.status == HTTPStatus.NOT_FOUND:
            raise OracleError("the engine does not know the model, or is no vLLM (404); see its /v1/models")
        return _answer(reply)


def _answer(reply: Reply) -> Answer:
    if reply.document is None:
        return Refusal(reply.status)
    ids = token_ids(_shown(reply.document))
    if ids is None:
        raise OracleError("the answer shows no ids: is it vLLM?")
    return ids


def _shown(document: JsonValue) -> JsonValue:
    if isinstance(document, list):  # the prompts of a completion; older versions: [conversation, prompts]
        last = document[-1] if document else None
        return _shown(last)
    if isinstance(document, dict):
        return next(
            (document[name] for name in ("token_ids", "prompt_token_ids", "tokens") if name in document), None
        )
    return None
