"""Circuit breakers: a model whose tokenization keeps failing, or keeps being late, is left alone for a while.

Theory. Each failure costs its request the deadline, and a worker thread its time; while it goes on, requests
that would pass at once wait for nothing. So failures in a row open the breaker: requests of the model pass
untouched, at no cost. After a time one request is let through as a probe. If it succeeds the breaker closes;
if not, it stays open for twice as long. A success in between ends a row, so that single bad prompts, which
any client can send, open nothing while others are served.

Pure: the caller brings the clock, in seconds from anywhere, never backwards.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["Breaker", "BreakerOptions", "BreakerState", "Breakers"]

_MAX_DOUBLINGS: Final = 16


class BreakerState(StrEnum):
    """A metric label."""

    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"  # open, and one request is under way to see


@dataclass(frozen=True, slots=True)
class BreakerOptions:
    """`failures` in a row open it, 0: nothing does. It is open for `open_seconds`, doubled with each probe
    that fails, up to `max_open_seconds`.
    """

    failures: int = 5
    open_seconds: float = 1.0
    max_open_seconds: float = 30.0


class Breaker:
    """Of one model. After `admit` says yes, exactly one of `succeeded`, `failed` and `left` must follow."""

    def __init__(self, options: BreakerOptions, observe: Callable[[BreakerState], None]) -> None:
        """`observe` hears of every change of state."""
        self._options: Final = options
        self._observe: Final = observe
        self._failures = 0
        self._openings = 0
        self._open_until = 0.0
        self.state = BreakerState.CLOSED

    def admit(self, now: float) -> bool:
        """Whether a request may try."""
        if self.state is BreakerState.CLOSED:
            return True
        if self.state is BreakerState.PROBING or now < self._open_until:
            return False
        self._become(BreakerState.PROBING)
        return True

    def succeeded(self) -> None:
        """Also a request from before the breaker opened closes it: it is as good as a probe."""
        self.close()

    def failed(self, now: float) -> None:
        self._failures += 1
        if self.state is BreakerState.PROBING or (
            self.state is BreakerState.CLOSED and 0 < self._options.failures <= self._failures
        ):
            self._open(now)

    def left(self, now: float) -> None:
        """The request ended without telling anything: its client left, or it was not the tokenizer's turn."""
        if self.state is BreakerState.PROBING:
            self._open_until = now  # the next request is the probe
            self._become(BreakerState.OPEN)

    def close(self) -> None:
        """Begin anew. What is still under way may report, and counts as any other request."""
        self._failures = self._openings = 0
        if self.state is not BreakerState.CLOSED:
            self._become(BreakerState.CLOSED)

    def _open(self, now: float) -> None:
        options = self._options
        doubled = options.open_seconds * 2 ** min(self._openings, _MAX_DOUBLINGS)
        self._open_until = now + min(doubled, options.max_open_seconds)
        self._openings += 1
        self._become(BreakerState.OPEN)

    def _become(self, state: BreakerState) -> None:
        self.state = state
        self._observe(state)


class Breakers:
    """Owns the breakers of a process, by the model's name in the catalog; `observe` hears name and state."""

    def __init__(self, options: BreakerOptions, observe: Callable[[str, BreakerState], None]) -> None:
        self._options: Final = options
        self._observe: Final = observe
        self._by_model: dict[str, Breaker] = {}

    def of(self, model: str) -> Breaker:
        breaker = self._by_model.get(model)
        if breaker is None:
            breaker = Breaker(self._options, lambda state: self._observe(model, state))
            self._by_model[model] = breaker
        return breaker

    def state(self, model: str) -> BreakerState:
        """Only reads: another thread may ask."""
        breaker = self._by_model.get(model)
        return BreakerState.CLOSED if breaker is None else breaker.state

    def close_all(self) -> None:
        """Files that were loaded anew have not failed yet."""
        for breaker in self._by_model.values():
            breaker.close()
