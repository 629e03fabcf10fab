"""Worker threads for tokenization, behind a bounded queue and a deadline."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock
from typing import Final, TypeVar

from tokenext.declined import Declined, SkipReason

__all__ = ["TokenizationPool"]

T = TypeVar("T")


class TokenizationPool:
    """Runs jobs on threads of its own, which the engines use without the GIL.

    A job keeps its place until a thread has taken it, even when nobody waits for it any more: the bound is on
    what is held in memory, not on who is interested.
    """

    def __init__(self, *, workers: int, max_queued: int, deadline_seconds: float) -> None:
        self._executor: Final = ThreadPoolExecutor(workers, thread_name_prefix="tokenize")
        self._capacity: Final = workers + max_queued
        self._deadline_seconds: Final = deadline_seconds
        self._lock: Final = Lock()
        self._held = 0

    @property
    def held(self) -> int:
        """Jobs that run or wait."""
        return self._held

    async def run(self, job: Callable[[], T], *, deadline_seconds: float | None = None) -> T:
        """The job's result. Raises Declined if the queue is full or the deadline passes, else what it raises.

        `deadline_seconds` only shortens the pool's own. A job that nobody waits for any more, by deadline or
        cancellation, is not begun; one that has begun ends unheard.
        """
        with self._lock:
            if self._held >= self._capacity:
                raise Declined(SkipReason.QUEUE_FULL)
            self._held += 1
        abandoned = Event()
        if deadline_seconds is None or deadline_seconds > self._deadline_seconds:
            deadline_seconds = self._deadline_seconds
        try:
            result = asyncio.wrap_future(self._executor.submit(self._work, job, abandoned))
        except RuntimeError:  # closed: the process is going down
            self._release()
            raise Declined(SkipReason.QUEUE_FULL) from None
        result.add_done_callback(_heed)
        try:
            async with asyncio.timeout(deadline_seconds):
                # Shielded: a cancelled future would never run, so never give its place back.
                return await asyncio.shield(result)
        except TimeoutError:
            raise Declined(SkipReason.DEADLINE) from None
        finally:
            abandoned.set()

    def close(self) -> None:
        """Begin no more jobs, and wait for those that run."""
        self._executor.shutdown(cancel_futures=True)

    def _work(self, job: Callable[[], T], abandoned: Event) -> T:
        try:
            if abandoned.is_set():
                raise Declined(SkipReason.DEADLINE)
            return job()
        finally:
            self._release()

    def _release(self) -> None:
        with self._lock:
            self._held -= 1


def _heed(result: "asyncio.Future[T]") -> None:
    """Take note of an abandoned job's error, so that asyncio does not complain that nobody did."""
    if not result.cancelled():
        result.exception()
