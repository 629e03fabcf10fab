"""Whatever is tokenized, the event loop goes on: other requests must not feel a long one."""

import asyncio
import json
import time
from datetime import UTC, datetime

from extproc.events import Headers, RequestReady, StaticMetadata
from loadtests.stack.model_source import DEFAULT_MODEL
from tokenext.conversations import Conversations
from tokenext.exchange import ExchangeOptions, OnOversize, TokenizeExchange
from tokenext.loading import load_catalog
from tokenext.observer import RecordingObserver
from tokenext.pool import TokenizationPool
from tokenext.prefix_tree import PrefixTree
from tokenext.settings import ModelSettings, Settings

MEGABYTE = 1_000_000
ROUNDS = 8
LONGEST_GAP_SECONDS = 0.02


def body(number: int) -> bytes:
    """A megabyte that nobody has seen."""
    words = f"{number} the lighthouse keeper wrote down every ship and its cargo; "
    text = (words * (MEGABYTE // len(words) + 1))[:MEGABYTE]
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()


async def longest_gap(exchange: TokenizeExchange, text: bytes) -> float:
    """How long the loop stood still while one body was tokenized."""
    request = RequestReady(
        Headers({":method": "POST", ":path": "/v1/chat/completions"}),
        text,
        StaticMetadata({}),
        body_replaceable=True,
    )
    deciding = asyncio.create_task(exchange.decide(request))
    gaps = []
    last = time.perf_counter()
    while not deciding.done():
        await asyncio.sleep(0.001)
        gaps.append(time.perf_counter() - last)
        last = time.perf_counter()
    verdict = await deciding
    assert verdict.metadata
    return max(gaps)


async def test_the_event_loop_ticks_on_while_a_megabyte_is_tokenized():
    entry = ModelSettings(name="m", source=str(DEFAULT_MODEL), handoff="dynamo")
    settings = Settings(listen="127.0.0.1:1", models=(entry,))
    tree = PrefixTree(settings.prefix_cache.budget_bytes)
    catalog = load_catalog(settings, source="test", now=lambda: datetime.now(UTC), prefix_tree=tree)
    pool = TokenizationPool(workers=1, max_queued=8, deadline_seconds=60, max_inline_bytes=96 * 1024)
    exchange = TokenizeExchange(
        catalog=lambda: catalog,
        pool=pool,
        observer=RecordingObserver(),
        options=ExchangeOptions("tokenext", OnOversize.PASS),
        clock=time.perf_counter,
        conversations=Conversations(32 << 20),
    )
    try:
        gaps = [await longest_gap(exchange, body(number)) for number in range(ROUNDS)]
    finally:
        pool.close()
    # A machine that is busy with something else stops us, too, but not every time.
    assert min(gaps) < LONGEST_GAP_SECONDS, gaps
