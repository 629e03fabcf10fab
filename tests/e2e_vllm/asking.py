"""Sends each request twice, through the chain and past it, and puts together what each side saw of it."""

import asyncio
import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp

from extproc import token_metadata
from extproc.wellknown import RECORD_KEY, RECORD_NAMESPACE
from loadtests.stack.chain import Chain, ChainOptions, Upstream
from loadtests.stack.envoy_config import TcpAddress
from loadtests.stack.model_source import Model
from tests.e2e_vllm.comparison import Attached, Seen
from tests.e2e_vllm.engine_reply import EngineReply, ask
from tests.e2e_vllm.model import NAME
from tests.e2e_vllm.request import Request

__all__ = ["ask_both_ways", "chain_options", "conversation"]

CONCURRENT: Final = 6  # of which all prompts fit into one batch of vllm_server.FLAGS
LOG_SECONDS: Final = 20.0
NO_RECORD: Final = Attached(None, exact=False, handed_over=False, reason="no line in tokenext's log")


def chain_options(source: Path, vllm: TcpAddress) -> ChainOptions:
    """The chain in front of a vLLM, with the model of `source` handed over to it.

    Time limits are generous: this is about ids, on a machine that may be busy.
    """
    return ChainOptions(
        model=Model(NAME, source),
        upstream=Upstream.EXTERNAL,
        external=(vllm,),
        handoff="vllm",
        tokenext_settings={"limits": {"deadline_ms": 30_000}},
        tokenext_timeout_seconds=60.0,
        # The record is compared, as it travelled.
        epp_settings={"tokenization": {"take_ids_out": False}},
        access_log_fields={"record": f"%DYNAMIC_METADATA({RECORD_NAMESPACE}:{RECORD_KEY})%"},
    )


async def ask_both_ways(
    chain: Chain, vllm_url: str, requests: Sequence[Request], on_progress: Callable[[int], None]
) -> list[Seen]:
    """Every second request goes past the chain first, so that neither way always meets a warm cache."""
    places = asyncio.Semaphore(CONCURRENT)
    done = 0

    async def one(
        session: aiohttp.ClientSession, number: int, request: Request
    ) -> tuple[EngineReply, EngineReply]:
        nonlocal done
        ways = [
            (f"{chain.url}{request.path}", request.sent),
            (f"{vllm_url}{request.path}", request.past),
        ]
        async with places:
            order = (0, 1) if number % 2 == 0 else (1, 0)
            replies = {way: await ask(session, *ways[way]) for way in order}
        done += 1
        on_progress(done)
        return replies[0], replies[1]

    async with aiohttp.ClientSession() as session:
        pairs = await asyncio.gather(*(one(session, *each) for each in enumerate(requests)))
    attached = await asyncio.to_thread(_attached, chain, [reply.request_id for reply, _ in pairs])
    return [
        Seen(request, attached[through.request_id], through, past, chain_first=number % 2 == 0)
        for number, (request, (through, past)) in enumerate(zip(requests, pairs, strict=True))
    ]


async def conversation(url: str, turns: int, text: str) -> list[EngineReply]:
    """A conversation through the chain that grows by two messages a turn."""
    messages: list[dict[str, str]] = []
    replies = []
    async with aiohttp.ClientSession() as session:
        for turn in range(turns):
            messages.append({"role": "user", "content": f"Turn {turn}. {text}"})
            body = {"model": NAME, "messages": messages, "max_tokens": 2, "return_token_ids": True}
            replies.append(await ask(session, f"{url}/v1/chat/completions", json.dumps(body)))
            messages.append({"role": "assistant", "content": f"Answer {turn}. {text}"})
    return replies


def _attached(chain: Chain, request_ids: Collection[str]) -> Mapping[str, Attached]:
    """Envoy's access log has the record as it travelled, tokenext's own log what became of the request."""
    entries = chain.access_log.wait_for(request_ids, seconds=LOG_SECONDS)
    log = chain.processes["tokenext-0"].log
    deadline = time.monotonic() + LOG_SECONDS
    while len(lines := _exchanges(log, request_ids)) < len(request_ids) and time.monotonic() < deadline:
        time.sleep(0.1)
    found = {}
    for request_id in request_ids:
        line = lines.get(request_id)
        record = entries[request_id].extra.get("record") if request_id in entries else None
        found[request_id] = NO_RECORD if line is None else _as_attached(line, record)
    return found


def _exchanges(log: Path, request_ids: Collection[str]) -> dict[str, dict[str, Any]]:
    wanted = set(request_ids)
    lines: Iterable[dict[str, Any]] = (
        json.loads(line)
        for line in log.read_text("utf-8").splitlines()
        if line.startswith("{") and line.endswith("}")
    )
    return {line["request_id"]: line for line in lines if line.get("request_id") in wanted}


def _as_attached(line: Mapping[str, Any], record: object) -> Attached:
    reason = str(line.get("reason", ""))
    if record is None:
        return Attached(None, exact=False, handed_over=bool(line["handed_off"]), reason=reason)
    decoded = token_metadata.decode(record)
    return Attached(
        ids=tuple(decoded.token_ids.as_array()),
        exact=decoded.engine_exact,
        handed_over=bool(line["handed_off"]),
        reason=decoded.reason or reason,
    )
