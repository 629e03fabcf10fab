"""The seam to whoever tokenizes on demand (tokenext.v1.Tokenization, proto/README.md), and its fake.

`extproc.tokenization_client` asks a tokenext by gRPC.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from extproc.token_metadata import Kind, TokenIds, TokenRecord

__all__ = [
    "MAX_PROMPTS",
    "UNREADABLE",
    "FakeTokenization",
    "NoRecord",
    "Prompt",
    "Tokenization",
    "TokenizationError",
    "TokenizationFault",
    "check_call",
]

MAX_PROMPTS: Final = 64  # of a call (tokenization.proto)
# The one reason that tokenext does not send: a record came, and is not to be trusted.
UNREADABLE: Final = "unreadable_record"


class TokenizationFault(StrEnum):
    """Why a call brought nothing; safe as a metric label."""

    DEADLINE = "deadline"
    UNAVAILABLE = "unavailable"  # nobody answers at the address, or the client is closed
    FAILED = "failed"  # any other error of the peer, or an answer that makes no sense


class TokenizationError(Exception):
    """A call that brought nothing: go on without ids. The message holds nothing of a prompt."""

    def __init__(self, fault: TokenizationFault, detail: str) -> None:
        super().__init__(f"{fault}: {detail}")
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Prompt:
    """One HTTP request to a model server: its path (a query is ignored) and its body as it came. `model`
    takes the place of the body's own; "" keeps it.
    """

    path: str
    body: bytes
    model: str = ""


@dataclass(frozen=True, slots=True)
class NoRecord:
    """`reason` is a word of proto/README.md's list, which may grow, or UNREADABLE."""

    reason: str


class Tokenization(Protocol):
    """Turns requests into token records. Implementations pass tests/extproc/test_tokenization_client.py."""

    async def tokenize(
        self, prompts: Sequence[Prompt], *, deadline_seconds: float
    ) -> list[TokenRecord | NoRecord]:
        """One answer for each prompt, in their order; one without a record does not fail the others.

        It is one call, whatever the number of prompts: they share its deadline and its error. So more than
        MAX_PROMPTS are refused and not split: who asks for thousands is to choose how many of them wait in
        tokenext's queue at a time, in front of everybody else's.

        `deadline_seconds` is from now on; nothing is left of 0 and below. May be cancelled, which stops the
        work at the other end. Raises TokenizationError, and ValueError as `check_call` does.
        """
        ...


def check_call(prompts: Sequence[Prompt], deadline_seconds: float) -> None:
    """Raises ValueError for what is no call: no prompts, more than MAX_PROMPTS, no deadline."""
    if not 0 < len(prompts) <= MAX_PROMPTS:
        raise ValueError(f"a call carries 1 to {MAX_PROMPTS} prompts, this one {len(prompts)}")
    if not math.isfinite(deadline_seconds):
        raise ValueError("a call needs a deadline")


class FakeTokenization:
    """One id per byte of the body, `no_body` where it is empty, or `error`: the fake of the seam above."""

    def __init__(self, error: TokenizationError | None = None) -> None:
        self.error = error
        self.asked: list[Prompt] = []

    async def tokenize(
        self, prompts: Sequence[Prompt], *, deadline_seconds: float
    ) -> list[TokenRecord | NoRecord]:
        check_call(prompts, deadline_seconds)
        self.asked.extend(prompts)
        if self.error is not None:
            raise self.error
        if deadline_seconds <= 0:
            raise TokenizationError(TokenizationFault.DEADLINE, "nothing is left of it")
        return [self._answer(prompt) for prompt in prompts]

    @staticmethod
    def _answer(prompt: Prompt) -> TokenRecord | NoRecord:
        if not prompt.body:
            return NoRecord("no_body")
        ids = TokenIds.pack(list(prompt.body))
        return TokenRecord(
            prompt.model or "fake", "sha256:0", ids, Kind.CHAT, engine_exact=False, reason="fake"
        )
