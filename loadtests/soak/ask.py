"""What a soak sends, drawn from a seed: sizes, paths and manners of all kinds."""

import json
import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["Ask", "Manner", "draw"]

_SIZES: Final = ((1, 40), (200, 200), (4_000, 150), (40_000, 60), (300_000, 8), (1_000_000, 2))
_EVENTS: Final = 12


class Manner(StrEnum):
    """How a client behaves."""

    PLAIN = "plain"  # HTTP/1.1 on a kept connection
    HTTP2 = "http/2"
    CHUNKED = "chunked"  # no length, in pieces
    TRAILERS = "trailers"  # chunked, with trailers behind it
    SLOW = "slow"  # a pause in the middle of the body
    STREAM = "stream"  # reads a stream of events
    LEAVES_SENDING = "leaves while sending"
    LEAVES_READING = "leaves while reading"

    @property
    def leaves(self) -> bool:
        return self in (Manner.LEAVES_SENDING, Manner.LEAVES_READING)


_WEIGHTS: Final = {
    Manner.PLAIN: 50, Manner.HTTP2: 20, Manner.CHUNKED: 8, Manner.TRAILERS: 5, Manner.SLOW: 3,
    Manner.STREAM: 8, Manner.LEAVES_SENDING: 3, Manner.LEAVES_READING: 3,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ask:
    """`number` names it; `events` is how many a streamed answer has, 0 for an answer in one piece."""

    number: int
    manner: Manner
    path: str
    body: bytes
    events: int = 0

    @property
    def name(self) -> str:
        return f"soak-{self.number}"


def draw(number: int, model: str, seed: int) -> Ask:
    """Request `number`: the same for the same seed. Half are chats, which are tokenized, half any bytes."""
    source = random.Random(f"{seed} {number}")
    (manner,) = source.choices(list(_WEIGHTS), weights=list(_WEIGHTS.values()))
    (size,) = source.choices([size for size, _ in _SIZES], weights=[weight for _, weight in _SIZES])
    size = max(1, round(size * source.uniform(0.5, 1.5)))
    if source.random() < 0.5:
        path, body = "/v1/chat/completions", _chat(source, model, size)
    else:
        path, body = "/anything", source.randbytes(size)
    streams = manner in (Manner.STREAM, Manner.LEAVES_READING)
    return Ask(number, manner, path, body, _EVENTS if streams else 0)


def _chat(source: random.Random, model: str, size: int) -> bytes:
    words = " ".join(f"{source.getrandbits(24):x}" for _ in range(max(1, size // 7)))
    turns = [{"role": "user", "content": f"\u00fc \u6f22 {words}"}]
    if source.random() < 0.3:
        turns += [{"role": "assistant", "content": "yes"}, {"role": "user", "content": "and?"}]
    return json.dumps({"model": model, "messages": turns}, ensure_ascii=source.random() < 0.5).encode()
