"""An HTTP/1.1 client that offers more than is answered, and does not wait for answers.

No library: a request is two writes, an answer is found by its content-length. When a request begins depends
on no answer, so that a server that is busy cannot hide how long the next one waits.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self, cast

__all__ = ["UNANSWERED", "Answer", "Client"]

UNANSWERED: Final = 0
_HEAD_END: Final = b"\r\n\r\n"
_KEPT_SECONDS: Final = 3.0  # uvicorn closes a connection that is idle for five


@dataclass(frozen=True, slots=True)
class Answer:
    """`seconds` from the request's begin (a connection is looked for, or made) to the last byte of its
    answer; of no answer, to the end of patience or of the connection. `late`: how long after it was due the
    client began. `body` is kept of a refusal.
    """

    status: int
    seconds: float
    late: float = 0.0
    retry_after: str | None = None
    body: bytes = b""


class Client:
    """Posts to one URL. `body` makes the body of request number N; no two phases send the same number."""

    def __init__(
        self, host: str, port: int, path: str, body: Callable[[int], bytes], *, most_connections: int
    ) -> None:
        self._host, self._port, self._path = host, port, path
        self._body = body
        self._most = most_connections
        self._number = 0
        self._idle: list[_Connection] = []
        self._all: list[_Connection] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._all:
            connection.close()

    async def open(self, count: int) -> None:
        """Have so many idle connections."""
        while len(self._idle) < count:
            self._idle.append(await self._connect())

    async def saturate(self, *, connections: int, seconds: float, patience: float) -> list[Answer]:
        """Each connection sends its next request when it has an answer: what the server can do."""
        await self.open(connections)
        loop = asyncio.get_running_loop()
        ends = loop.time() + seconds
        answers: list[Answer] = []

        async def keep_asking() -> None:
            while loop.time() < ends:
                answers.append(await self._ask(loop.time(), patience))

        await asyncio.gather(*(keep_asking() for _ in range(connections)))
        return answers

    async def offer(self, *, rate: float, seconds: float, patience: float) -> list[Answer]:
        """`rate` requests a second, whether answers come or not. Ends when all have one, or have waited
        `patience` seconds for it.
        """
        loop = asyncio.get_running_loop()
        start = loop.time()
        asking = []
        for number in range(round(rate * seconds)):
            due = start + number / rate
            await asyncio.sleep(max(0.0, due - loop.time()))
            asking.append(loop.create_task(self._ask(due, patience)))
        return list(await asyncio.gather(*asking))

    async def _ask(self, due: float, patience: float) -> Answer:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        late = begun - due
        try:
            async with asyncio.timeout_at(begun + patience):
                connection = self._kept(loop.time()) or await self._connect()
                number, self._number = self._number, self._number + 1
                status, headers, body = await connection.post(self._path, self._body(number))
        except (OSError, TimeoutError, EOFError):
            return Answer(UNANSWERED, loop.time() - begun, late)
        if connection.usable:
            self._idle.append(connection)
        return Answer(
            status,
            connection.answered_at - begun,
            late,
            headers.get(b"retry-after", b"").decode("latin-1") or None,
            b"" if status == 200 else body,
        )

    def _kept(self, now: float) -> "_Connection | None":
        """The one that was used last, unless the server is about to close it."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and now - connection.answered_at < _KEPT_SECONDS:
                return connection
            connection.close()
        return None

    async def _connect(self) -> "_Connection":
        """Raises OSError where it cannot be had, or there are as many as may be."""
        self._all = [each for each in self._all if each.usable]
        if len(self._all) >= self._most:
            raise OSError("no connection is left")
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, self._host, self._port)
        self._all.append(connection)
        return connection


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self.usable = True
        self.answered_at = asyncio.get_running_loop().time()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._head: tuple[int, dict[bytes, bytes]] = (0, {})
        self._body_from = self._ends_at = 0
        self._answer: asyncio.Future[tuple[int, dict[bytes, bytes], bytes]] | None = None

    async def post(self, path: str, body: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
        """Raises EOFError where the connection ends before the answer does. Cancelled, it is not usable."""
        assert self._transport is not None
        self._buffer.clear()
        self._ends_at = 0
        self._answer = asyncio.get_running_loop().create_future()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: tokenext\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        self._transport.writelines([head.encode(), body])
        try:
            return await self._answer
        except asyncio.CancelledError:
            self.close()
            raise

    def close(self) -> None:
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by class

    def connection_lost(self, _: Exception | None) -> None:
        self.usable = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(EOFError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._ends_at and not self._read_head():
            return
        if len(self._buffer) < self._ends_at or self._answer is None or self._answer.done():
            return
        self.answered_at = asyncio.get_running_loop().time()
        status, headers = self._head
        self.usable = self.usable and headers.get(b"connection") != b"close"
        self._answer.set_result((status, headers, bytes(self._buffer[self._body_from : self._ends_at])))

    def _read_head(self) -> bool:
        """Whether all of it is there."""
        end = self._buffer.find(_HEAD_END)
        if end < 0:
            return False
        first, *lines = bytes(self._buffer[:end]).lower().split(b"\r\n")
        headers = dict(line.split(b": ", 1) for line in lines)
        self._head = (int(first.split()[1]), headers)
        self._body_from = end + len(_HEAD_END)
        self._ends_at = self._body_from + int(headers[b"content-length"])
        return True
