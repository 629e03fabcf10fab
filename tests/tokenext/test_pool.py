import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from tokenext.declined import Declined, SkipReason
from tokenext.pool import TokenizationPool


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Jobs that wait for it are let go at the end, whatever happens."""
    event = threading.Event()
    yield event
    event.set()


def make(workers: int = 1, max_queued: int = 1, deadline_seconds: float = 30.0) -> TokenizationPool:
    return TokenizationPool(workers=workers, max_queued=max_queued, deadline_seconds=deadline_seconds)


async def until_idle(pool: TokenizationPool) -> None:
    async with asyncio.timeout(5):
        while pool.held:  # noqa: ASYNC110  # the pool's threads tell nobody
            await asyncio.sleep(0.001)


async def reason_of(pool: TokenizationPool, job) -> SkipReason:
    with pytest.raises(Declined) as caught:
        await pool.run(job)
    return caught.value.reason


async def test_a_job_runs_on_a_thread_of_the_pool():
    pool = make()
    name = await pool.run(lambda: threading.current_thread().name)
    assert name.startswith("tokenize")
    await until_idle(pool)
    pool.close()


async def test_a_jobs_error_is_the_callers():
    pool = make()
    with pytest.raises(Declined) as caught:
        await pool.run(lambda: (_ for _ in ()).throw(Declined(SkipReason.RENDER_FAILED)))
    assert caught.value.reason is SkipReason.RENDER_FAILED
    await until_idle(pool)
    pool.close()


async def test_a_full_queue_declines_at_once_and_takes_jobs_again_when_it_is_not(gate):
    pool = make(workers=1, max_queued=1)
    tasks = [asyncio.create_task(pool.run(gate.wait)) for _ in range(2)]
    await asyncio.sleep(0.01)
    assert pool.held == 2
    assert await reason_of(pool, lambda: None) is SkipReason.QUEUE_FULL
    gate.set()
    assert await asyncio.gather(*tasks) == [True, True]
    await until_idle(pool)
    assert await pool.run(lambda: "again") == "again"
    pool.close()


async def test_a_job_past_its_deadline_is_declined_and_keeps_its_place_until_it_ends(gate):
    pool = make(deadline_seconds=0.02)
    assert await reason_of(pool, gate.wait) is SkipReason.DEADLINE
    assert pool.held == 1
    gate.set()
    await until_idle(pool)
    pool.close()


async def test_a_job_that_waited_past_its_deadline_is_never_begun(gate):
    pool = make(max_queued=4, deadline_seconds=0.02)
    begun: list[str] = []
    first = asyncio.create_task(reason_of(pool, gate.wait))
    await asyncio.sleep(0)
    assert await reason_of(pool, lambda: begun.append("late")) is SkipReason.DEADLINE
    assert await first is SkipReason.DEADLINE
    assert pool.held == 2  # what waits is still held in memory, so it still counts
    gate.set()
    await until_idle(pool)
    assert begun == []
    pool.close()


async def test_a_cancelled_caller_leaves_nothing_behind(gate):
    pool = make(max_queued=4)
    begun: list[str] = []
    running = asyncio.create_task(pool.run(gate.wait))
    waiting = asyncio.create_task(pool.run(lambda: begun.append("unwanted")))
    await asyncio.sleep(0.01)
    for task in (waiting, running):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    gate.set()
    await until_idle(pool)
    assert begun == []
    pool.close()


async def test_an_error_that_nobody_waits_for_is_silent(gate, caplog):
    pool = make(deadline_seconds=0.01)

    def fail() -> None:
        gate.wait()
        raise Declined(SkipReason.ENGINE_FAILED)

    assert await reason_of(pool, fail) is SkipReason.DEADLINE
    gate.set()
    await until_idle(pool)
    await asyncio.sleep(0.01)
    assert caplog.records == []
    pool.close()


async def test_the_event_loop_goes_on_while_jobs_run(gate):
    pool = make()
    task = asyncio.create_task(pool.run(gate.wait))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not task.done()
    gate.set()
    assert await task is True
    pool.close()


async def test_a_closed_pool_declines():
    pool = make()
    pool.close()
    assert await reason_of(pool, lambda: None) is SkipReason.QUEUE_FULL
    assert pool.held == 0


async def on_the_loop(pool: TokenizationPool, size: int | None = 10) -> bool:
    thread = await pool.run(threading.current_thread, inline_bytes=size)
    return thread is threading.current_thread()


async def test_a_small_job_is_done_at_once_where_nothing_waits(gate):
    pool = TokenizationPool(workers=1, max_queued=4, deadline_seconds=30, max_inline_bytes=10)
    assert await on_the_loop(pool)
    assert not await on_the_loop(pool, 11)
    assert not await on_the_loop(pool, None)
    await until_idle(pool)
    held = asyncio.create_task(pool.run(gate.wait))
    await asyncio.sleep(0)
    queued = asyncio.create_task(on_the_loop(pool))
    await asyncio.sleep(0)
    gate.set()
    assert await held
    assert not await queued
    pool.close()


async def test_small_jobs_take_a_few_milliseconds_of_a_round_and_the_rest_goes_to_the_threads():
    pool = TokenizationPool(workers=1, max_queued=64, deadline_seconds=30, max_inline_bytes=10)

    def work() -> str:
        time.sleep(0.002)
        return threading.current_thread().name

    names = await asyncio.gather(*(pool.run(work, inline_bytes=1) for _ in range(8)))
    here = threading.current_thread().name
    assert 1 <= names.count(here) <= 2
    assert names[0] == here
    await until_idle(pool)
    assert await on_the_loop(pool)  # the next round
    pool.close()


async def test_an_error_of_a_small_job_is_the_callers_and_costs_its_time():
    pool = TokenizationPool(workers=1, max_queued=4, deadline_seconds=30, max_inline_bytes=10)

    def fail() -> None:
        raise Declined(SkipReason.RENDER_FAILED)

    with pytest.raises(Declined):
        await pool.run(fail, inline_bytes=1)
    assert pool.held == 0
    pool.close()
    with pytest.raises(Declined) as caught:
        await pool.run(lambda: None, inline_bytes=1)
    assert caught.value.reason is SkipReason.QUEUE_FULL
