"""What is sent: requests of a size in tokens, first-seen or as turns of conversations seen before."""

import json
from dataclasses import dataclass
from typing import Final

from loadtests.bench.prose import Conversation, chat_body, prose

__all__ = ["KINDS", "Ask", "workload"]

KINDS: Final = ("unique", "multi-turn")
# A conversation's first turn shows it to the chain; then so many count. Few, so that it keeps about its size.
TURNS_COUNTED: Final = 5


@dataclass(frozen=True, slots=True)
class Ask:
    """A request body, and whether its answer counts."""

    body: bytes
    counts: bool = True


def workload(
    model: str, kind: str, tokens: int, count: int, *, chars_per_token: float, **fields: object
) -> list[Ask]:
    """Two requests to warm up, then `count` that count, each of about `tokens` tokens.

    `unique`: prompts that nobody has seen. `multi-turn`: conversations whose turns up to now were all seen.
    """
    chars = round(tokens * chars_per_token)

    def ask(messages: list[dict[str, str]], *, counts: bool) -> Ask:
        return Ask(json.dumps(chat_body(model, messages, **fields)).encode(), counts)

    if kind == "unique":
        return [
            ask([{"role": "user", "content": prose(tokens * 31 + number, chars)}], counts=number >= 2)
            for number in range(count + 2)
        ]
    asks = [ask(Conversation(tokens - 1, chars).turn(0), counts=False)]
    for number in range(-(-count // TURNS_COUNTED)):
        talk = Conversation(tokens * 1_009 + number, chars)
        turns = min(TURNS_COUNTED, count - number * TURNS_COUNTED)
        asks += [ask(talk.turn(turn), counts=turn > 0) for turn in range(turns + 1)]
    return asks
