"""Conversations that share prefixes, as token ids; the same for the same seed, whoever serves them.

Every conversation belongs to an application with a system prompt of its own, and every turn begins with all
of the turns before it. Conversations begin at random moments, and turns follow after random pauses.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Conversation", "Shape", "Turn", "best_hit_rate", "conversations"]

FIRST_ID = 10
VOCABULARY = 30_000


@dataclass(frozen=True, slots=True)
class Shape:
    """`*_tokens` are lengths. Conversations begin within `seconds`, at random."""

    seed: int = 1
    conversations: int = 120
    applications: int = 24
    turns: int = 4
    system_tokens: int = 3_000
    user_tokens: tuple[int, int] = (100, 500)
    reply_tokens: tuple[int, int] = (20, 60)
    pause_seconds: tuple[float, float] = (0.5, 3.0)
    seconds: float = 25.0

    @property
    def requests(self) -> int:
        return self.conversations * self.turns


@dataclass(frozen=True, slots=True)
class Turn:
    """`said` is what the user adds; the reply has `reply_tokens` tokens; then the user thinks."""

    said: tuple[int, ...]
    reply_tokens: int
    pause_seconds: float


@dataclass(frozen=True, slots=True)
class Conversation:
    start_seconds: float
    system: tuple[int, ...]
    turns: tuple[Turn, ...]


def conversations(shape: Shape) -> list[Conversation]:
    rng = random.Random(shape.seed)
    systems = [_ids(rng, shape.system_tokens) for _ in range(shape.applications)]
    return [
        Conversation(
            start_seconds=rng.uniform(0, shape.seconds),
            # A few applications have most of the users.
            system=systems[min(int(rng.expovariate(4 / shape.applications)), shape.applications - 1)],
            turns=tuple(
                Turn(
                    said=_ids(rng, rng.randint(*shape.user_tokens)),
                    reply_tokens=rng.randint(*shape.reply_tokens),
                    pause_seconds=rng.uniform(*shape.pause_seconds),
                )
                for _ in range(shape.turns)
            ),
        )
        for _ in range(shape.conversations)
    ]


def best_hit_rate(served: Sequence[Conversation]) -> float:
    """The share of prompt tokens that came before: what one endless cache for all would have had at hand."""
    prompted = known = 0
    systems = set()
    for conversation in sorted(served, key=lambda each: each.start_seconds):
        history = len(conversation.system)
        at_hand = history if conversation.system in systems else 0
        systems.add(conversation.system)
        for turn in conversation.turns:
            prompted += history + len(turn.said)
            known += at_hand
            history += len(turn.said) + turn.reply_tokens
            at_hand = history
    return known / prompted


def _ids(rng: random.Random, count: int) -> tuple[int, ...]:
    return tuple(rng.randrange(FIRST_ID, VOCABULARY) for _ in range(count))
