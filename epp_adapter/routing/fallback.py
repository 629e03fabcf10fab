"""A strategy of strategies: the first that can pick within its deadline does."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from epp_adapter.endpoints import Destination, Endpoint
from epp_adapter.routing.strategy import (
    Fallback,
    Pick,
    RoutingRequest,
    RoutingStrategy,
    StrategyError,
    StrategyFault,
)
from extproc.events import Termination

__all__ = ["FallbackStrategy", "Step"]


@dataclass(frozen=True, slots=True)
class Step:
    """A strategy and how long it may take; None: it never waits for anything."""

    strategy: RoutingStrategy
    deadline_seconds: float | None = None


class FallbackStrategy:
    """Asks its steps in order; named after the first.

    Raises the last step's StrategyError when none can pick, and SHED at once: who sheds has decided.
    `observe` hears of each step that could not.
    """

    def __init__(self, steps: Sequence[Step], observe: Callable[[Fallback], None]) -> None:
        if not steps:
            raise ValueError("a fallback has at least one step")
        self.name = steps[0].strategy.name
        self._steps = tuple(steps)
        self._observe = observe

    async def pick(self, request: RoutingRequest, candidates: Sequence[Endpoint]) -> Pick:
        fallbacks: tuple[Fallback, ...] = ()
        for step in self._steps:
            try:
                pick = await _pick_in_time(step, request, candidates)
            except StrategyError as error:
                last = error
                fallback = Fallback(step.strategy.name, error.fault)
                fallbacks = (*fallbacks, fallback)
                self._observe(fallback)
                if error.fault is StrategyFault.SHED:
                    raise
            else:
                return _FallbackPick(pick, fallbacks) if fallbacks else pick
        raise last


async def _pick_in_time(step: Step, request: RoutingRequest, candidates: Sequence[Endpoint]) -> Pick:
    if step.deadline_seconds is None:
        return await step.strategy.pick(request, candidates)
    try:
        async with asyncio.timeout(step.deadline_seconds):
            return await step.strategy.pick(request, candidates)
    except TimeoutError:
        raise StrategyError(StrategyFault.DEADLINE, f"no pick in {step.deadline_seconds} s") from None


@dataclass(frozen=True, slots=True)
class _FallbackPick:
    """Another strategy's pick, and who was asked before it."""

    _pick: Pick
    fallbacks: tuple[Fallback, ...]

    @property
    def strategy(self) -> str:
        return self._pick.strategy

    @property
    def destination(self) -> Destination:
        return self._pick.destination

    @property
    def request_headers(self) -> Mapping[str, str]:
        return self._pick.request_headers

    @property
    def response_headers(self) -> Mapping[str, str]:
        return self._pick.response_headers

    @property
    def cached_tokens(self) -> int | None:
        return self._pick.cached_tokens

    async def first_token(self) -> None:
        await self._pick.first_token()

    async def finished(self, termination: Termination) -> None:
        await self._pick.finished(termination)
