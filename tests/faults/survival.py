"""How a fault is survived: load before, while and after; what is asserted of every fault; what is kept."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from loadtests.stack.chain import Chain
from tests.faults.counters import Counter, moved, snapshot
from tests.faults.record import Outcome, append
from tests.integration.load import Load, Seen

__all__ = ["Fault", "survive"]

WARM = 40  # answers before anything breaks, and after all is well
BACK_SECONDS = 20.0
CALM_SECONDS = 3.0  # after it a fault must not be seen any more


@dataclass(frozen=True, slots=True)
class Fault:
    """`allowed`: statuses that clients may see of it, 0 being a connection that was cut off. `slowest`: how
    long an answer may take, in seconds. `counted` must move. `words`: of each prompt.
    """

    name: str
    strike: Callable[[], object]
    mend: Callable[[], object]
    seconds: float = 2.0
    allowed: frozenset[int] = frozenset({200})
    slowest: float = 2.0
    counted: tuple[Counter, ...] = ()
    path: str = "/v1/chat/completions"
    words: int = 120


async def _counted(
    chain: Chain, counters: tuple[Counter, ...], before: Mapping[Counter, float]
) -> dict[Counter, float]:
    """What the counters say once all have moved, or after a while."""
    deadline = time.monotonic() + BACK_SECONDS
    while True:
        after = await asyncio.to_thread(snapshot, chain, counters)
        if all(by > 0 for by in moved(before, after).values()) or time.monotonic() > deadline:
            return after
        await asyncio.sleep(0.2)


async def survive(chain: Chain, fault: Fault, outcomes: Path) -> Seen:
    """Nothing hangs, no 200 is less than a whole reply, and CALM_SECONDS after it all is as it was.

    Returns what clients saw from the strike to the mending.
    """
    async with Load(chain, fault.path, words=fault.words) as load:
        await load.answered(WARM, within=30)
        before = await asyncio.to_thread(snapshot, chain, fault.counted)
        struck = time.monotonic()
        await asyncio.to_thread(fault.strike)
        await asyncio.sleep(fault.seconds)
        during = await asyncio.to_thread(snapshot, chain, fault.counted)
        await asyncio.to_thread(fault.mend)
        over = time.monotonic()
        await load.answered(WARM, within=BACK_SECONDS)
        await asyncio.sleep(max(0.0, over + CALM_SECONDS - time.monotonic()))
        calm = time.monotonic()
        await load.answered(WARM, within=BACK_SECONDS)
        after = await _counted(chain, fault.counted, before)
    ended = time.monotonic()
    seen, later = load.between(struck, over), load.between(calm, ended)
    back = max((each.read - over for each in load.answers if each.status != 200), default=-1.0)
    counts = {
        counter: max(by, moved(before, during)[counter]) for counter, by in moved(before, after).items()
    }
    append(
        outcomes,
        Outcome(
            fault=fault.name,
            during=seen.told(),
            slowest=round(max(seen.slowest, load.between(over, ended).slowest), 2),
            back=round(back, 1) if back > 0 else None,
            counted=", ".join(f"{counter.told()} +{by:g}" for counter, by in counts.items()),
        ),
    )
    everything = load.between(struck, ended)
    assert set(everything.statuses) <= fault.allowed, everything.told()
    assert everything.broken == 0
    assert everything.slowest <= fault.slowest
    assert seen.requests > 0
    assert set(later.statuses) == {200}, f"{CALM_SECONDS:g} s after it was over: {later.told()}"
    assert all(by > 0 for by in counts.values()), counts
    return seen
