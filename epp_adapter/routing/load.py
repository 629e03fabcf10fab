"""How busy endpoints are: what they say of themselves, and what this process has sent to them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

__all__ = ["NO_LOADS", "Booking", "EndpointLoad", "FixedLoads", "InFlight", "LoadSource"]

_NO_NAMES: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class EndpointLoad:
    """One reading of a model server's metrics.

    `kv_utilization` is from 0 to 1. `updated_at` is in seconds of the process's clock. The LoRA fields are
    vLLM's lora_requests_info: adapters that run, adapters that wait, and how many fit. `block_size` (tokens)
    and `num_blocks` describe the KV cache; 0: not told.
    """

    waiting: int
    running: int
    kv_utilization: float
    updated_at: float
    active_adapters: frozenset[str] = _NO_NAMES
    waiting_adapters: frozenset[str] = _NO_NAMES
    max_adapters: int = 0
    block_size: int = 0
    num_blocks: int = 0


class LoadSource(Protocol):
    """Who reads the endpoints' metrics. Cheap, and never fails: a reading that fails leaves the last one."""

    def loads(self, addresses: Sequence[str]) -> Sequence[EndpointLoad | None]:
        """The last reading of each endpoint, in the order of their addresses; None where there is none."""
        ...


class FixedLoads:
    """Loads that change only by `replace`: the fake of the seam above."""

    def __init__(self, loads: Mapping[str, EndpointLoad] | None = None) -> None:
        self._loads = dict(loads or {})

    def loads(self, addresses: Sequence[str]) -> Sequence[EndpointLoad | None]:
        return list(map(self._loads.get, addresses))

    def replace(self, address: str, load: EndpointLoad) -> None:
        self._loads[address] = load


NO_LOADS: Final[LoadSource] = FixedLoads()


class InFlight:
    """Owns the count of what this process has sent to each endpoint and what has not ended yet.

    `total` counts all endpoints. One with nothing in flight takes no memory.
    """

    def __init__(self) -> None:
        self._started: dict[str, dict[int, float]] = {}
        self._bookings = 0
        self.total = 0

    def busy(self) -> Collection[str]:
        """The endpoints with anything in flight."""
        return self._started.keys()

    def count(self, address: str) -> int:
        return len(self._started.get(address, ()))

    def since(self, address: str, moment: float) -> int:
        """How many of them were sent after `moment`: those a reading of that moment cannot have seen."""
        newer = 0
        for started_at in reversed(self._started.get(address, {}).values()):
            if started_at <= moment:
                break
            newer += 1
        return newer

    def book(self, address: str, now: float) -> "Booking":
        """Count one request until its booking is released. `now` never runs backwards."""
        self._bookings += 1
        self.total += 1
        self._started.setdefault(address, {})[self._bookings] = now
        return Booking(self, address, self._bookings)

    def release(self, address: str, number: int) -> None:
        """Once for each booking; `Booking.release` sees to it."""
        started = self._started[address]
        del started[number]
        self.total -= 1
        if not started:
            del self._started[address]


class Booking:
    """One request in flight. Releasing it again does nothing."""

    __slots__ = ("_address", "_number", "_owner", "_released")

    def __init__(self, owner: InFlight, address: str, number: int) -> None:
        self._owner = owner
        self._address = address
        self._number = number
        self._released = False

    def release(self) -> None:
        if not self._released:
            self._released = True
            self._owner.release(self._address, self._number)
