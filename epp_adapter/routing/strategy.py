"""The seam between an exchange and whatever picks its endpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from epp_adapter.endpoints import Destination, Endpoint
from extproc.events import Termination
from extproc.token_metadata import TokenIds

__all__ = [
    "NO_FALLBACKS",
    "FakePick",
    "FakeStrategy",
    "Fallback",
    "Pick",
    "PlainPick",
    "RoutingRequest",
    "RoutingStrategy",
    "StrategyError",
    "StrategyFault",
]

_NO_HEADERS: Final[Mapping[str, str]] = {}


class StrategyFault(StrEnum):
    """Why a strategy could not pick; a metric label."""

    NO_CANDIDATES = "no_candidates"
    NO_TOKEN_IDS = "no_token_ids"  # noqa: S105  # tokens of a prompt, no secret
    NO_WORKERS = "no_workers"  # the router behind the strategy knows no worker
    NOT_A_CANDIDATE = "not_a_candidate"  # it chose one that is not ready, not mapped or not allowed
    FILTERED = "filtered"  # the scheduling profile's filters left no candidate
    OVERLOADED = "overloaded"
    SHED = "shed"  # the pool is saturated and the request may be dropped; no other strategy is asked
    DEADLINE = "deadline"
    FAILED = "failed"


class StrategyError(Exception):
    """A strategy cannot pick for this request; another may. The message holds nothing the client sent."""

    def __init__(self, fault: StrategyFault, detail: str) -> None:
        super().__init__(f"{fault}: {detail}")
        self.fault = fault


@dataclass(frozen=True, slots=True)
class RoutingRequest:
    """What a strategy may look at.

    `request_id` names the booking. It is ours and unique, never the client's x-request-id: two requests with
    one id would free each other's bookings. `headers` are the client's, by lower-case name. A `priority`
    below 0 may be shed (InferenceObjective). `lora_name` is the LoRA adapter that is asked for, if any.
    """

    request_id: str
    model: str = ""
    token_ids: TokenIds | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: _NO_HEADERS)
    priority: int = 0
    lora_name: str = ""


@dataclass(frozen=True, slots=True)
class Fallback:
    """`strategy` was asked and could not pick; whoever comes next is asked."""

    strategy: str
    fault: StrategyFault


NO_FALLBACKS: Final[tuple[Fallback, ...]] = ()


class Pick(Protocol):
    """A choice and what was booked for it. Neither method raises, and each takes effect at most once."""

    @property
    def strategy(self) -> str:
        """Who picked."""
        ...

    @property
    def destination(self) -> Destination: ...

    @property
    def request_headers(self) -> Mapping[str, str]:
        """Headers that the chosen endpoint needs, beside those every destination gets."""
        ...

    @property
    def response_headers(self) -> Mapping[str, str]:
        """Headers for the client, set on the response: what it is to send again with its next request."""
        ...

    @property
    def cached_tokens(self) -> int | None:
        """How many of the prompt's tokens the endpoint holds already; None where the strategy cannot know."""
        ...

    @property
    def fallbacks(self) -> tuple[Fallback, ...]:
        """Who was asked before, in order."""
        ...

    async def first_token(self) -> None:
        """The response has begun: the prompt is computed."""
        ...

    async def finished(self, termination: Termination) -> None:
        """The exchange is over: give back what was booked. Called once for every pick, last."""
        ...


class RoutingStrategy(Protocol):
    """Picks among candidates, which are ready and allowed by the gateway.

    A pick that raises, also by cancellation, leaves nothing booked.
    """

    @property
    def name(self) -> str:
        """The name in the settings; what `x-routing-strategy` asks for, and a metric label."""
        ...

    async def pick(self, request: RoutingRequest, candidates: Sequence[Endpoint]) -> Pick:
        """Pick one or more of the candidates. Raises StrategyError."""
        ...


@dataclass(frozen=True, slots=True)
class PlainPick:
    """A pick that books nothing."""

    strategy: str
    destination: Destination
    request_headers: Mapping[str, str] = field(default_factory=lambda: _NO_HEADERS)
    response_headers: Mapping[str, str] = field(default_factory=lambda: _NO_HEADERS)
    cached_tokens: int | None = None
    fallbacks: tuple[Fallback, ...] = ()

    async def first_token(self) -> None:
        pass

    async def finished(self, termination: Termination) -> None:
        pass


class FakeStrategy:
    """Picks the first candidate, or raises `error`; keeps its picks in `made`: the fake of the seam above."""

    def __init__(self, name: str = "fake", error: StrategyError | None = None) -> None:
        self.name = name
        self.error = error
        self.requests: list[RoutingRequest] = []
        self.made: list[FakePick] = []

    async def pick(self, request: RoutingRequest, candidates: Sequence[Endpoint]) -> "FakePick":
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        if not candidates:
            raise StrategyError(StrategyFault.NO_CANDIDATES, "there is no candidate")
        pick = FakePick(self.name, Destination((candidates[0],)))
        self.made.append(pick)
        return pick


class FakePick:
    """Counts what took effect."""

    def __init__(self, strategy: str, destination: Destination) -> None:
        self.strategy = strategy
        self.destination = destination
        self.request_headers: Mapping[str, str] = {}
        self.response_headers: Mapping[str, str] = {}
        self.cached_tokens: int | None = 0
        self.fallbacks: tuple[Fallback, ...] = ()
        self.prefilled = False
        self.terminations: list[Termination] = []

    async def first_token(self) -> None:
        self.prefilled = True

    async def finished(self, termination: Termination) -> None:
        if not self.terminations:
            self.terminations.append(termination)
