"""Replay of a trace: who asked when, and how much of it had been asked before.

The form is that of the Mooncake traces: one JSON object a line, with `timestamp` in milliseconds,
`input_length` and `output_length` in tokens, and `hash_ids`. Each hash id stands for the same 512 tokens
wherever it stands, so a text of a fixed length is made for each: equal leading ids give equal leading text,
and so a cached prefix.
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec

from loadtests.load.corpus import Corpus
from loadtests.load.workloads import CHAT_PATH, Ask

__all__ = ["BLOCK_TOKENS", "Entry", "TraceError", "asks", "read"]

BLOCK_TOKENS: Final = 512
_Count = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]


class TraceError(ValueError):
    """A trace that cannot be replayed; the message names the file and the line."""


class Entry(msgspec.Struct, frozen=True):
    """`timestamp` is in milliseconds since the trace began, never falling from line to line."""

    timestamp: Annotated[float, msgspec.Meta(ge=0)]
    input_length: _Count
    output_length: _Count
    hash_ids: tuple[int, ...]


def read(path: Path) -> tuple[Entry, ...]:
    """Raises TraceError."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror}") from None
    entries: list[Entry] = []
    decoder = msgspec.json.Decoder(Entry)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        try:
            entry = decoder.decode(line)
        except msgspec.MsgspecError as error:
            raise TraceError(f"{where}: {error}") from None
        needed = -(-entry.input_length // BLOCK_TOKENS)
        if len(entry.hash_ids) != needed:
            raise TraceError(
                f"{where}: {entry.input_length} tokens are {needed} blocks of {BLOCK_TOKENS}, "
                f"and hash_ids has {len(entry.hash_ids)}"
            )
        if entries and entry.timestamp < entries[-1].timestamp:
            raise TraceError(f"{where}: its timestamp is before that of the line above it")
        entries.append(entry)
    if not entries:
        raise TraceError(f"{path}: has no line")
    return tuple(entries)


def asks(
    entries: Sequence[Entry],
    corpus: Corpus,
    *,
    seed: int,
    speed: float = 1.0,
    chars_per_token: float = 4.5,
    max_tokens: int | None = None,
) -> Iterator[Ask]:
    """The requests of a trace, each with the second it is due; `speed` 2 sends them in half the time.

    `max_tokens` cuts long replies short.
    """
    block_chars = round(BLOCK_TOKENS * chars_per_token)
    for entry in entries:
        blocks = (_block(number, corpus, seed, block_chars) for number in entry.hash_ids)
        text = "".join(blocks)[: round(entry.input_length * chars_per_token)]
        wanted = entry.output_length if max_tokens is None else min(entry.output_length, max_tokens)
        yield Ask(
            name="trace",
            path=CHAT_PATH,
            body={
                "messages": [{"role": "user", "content": text}],
                "max_tokens": wanted,
                "stream": True,
                "stream_options": {"include_usage": True},
            },
            think_seconds=0.0,
            due_seconds=entry.timestamp / 1e3 / speed,
        )


def _block(number: int, corpus: Corpus, seed: int, chars: int) -> str:
    draw = random.Random(f"{seed} block {number}")
    pieces = [f"{draw.getrandbits(32):08x}"]
    length = len(pieces[0])
    while length < chars:
        pieces.append(draw.choice(corpus.texts))
        length += len(pieces[-1]) + 1
    return f"{' '.join(pieces)[: chars - 1]} "
