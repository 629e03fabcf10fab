"""`tokenext serve` loads its models again when it is sent SIGHUP."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from extproc.allocator import return_freed_memory
from tokenext.breaker import Breakers
from tokenext.live_catalog import LiveCatalog
from tokenext.parity_watch import ParityWatch

__all__ = ["reload_on_hangup"]


@contextmanager
def reload_on_hangup(live: LiveCatalog, watch: ParityWatch, breakers: Breakers) -> Iterator[None]:
    """Until the block is left. What was learnt of the old models (breakers, parity) starts over."""
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[None]] = set()

    async def load_again() -> None:
        if await live.reload():
            breakers.close_all()
            await asyncio.to_thread(return_freed_memory)
            watch.follow()

    def reload() -> None:
        task = loop.create_task(load_again())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
