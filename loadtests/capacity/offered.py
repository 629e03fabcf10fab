"""Requests at a fixed rate, whether answers come or not: a queue that grows is seen, and not waited for.

Times count from when a request was due, not from when it could be sent, so that a server that holds all
connections cannot hide how late the next request is.
"""

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loadtests.bench.http import Connection

__all__ = ["Offered", "offer", "slices"]

Send = Callable[[Connection, int], int]


@dataclass(frozen=True, slots=True)
class Offered:
    """Of `rate` requests per second over `seconds`. `latencies`: of those that were answered with 200."""

    rate: float
    seconds: float
    latencies: tuple[float, ...]
    failed: int

    @property
    def achieved(self) -> float:
        """Answers per second, by the share of the rate that came before the end."""
        return len(self.latencies) / self.seconds


def offer(url: str, send: Send, *, rate: float, seconds: float, connections: int) -> Offered:
    """Send `rate * seconds` requests. `send` gets a connection and the number of the request, and returns
    the status. Whatever is not answered a second after the end counts as failed.
    """
    total = max(1, round(rate * seconds))
    numbers = itertools.count()
    latencies: list[list[float]] = [[] for _ in range(connections)]
    start = time.perf_counter() + 0.05
    gives_up = start + seconds + 1.0

    def client(mine: list[float]) -> None:
        try:
            with Connection(url) as connection:
                send_all(connection, mine)
        except (OSError, ValueError):
            return  # the rest of its share is sent by others; what was under way has failed

    def send_all(connection: Connection, mine: list[float]) -> None:
        while (number := next(numbers)) < total:
            due = start + number / rate
            now = time.perf_counter()
            if now > gives_up:
                return
            if due > now:
                time.sleep(due - now)
            if send(connection, number) == 200:
                mine.append(time.perf_counter() - due)

    threads = [threading.Thread(target=client, args=(mine,), daemon=True) for mine in latencies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answered = tuple(sorted(itertools.chain.from_iterable(latencies)))
    lasted = max(seconds, time.perf_counter() - start)
    return Offered(rate, lasted, answered, total - len(answered))


def slices(text: str, chars: int, count: int) -> Sequence[str]:
    """Texts of `chars` characters that differ from their first one on."""
    step = max(1, (len(text) - chars) // count)
    return [f"{number:06d} {text[number * step : number * step + chars]}" for number in range(count)]
