"""Prompts of any length in plain English, repeatable by seed, and never the same twice for two seeds.

The text is the language reference that Python ships (`pydoc_data.topics`), its sentences shuffled. Nothing
has to be fetched or kept.
"""

import random
import re
from functools import cache
from pydoc_data.topics import topics
from typing import Final

__all__ = ["Conversation", "chat_body", "prose"]

_SENTENCE_END: Final = re.compile(r"(?<=[.!?:])\s+")
TURN_CHARS: Final = 600


@cache
def _sentences() -> tuple[str, ...]:
    text = " ".join(topics.values())
    return tuple(each for each in _SENTENCE_END.split(text) if 20 < len(each) < 400)


def prose(seed: int, chars: int) -> str:
    """`chars` characters of shuffled sentences. The seed stands in front: no two seeds share a prefix."""
    draw = random.Random(seed)
    pieces = [f"{draw.getrandbits(64):016x}"]
    length = len(pieces[0])
    sentences = _sentences()
    while length < chars:
        piece = draw.choice(sentences)
        pieces.append(piece)
        length += len(piece) + 1
    return " ".join(pieces)[:chars]


class Conversation:
    """A chat of about `chars` characters; `turn` asks for its next turn, and must be called in order."""

    def __init__(self, seed: int, chars: int) -> None:
        self._seed = seed
        turns = max(1, chars // (2 * TURN_CHARS))
        self._messages = [{"role": "system", "content": prose(seed, min(TURN_CHARS, chars))}]
        for number in range(turns):
            self._say(number)

    def _say(self, number: int) -> None:
        for role in ("user", "assistant"):
            text = prose(hash((self._seed, number, role == "user")) & 0xFFFFFFFF, TURN_CHARS)
            self._messages.append({"role": role, "content": text})

    def turn(self, number: int) -> list[dict[str, str]]:
        """The messages of the `number`th further turn: everything said so far and a new question."""
        base = len(self._messages)
        self._say(1_000_000 + number)
        return [*self._messages[:base], self._messages[base]]


def chat_body(model: str, messages: list[dict[str, str]], **fields: object) -> dict[str, object]:
    return {"model": model, "messages": messages, "max_tokens": 1, **fields}
