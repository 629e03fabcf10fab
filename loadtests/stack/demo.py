"""Sends conversations through the chain, and says what Envoy and the workers saw of them."""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import aiohttp
from rich.table import Table

from loadtests.stack.access_log import AccessLogEntry
from loadtests.stack.chain import Chain
from loadtests.stack.client import Reply, send
from loadtests.stack.conversations import Conversation, conversations

__all__ = ["Row", "Summary", "join", "run", "spread", "summarise", "table"]

MAX_TOKENS: Final = 24
# Time for a worker's KV events to reach the router, and far less than people take to write.
THINK_SECONDS: Final = 0.3


@dataclass(frozen=True, slots=True)
class Sent:
    """One request as the client knows it."""

    conversation: str
    turn: int
    streamed: bool
    reply: Reply


@dataclass(frozen=True, slots=True)
class Row:
    """One request as the client, Envoy and the worker saw it.

    `attached` is the token count of the record in Envoy's dynamic metadata, None without a record; `worker`
    is the number of the worker that served, None where none of ours did.
    """

    conversation: str
    turn: int
    streamed: bool
    status: int
    error: str
    attached: int | None
    prompt_tokens: int | None
    cached_tokens: int | None
    worker: int | None
    first_token_seconds: float | None
    total_seconds: float

    @property
    def ok(self) -> bool:
        return self.status == 200 and not self.error and self.prompt_tokens is not None

    @property
    def tokenized(self) -> bool:
        return bool(self.attached)

    @property
    def counts_agree(self) -> bool:
        return self.tokenized and self.attached == self.prompt_tokens

    @property
    def follow_up(self) -> bool:
        return self.turn > 0


@dataclass(frozen=True, slots=True)
class Summary:
    """The demo's last line."""

    requests: int
    ok: int
    tokenized: int
    worker_prompt_tokens_equal: int
    prefix_routed_to_same_worker: int
    errors: int

    def as_json(self) -> str:
        return json.dumps(asdict(self))


def join(
    sent: Iterable[Sent], entries: Mapping[str, AccessLogEntry], workers: Mapping[str, int]
) -> list[Row]:
    """Put together what each side saw of a request, by its request id. `workers`: address -> number."""
    rows = []
    for each in sent:
        reply, entry = each.reply, entries.get(each.reply.request_id)
        rows.append(
            Row(
                conversation=each.conversation,
                turn=each.turn,
                streamed=each.streamed,
                status=reply.status,
                error=reply.error,
                attached=entry.token_count if entry else None,
                prompt_tokens=reply.usage.prompt_tokens if reply.usage else None,
                cached_tokens=reply.usage.cached_tokens if reply.usage else None,
                worker=workers.get(entry.upstream) if entry and entry.upstream else None,
                first_token_seconds=reply.first_token_seconds,
                total_seconds=reply.total_seconds,
            )
        )
    return rows


def summarise(rows: Sequence[Row]) -> tuple[Summary, bool]:
    """The numbers, and whether all held: every request answered, tokenized, and routed to its prefix."""
    before = {(row.conversation, row.turn): row.worker for row in rows}
    follow_ups = [row for row in rows if row.follow_up]
    ok = sum(row.ok for row in rows)
    summary = Summary(
        requests=len(rows),
        ok=ok,
        tokenized=sum(row.tokenized for row in rows),
        worker_prompt_tokens_equal=sum(row.counts_agree for row in rows),
        prefix_routed_to_same_worker=sum(
            row.worker is not None and row.worker == before.get((row.conversation, row.turn - 1))
            for row in follow_ups
        ),
        errors=len(rows) - ok,
    )
    everything = (
        bool(rows)
        and summary.ok == summary.tokenized == summary.worker_prompt_tokens_equal == summary.requests
        and summary.prefix_routed_to_same_worker == len(follow_ups)
    )
    return summary, everything


def spread(rows: Iterable[Row]) -> int:
    """On how many workers conversations began."""
    return len({row.worker for row in rows if not row.follow_up and row.worker is not None})


async def run(chain: Chain, on_sent: Callable[[], None] = lambda: None) -> list[Row]:
    """Begin all conversations at the same time, so that they spread; then take the later turns one by one.

    One by one, because a router weighs load against prefixes: with others in flight it may rightly send a
    turn away from its prefix, and the demo could not tell that from a mistake.
    """
    talks = conversations()
    sent: list[Sent] = []
    async with aiohttp.ClientSession() as session:

        async def take(conversation: Conversation, turn: int) -> None:
            sent.append(await _take(session, chain, conversation, turn))
            on_sent()

        await asyncio.gather(*(take(conversation, 0) for conversation in talks))
        for turn in range(1, max(conversation.turns for conversation in talks)):
            await asyncio.sleep(THINK_SECONDS)
            for conversation in talks:
                if turn < conversation.turns:
                    await take(conversation, turn)
    order = {conversation.name: position for position, conversation in enumerate(talks)}
    sent.sort(key=lambda each: (order[each.conversation], each.turn))
    # Waiting for Envoy's log blocks, and nothing else is going on.
    entries = chain.access_log.wait_for({each.reply.request_id for each in sent})
    workers = {str(worker.address): worker.index for worker in chain.workers}
    return join(sent, entries, workers)


async def _take(session: aiohttp.ClientSession, chain: Chain, conversation: Conversation, turn: int) -> Sent:
    """Send one turn; every second one is streamed."""
    streamed = turn % 2 == 1
    body: dict[str, object] = {
        "model": chain.options.model.name,
        "max_tokens": MAX_TOKENS,
        **conversation.body(turn),
    }
    if streamed:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    reply = await send(session, chain.url + conversation.path, body)
    conversation.heard(turn, reply.text)
    return Sent(conversation.name, turn, streamed, reply)


def table(rows: Iterable[Row]) -> Table:
    """For people, one line per request: beside what Envoy carried stands what the worker counted."""
    shown = Table(header_style="bold")
    shown.add_column("conversation")
    shown.add_column("turn", justify="right")
    shown.add_column("reply")
    shown.add_column("status", justify="right")
    shown.add_column("ids attached", justify="right")
    shown.add_column("prompt tokens\n(worker)", justify="right")
    shown.add_column("worker", justify="right")
    shown.add_column("cached\ntokens", justify="right")
    shown.add_column("first token\nms", justify="right")
    shown.add_column("total\nms", justify="right")
    for row in rows:
        shown.add_row(
            row.conversation,
            str(row.turn + 1),
            "streamed" if row.streamed else "whole",
            str(row.status) if row.ok else f"[red]{row.status}[/red]",
            _number(row.attached),
            _number(row.prompt_tokens),
            _number(row.worker),
            _number(row.cached_tokens),
            _milliseconds(row.first_token_seconds),
            _milliseconds(row.total_seconds),
            end_section=False,
        )
    return shown


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f}"
