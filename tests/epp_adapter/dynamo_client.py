"""A client of a front end in direct mode, and routers over the workers behind it."""

import asyncio
import json
import urllib.error
import urllib.request

from epp_adapter.routing.dynamo_runtime import DynamoOptions, DynamoRuntime
from epp_adapter.routing.strategy import RoutingRequest
from extproc.events import Termination
from extproc.token_metadata import TokenIds
from tests.epp_adapter.dynamo_stack import BLOCK_SIZE

OPTIONS = DynamoOptions("file", "tcp", "nats", connect_seconds=2)
SETTLE_SECONDS = 8.0


async def router_of(runtime: DynamoRuntime, endpoint: str, ranks: int, config=None):
    """A router that has met all data-parallel ranks of its workers."""
    router = runtime.router(endpoint, BLOCK_SIZE, config or {})
    async with asyncio.timeout(SETTLE_SECONDS):
        while len(await router._router.get_potential_loads([1])) < ranks:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return router


def ids(seed: int, count: int = 320) -> list[int]:
    return [2 + (seed * 7919 + position * (seed + 3)) % 380 for position in range(count)]


class Client:
    """Sends a picked request as the chain would: ids in nvext, the pick's headers, and the pin."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.count = 0

    def request(self, token_ids: list[int]) -> RoutingRequest:
        self.count += 1
        return RoutingRequest(f"frontend-{id(self)}-{self.count}", "tiny", TokenIds.pack(token_ids))

    async def send(self, headers, token_ids: list[int]) -> tuple[int, dict]:
        return await asyncio.to_thread(self._send, dict(headers), token_ids)

    def _send(self, headers: dict[str, str], token_ids: list[int]) -> tuple[int, dict]:
        body = {"model": "tiny", "max_tokens": 3, "messages": [{"role": "user", "content": "-"}]}
        body["nvext"] = {"token_data": token_ids}
        headers |= {"content-type": "application/json"}
        request = urllib.request.Request(
            f"{self.url}/v1/chat/completions", json.dumps(body).encode(), headers
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)


def pinned(pick) -> dict[str, str]:
    instance = pick.destination.first.dynamo_instance_id
    return {**pick.request_headers, "x-dynamo-worker-instance-id": str(instance)}


def cached(answer: dict) -> int:
    return answer["usage"]["prompt_tokens_details"]["cached_tokens"]


async def picked_with_cache(strategy, client: Client, token_ids: list[int], candidates):
    """A finished pick of a prompt, once the worker's event that it holds the prompt has arrived."""
    async with asyncio.timeout(SETTLE_SECONDS):
        while True:
            pick = await strategy.pick(client.request(token_ids), candidates)
            await pick.finished(Termination.ENDED)
            if pick.cached_tokens:
                return pick
