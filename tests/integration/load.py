"""Load that goes on while something breaks, and what its clients saw."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp

from loadtests.stack.chain import Chain

__all__ = ["Answer", "Load", "Seen"]

CLIENT_SECONDS = 30.0  # a client that waits longer has been hung up on


@dataclass(frozen=True, slots=True)
class Answer:
    """`status` 0: no HTTP response came; `whole`: a 200 whose body is a whole reply."""

    sent: float
    read: float
    status: int
    whole: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """Of the requests that were under way between two moments, or sent between them."""

    statuses: Mapping[int, int]
    slowest: float
    broken: int

    @property
    def requests(self) -> int:
        return sum(self.statuses.values())

    def told(self) -> str:
        """As in "212 x 200, 3 x 503"."""
        each = (f"{count} x {status or 'cut off'}" for status, count in sorted(self.statuses.items()))
        return ", ".join(each)


@dataclass
class Load:
    """Conversations, one request after another on each connection, from entering to leaving the block."""

    chain: Chain
    path: str = "/v1/chat/completions"
    connections: int = 6
    words: int = 120
    answers: list[Answer] = field(default_factory=list)

    async def __aenter__(self):
        self._stop = asyncio.Event()
        connector = aiohttp.TCPConnector(limit=self.connections)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=CLIENT_SECONDS)
        )
        self._tasks = [asyncio.create_task(self._talk(number)) for number in range(self.connections)]
        await self.grow(20)
        return self

    async def __aexit__(self, *_):
        self._stop.set()
        await asyncio.gather(*self._tasks)
        await self._session.close()

    @property
    def statuses(self) -> list[int]:
        return [each.status for each in self.answers]

    @property
    def slowest(self) -> float:
        return max(each.read - each.sent for each in self.answers)

    async def grow(self, count: int, *, within: float = 20.0) -> None:
        """Wait for so many more answers of any kind. Raises TimeoutError."""
        wanted = len(self.answers) + count
        async with asyncio.timeout(within):
            while len(self.answers) < wanted:  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0.01)

    def between(self, start: float, end: float) -> Seen:
        """What became of requests that touched this span of time."""
        answers = [each for each in self.answers if each.read >= start and each.sent <= end]
        return Seen(
            Counter(each.status for each in answers),
            max((each.read - each.sent for each in answers), default=0.0),
            sum(each.status == 200 and not each.whole for each in answers),
        )

    async def answered(self, count: int, *, within: float) -> None:
        """Wait for so many more answers of 200. Raises TimeoutError."""
        wanted = self._good() + count
        async with asyncio.timeout(within):
            while self._good() < wanted:  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0.01)

    def _good(self) -> int:
        return sum(each.status == 200 for each in self.answers)

    async def _talk(self, number: int) -> None:
        talk = 0
        while not self._stop.is_set():
            talk += 1
            said = f"conversation {number} {talk} " + "word " * self.words
            for turn in range(4):
                if self._stop.is_set():
                    return
                self.answers.append(await self._send(f"{said} turn {turn}"))
                if self.answers[-1].status != 200:
                    await asyncio.sleep(0.05)  # a client that is refused does not hammer

    async def _send(self, text: str) -> Answer:
        body = {
            "model": self.chain.options.model.name,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": 4,
        }
        sent = time.monotonic()
        status, whole = 0, False
        try:
            async with self._session.post(f"{self.chain.url}{self.path}", json=body) as response:
                document = await response.json(content_type=None) or {}
                status = response.status
                # Dynamo's mocker and the echo server both say how they know what they were asked.
                whole = bool(document.get("choices") or document.get("sha256"))
        except (aiohttp.ClientError, TimeoutError, ValueError):
            pass
        return Answer(sent, time.monotonic(), status, whole)
