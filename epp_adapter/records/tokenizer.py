"""The seam to whoever tokenizes for us when a request came without token ids, and its fake."""

from enum import StrEnum
from typing import Protocol

from extproc.token_metadata import Kind, TokenIds, TokenRecord

__all__ = ["CalloutError", "CalloutFault", "FakeTokenizer", "Tokenizer"]


class CalloutFault(StrEnum):
    """Why a call for a record brought none; a metric label."""

    DECLINED = "declined"  # tokenext says that this request is not to be tokenized
    DEADLINE = "deadline"
    UNAVAILABLE = "unavailable"  # nobody answers at the address
    FAILED = "failed"  # any other answer of the peer, or one that is no record


class CalloutError(Exception):
    """No record. The message holds nothing the client sent."""

    def __init__(self, fault: CalloutFault, detail: str) -> None:
        super().__init__(f"{fault}: {detail}")
        self.fault = fault


class Tokenizer(Protocol):
    """Turns a request into its token record. Implementations pass tests/epp_adapter/test_tokenizers.py."""

    async def tokenize(self, path: str, body: bytes) -> TokenRecord:
        """The record of an HTTP request. Raises CalloutError, also for its own deadline. May be cancelled."""
        ...


class FakeTokenizer:
    """One id per byte of the body, or `error`: the fake of the seam above."""

    def __init__(self, error: CalloutError | None = None) -> None:
        self.error = error
        self.asked: list[tuple[str, bytes]] = []

    async def tokenize(self, path: str, body: bytes) -> TokenRecord:
        self.asked.append((path, body))
        if self.error is not None:
            raise self.error
        ids = TokenIds.pack(list(body))
        return TokenRecord("fake", "sha256:0", ids, Kind.CHAT, engine_exact=False, reason="fake")
