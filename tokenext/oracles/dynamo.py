"""NVIDIA Dynamo's frontend: the annotation `query_instance_id:` shows ids and worker, and computes nothing.

Seen at Dynamo 1.6.1 with the KV router and at least one worker (facts/dynamo.md).
"""

from typing import Final

import orjson

from extproc.verdict import JsonValue
from tokenext.openai import Api
from tokenext.oracle import Answer, OracleError, Refusal
from tokenext.oracles.http import EngineClient, token_ids

__all__ = ["DynamoOracle"]

_QUERY: Final[JsonValue] = {"annotations": ["query_instance_id:"]}
_NOT_FOUND: Final = 404


class DynamoOracle:
    def __init__(self, client: EngineClient) -> None:
        self._client = client

    async def ids(self, api: Api, body: bytes) -> Answer:
        reply = await self._client.post(api.value, _with_query(body))
        if reply.status == _NOT_FOUND:
            raise OracleError("the frontend does not know the model (404); see its /v1/models")
        if reply.document is None:
            return Refusal(reply.status)
        extension = reply.document.get("nvext") if isinstance(reply.document, dict) else None
        ids = token_ids(extension.get("token_ids")) if isinstance(extension, dict) else None
        if ids is None:
            raise OracleError("the answer shows no ids: is it a Dynamo frontend with --router-mode kv?")
        return ids


def _with_query(body: bytes) -> bytes:
    # As text, because a body may hold what no JSON library writes again, such as half a surrogate pair.
    return b'{"nvext":' + orjson.dumps(_QUERY) + b"," + body.lstrip().removeprefix(b"{")
