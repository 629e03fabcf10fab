"""What every RoutingStrategy promises, as tests that run over each implementation.

A subclass gives a fixture `harness`; pytest collects the inherited tests.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from epp_adapter.endpoints import Endpoint
from epp_adapter.routing.strategy import RoutingRequest, RoutingStrategy, StrategyError, StrategyFault
from extproc.events import Termination
from extproc.token_metadata import TokenIds

FINISH_SECONDS = 5.0


@dataclass
class Harness:
    """A strategy to hold to the contract, candidates that it knows, and how many bookings it holds."""

    strategy: RoutingStrategy
    candidates: tuple[Endpoint, ...]
    active: Callable[[], int]
    ids: int = 0

    def request(self, tokens: int = 64) -> RoutingRequest:
        self.ids += 1
        ids = [(self.ids * 7919 + position) % 380 for position in range(tokens)]
        return RoutingRequest(f"contract-{id(self)}-{self.ids}", "model", TokenIds.pack(ids))

    async def nothing_is_held(self) -> bool:
        """Whether all is given back, or soon will be: what was cancelled is freed in the background."""
        now = asyncio.get_running_loop().time
        deadline = now() + FINISH_SECONDS
        while self.active() and now() < deadline:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.005)
        return self.active() == 0


class StrategyContract:
    async def test_it_picks_one_of_the_candidates(self, harness: Harness):
        for count in range(len(harness.candidates), 0, -1):
            among = harness.candidates[:count]
            try:
                pick = await harness.strategy.pick(harness.request(), among)
            except StrategyError as error:
                if error.fault is not StrategyFault.NOT_A_CANDIDATE:
                    raise
                continue
            assert set(pick.destination.endpoints) <= set(among)
            await pick.finished(Termination.ENDED)
        assert await harness.nothing_is_held()

    async def test_a_pick_says_who_picked(self, harness: Harness):
        pick = await harness.strategy.pick(harness.request(), harness.candidates)
        assert pick.strategy == harness.strategy.name
        assert pick.fallbacks == ()
        await pick.finished(Termination.ENDED)

    async def test_without_candidates_it_raises_strategy_error_and_holds_nothing(self, harness: Harness):
        with pytest.raises(StrategyError) as caught:
            await harness.strategy.pick(harness.request(), ())
        assert caught.value.fault is StrategyFault.NO_CANDIDATES
        assert await harness.nothing_is_held()

    @pytest.mark.parametrize("termination", list(Termination))
    async def test_finishing_gives_back_what_was_booked(self, harness: Harness, termination: Termination):
        pick = await harness.strategy.pick(harness.request(), harness.candidates)
        await pick.finished(termination)
        assert await harness.nothing_is_held()

    @pytest.mark.parametrize(
        "order",
        [
            "finish",
            "token finish",
            "token token finish",
            "finish finish",
            "token finish finish",
            "finish token",
        ],
    )
    async def test_any_order_of_the_bookkeeping_ends_with_nothing_held(self, harness: Harness, order: str):
        pick = await harness.strategy.pick(harness.request(), harness.candidates)
        for step in order.split():
            await (pick.first_token() if step == "token" else pick.finished(Termination.ENDED))
        assert await harness.nothing_is_held()

    async def test_finishing_twice_at_once_is_one_finish(self, harness: Harness):
        pick = await harness.strategy.pick(harness.request(), harness.candidates)
        await asyncio.gather(pick.finished(Termination.ENDED), pick.finished(Termination.CANCELLED))
        assert await harness.nothing_is_held()

    async def test_a_cancelled_finish_still_gives_back(self, harness: Harness):
        pick = await harness.strategy.pick(harness.request(), harness.candidates)
        finishing = asyncio.ensure_future(pick.finished(Termination.CANCELLED))
        await asyncio.sleep(0)
        finishing.cancel()
        await asyncio.wait([finishing])
        assert await harness.nothing_is_held()

    @pytest.mark.parametrize("turns", range(6))
    async def test_a_pick_cancelled_at_any_turn_of_the_loop_holds_nothing(self, harness: Harness, turns: int):
        picking = asyncio.ensure_future(harness.strategy.pick(harness.request(2048), harness.candidates))
        for _ in range(turns):
            await asyncio.sleep(0)
        if not picking.cancel():
            await (await picking).finished(Termination.CANCELLED)
        else:
            with pytest.raises(asyncio.CancelledError):
                await picking
        assert await harness.nothing_is_held()

    async def test_many_picks_at_once_are_kept_apart(self, harness: Harness):
        picks = await asyncio.gather(
            *(harness.strategy.pick(harness.request(), harness.candidates) for _ in range(50))
        )
        for pick in picks:
            await pick.first_token()
        await asyncio.gather(*(pick.finished(Termination.ENDED) for pick in picks))
        assert await harness.nothing_is_held()
