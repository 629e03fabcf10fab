"""`serve --processes N`: one serving process per endpoint, and a parent that only watches over them.

Python runs one thread at a time and Envoy keeps one connection per endpoint, so a machine is filled by
processes with an endpoint each (docs/adr/0002). The parent serves nothing: it starts them, starts one again
that ended, passes signals on, and ends when they have ended. It shares no socket and no model with them.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

__all__ = ["Child", "Launch", "RestartPolicy", "Supervisor", "numbered"]

UNUSABLE_SETTINGS: Final = 2  # a child's exit status that starting it again cannot cure


def numbered(address: str, number: int) -> str:
    """The address of process `number`: unix:/run/t.sock becomes unix:/run/t-1.sock, host:9000 host:9001."""
    if address.startswith("unix:"):
        stem, dot, ending = address.rpartition(".")
        return f"{stem}-{number}{dot}{ending}" if dot and "/" not in ending else f"{address}-{number}"
    host, _, port = address.rpartition(":")
    return f"{host}:{int(port) + number}"


class Child(Protocol):
    """A running process (asyncio.subprocess.Process is one)."""

    @property
    def pid(self) -> int: ...

    async def wait(self) -> int: ...

    def send_signal(self, signal: int) -> None: ...


# Starts the process of a number.
Launch = Callable[[int], Awaitable[Child]]


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """A child that ends is started again after a pause that doubles, up to a bound, until one has lasted."""

    first_seconds: float = 0.1
    longest_seconds: float = 5.0
    lasted_seconds: float = 30.0

    def pause(self, failures: int) -> float:
        """The pause before the next start, after so many ends in a row."""
        return min(self.longest_seconds, self.first_seconds * 2.0 ** min(failures, 16))


class Supervisor:
    """Owns N children from start to end. `observe` hears of each that ended unasked: number, status."""

    def __init__(
        self,
        launch: Launch,
        count: int,
        *,
        policy: RestartPolicy,
        clock: Callable[[], float],
        observe: Callable[[int, int], None],
    ) -> None:
        self._launch = launch
        self._count = count
        self._policy = policy
        self._clock = clock
        self._observe = observe
        self._children: dict[int, Child] = {}
        self._stopping = asyncio.Event()
        self._status = 0

    async def run(self) -> int:
        """Run until `stop`, then until every child has ended. Returns the exit status for the parent."""
        async with asyncio.TaskGroup() as keepers:
            for number in range(self._count):
                keepers.create_task(self._keep(number))
        return self._status

    def stop(self) -> None:
        """Ask the children to drain and end (SIGTERM). May be called more than once."""
        self._stopping.set()
        self.forward(signal.SIGTERM)

    def forward(self, number: signal.Signals) -> None:
        """Send a signal to every child that runs."""
        for child in self._children.values():
            try:
                child.send_signal(number)
            except ProcessLookupError:  # it has just ended
                continue

    async def _keep(self, number: int) -> None:
        failures = 0
        while not self._stopping.is_set():
            started = self._clock()
            child = await self._launch(number)
            self._children[number] = child
            if self._stopping.is_set():  # asked while it was being started
                child.send_signal(signal.SIGTERM)
            status = await child.wait()
            del self._children[number]
            if self._stopping.is_set():
                return
            self._observe(number, status)
            if status == UNUSABLE_SETTINGS:
                self._status = status
                self.stop()
                return
            failures = 0 if self._clock() - started >= self._policy.lasted_seconds else failures + 1
            await self._pause(self._policy.pause(failures))

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return
