"""Worker threads for tokenization, behind a bounded queue and a deadline.

No executor of concurrent.futures: with asyncio.wrap_future it takes a dozen locks and three futures for a
job, and twice the time.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Lock, Thread
from time import perf_counter
from typing import Any, Final, Generic, TypeVar

from tokenext.declined import Declined, SkipReason

__all__ = ["TokenizationPool"]

T = TypeVar("T")

# Others wait for it, so that it is about what one request may take.
_INLINE_SECONDS_A_ROUND: Final = 0.003


class TokenizationPool:
    """Runs jobs on threads of its own, which the engines use without the GIL.

    A small job is done at once, on the event loop: a thread would cost as much again. But only while nothing
    waits, and for a few milliseconds of each round of the loop; under load, then, the threads and their queue
    decide.

    A job keeps its place until a thread has taken it, even when nobody waits for it any more: the bound is on
    what is held in memory, not on who is interested.
    """

    def __init__(
        self, *, workers: int, max_queued: int, deadline_seconds: float, max_inline_bytes: int = 0
    ) -> None:
        """`max_inline_bytes`: how large a small job is at most; 0 gives every job to a thread."""
        self._max_inline_bytes: Final = max_inline_bytes
        self._inline_seconds = 0.0  # spent in this round of the event loop
        self._tasks: Final[SimpleQueue[_Task[Any] | None]] = SimpleQueue()
        self._capacity: Final = workers + max_queued
        self._deadline_seconds: Final = deadline_seconds
        self._lock: Final = Lock()
        self._held = 0
        self._closed = False
        self._threads: Final = [
            Thread(target=self._work, name=f"tokenize-{number}", daemon=True) for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def held(self) -> int:
        """Jobs that run or wait."""
        return self._held

    @property
    def full(self) -> bool:
        """Whether the next job that needs a thread is declined."""
        return self._held >= self._capacity

    async def run(
        self, job: Callable[[], T], *, deadline_seconds: float | None = None, inline_bytes: int | None = None
    ) -> T:
        """The job's result. Raises Declined if the queue is full or the deadline passes, else what it raises.

        `deadline_seconds` only shortens the pool's own. `inline_bytes` is the size of a job that blocks no
        for longer than its size allows; None for others. A job that nobody waits for any more, by deadline or
        cancellation, is not begun; one that has begun ends unheard.
        """
        if deadline_seconds is None or deadline_seconds > self._deadline_seconds:
            deadline_seconds = self._deadline_seconds
        loop = asyncio.get_running_loop()
        if inline_bytes is not None and self._may_inline(inline_bytes):
            return self._inline(job, loop)
        task = _Task(job, loop)
        with self._lock:
            if self._closed or self._held >= self._capacity:
                raise Declined(SkipReason.QUEUE_FULL)
            self._held += 1
            self._tasks.put(task)
        timer = loop.call_later(deadline_seconds, task.expire)
        try:
            return await task.outcome
        finally:
            timer.cancel()

    def _may_inline(self, size: int) -> bool:
        idle = not (self._held or self._closed)
        return idle and size <= self._max_inline_bytes and self._inline_seconds < _INLINE_SECONDS_A_ROUND

    def _inline(self, job: Callable[[], T], loop: asyncio.AbstractEventLoop) -> T:
        if not self._inline_seconds:
            loop.call_soon(self._next_round)
        started = perf_counter()
        try:
            return job()
        finally:
            self._inline_seconds += perf_counter() - started

    def _next_round(self) -> None:
        self._inline_seconds = 0.0

    def close(self) -> None:
        """Begin no more jobs, decline those that wait, and wait for those that run."""
        with self._lock:
            self._closed = True
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            if self._closed:
                task.error = Declined(SkipReason.QUEUE_FULL)
            elif not task.outcome.done():
                task.perform()
            with self._lock:
                self._held -= 1
            task.tell()
            del task  # nothing of the last job is kept while there is no next one


class _Task(Generic[T]):
    """A job, and the future of whoever waits for it. A thread has it first, then the loop."""

    __slots__ = ("_job", "_loop", "_result", "error", "outcome")

    def __init__(self, job: Callable[[], T], loop: asyncio.AbstractEventLoop) -> None:
        self._job = job
        self._loop = loop
        self._result: T | None = None
        self.error: BaseException | None = None
        self.outcome: Final[asyncio.Future[T]] = loop.create_future()

    def perform(self) -> None:
        """On a thread."""
        try:
            self._result = self._job()
        except BaseException as error:  # noqa: BLE001  # whatever it is, it is the caller's
            self.error = error

    def tell(self) -> None:
        """On a thread: have the loop settle what came of it."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._settle)

    def expire(self) -> None:
        """On the loop: the deadline has passed."""
        self.error = Declined(SkipReason.DEADLINE)
        self._settle()

    def _settle(self) -> None:
        if self.outcome.done():
            return
        if self.error is None:
            self.outcome.set_result(self._result)  # type: ignore[arg-type]  # performed, so it is the job's
        else:
            self.outcome.set_exception(self.error)
            self.outcome.exception()  # heard, even if its caller is being cancelled just now
