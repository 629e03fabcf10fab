"""The seam to a running engine that shows the ids it would compute, and its fake."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from extproc.token_metadata import TokenIds
from tokenext.openai import Api

__all__ = ["Answer", "FakeOracle", "NotAsked", "Oracle", "OracleError", "Refusal"]


class OracleError(Exception):
    """The engine cannot be asked: it is not there, or not what it was taken for. Carries no content."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The engine answers the request with an error of its own."""

    status: int


@dataclass(frozen=True, slots=True)
class NotAsked:
    """The engine has no way to show its ids for such a request."""


Answer = TokenIds | Refusal | NotAsked


class Oracle(Protocol):
    """Shows an engine's own ids. Implementations pass tests/tokenext/test_oracle_contract.py."""

    async def ids(self, api: Api, body: bytes) -> Answer:
        """The ids that the engine computes for a request's body. Raises OracleError."""
        ...


class FakeOracle:
    """Answers what it is told to, and keeps what it was asked."""

    def __init__(self, answer: Callable[[Api, bytes], Answer]) -> None:
        """`answer` may raise OracleError."""
        self._answer = answer
        self.asked: list[tuple[Api, bytes]] = []

    async def ids(self, api: Api, body: bytes) -> Answer:
        self.asked.append((api, body))
        return self._answer(api, body)
