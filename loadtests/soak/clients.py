"""Clients of all manners, each of which checks what comes back against what it sent."""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Final, Self
from urllib.parse import urlsplit

import aiohttp
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded, StreamReset, WindowUpdated

from loadtests.soak.ask import Ask, Manner

__all__ = ["Client", "CorruptedError", "LostError"]

LIMIT_SECONDS: Final = 30.0
PAUSE_SECONDS: Final = 0.15
_PIECE: Final = 30_000


class LostError(Exception):
    """No whole answer of 200 came; the message says what did, in a few words."""


class CorruptedError(Exception):
    """An answer to something else than what was sent."""


class Client:
    """One user of the chain: a kept HTTP/1.1 connection, and an HTTP/2 one. Asks one thing after another."""

    def __init__(self, url: str) -> None:
        self._url = url
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._session: aiohttp.ClientSession | None = None
        self._http2: _Http2 | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=1), timeout=aiohttp.ClientTimeout(total=LIMIT_SECONDS)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
        if self._http2 is not None:
            self._http2.close()

    async def ask(self, ask: Ask) -> None:
        """Raises LostError and CorruptedError."""
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                await self._ask(ask)
        except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as error:
            raise LostError(type(error).__name__) from error
        except TimeoutError:
            raise LostError("no answer") from None

    async def _ask(self, ask: Ask) -> None:
        if ask.manner is Manner.HTTP2:
            if self._http2 is None:
                self._http2 = await _Http2.open(self._host, self._port)
            _check(ask, *await self._http2.post(ask))
        elif ask.manner is Manner.TRAILERS:
            _check(ask, *await self._with_trailers(ask))
        elif ask.manner is Manner.LEAVES_SENDING:
            await self._leave_sending(ask)
        else:
            await self._post(ask)

    async def _post(self, ask: Ask) -> None:
        assert self._session is not None
        query = f"?sse={ask.events}&interval_ms=10" if ask.events else ""
        whole = ask.manner in (Manner.PLAIN, Manner.STREAM, Manner.LEAVES_READING)
        data = ask.body if whole else _pieces(ask)
        headers = {"x-soak-id": ask.name, "content-type": "application/json"}
        async with self._session.post(
            f"{self._url}{ask.path}{query}", data=data, headers=headers
        ) as response:
            if ask.manner is Manner.LEAVES_READING:
                await response.content.readany()
                response.close()
                return
            _check(ask, response.status, await response.read())

    async def _with_trailers(self, ask: Ask) -> tuple[int, bytes]:
        """By hand: no client library sends them."""
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            writer.write(_head(ask, "transfer-encoding: chunked", "trailer: x-checksum", "connection: close"))
            for start in range(0, len(ask.body), _PIECE):
                piece = ask.body[start : start + _PIECE]
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
            writer.write(b"0\r\nx-checksum: 1\r\n\r\n")
            await writer.drain()
            return await _answer(reader)
        finally:
            writer.close()

    async def _leave_sending(self, ask: Ask) -> None:
        _, writer = await asyncio.open_connection(self._host, self._port)
        writer.write(_head(ask, f"content-length: {len(ask.body) + 1_000}") + ask.body)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        await asyncio.sleep(0.01)
        writer.close()


def _head(ask: Ask, *lines: str) -> bytes:
    head = (f"POST {ask.path} HTTP/1.1", "host: soak", f"x-soak-id: {ask.name}",
            "content-type: application/json", *lines)  # fmt: skip
    return ("\r\n".join(head) + "\r\n\r\n").encode()


async def _pieces(ask: Ask) -> AsyncIterator[bytes]:
    middle = len(ask.body) // 2
    yield ask.body[:middle]
    await asyncio.sleep(PAUSE_SECONDS if ask.manner is Manner.SLOW else 0)
    yield ask.body[middle:]


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = int(head.split()[1])
    for line in head.split("\r\n"):
        if line.startswith("content-length:"):
            return status, await reader.readexactly(int(line.partition(":")[2]))
    raise LostError("an answer without a length")


def _check(ask: Ask, status: int, body: bytes) -> None:
    if status != 200:
        raise LostError(f"status {status}")
    if ask.events:
        events = [line[6:] for line in body.split(b"\n\n") if line.startswith(b"data: ")]
        numbers = [json.loads(event).get("event") for event in events[1:-1]]
        if events[-1:] != [b"[DONE]"] or numbers != list(range(1, ask.events)):
            raise CorruptedError("events are missing, or out of order")
        body = events[0]
    try:
        report = json.loads(body)
    except ValueError:
        raise CorruptedError("an answer that is no JSON") from None
    if report.get("sha256") != hashlib.sha256(ask.body).hexdigest() or report["length"] != len(ask.body):
        raise CorruptedError("the body did not arrive as it was sent")
    if report["headers"].get("x-soak-id") != ask.name:
        raise CorruptedError("another one's answer")


class _Http2:
    """One HTTP/2 connection, one request at a time; prior knowledge, no TLS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._connection = H2Connection(H2Configuration(client_side=True))
        self._connection.initiate_connection()

    @classmethod
    async def open(cls, host: str, port: int) -> Self:
        opened = cls(*await asyncio.open_connection(host, port))
        await opened._flush()
        return opened

    def close(self) -> None:
        self._writer.close()

    async def post(self, ask: Ask) -> tuple[int, bytes]:
        connection, stream = self._connection, self._connection.get_next_available_stream_id()
        connection.send_headers(
            stream,
            [
                (":method", "POST"), (":path", ask.path), (":scheme", "http"), (":authority", "soak"),
                ("content-type", "application/json"), ("x-soak-id", ask.name),
            ],
        )  # fmt: skip
        sent, status, body = 0, 0, b""
        while True:
            while sent < len(ask.body) and (room := self._room(stream)):
                piece = ask.body[sent : sent + room]
                sent += len(piece)
                connection.send_data(stream, piece, end_stream=sent == len(ask.body))
            await self._flush()
            for event in await self._events():
                if isinstance(event, ResponseReceived):
                    status = int(dict(event.headers)[b":status"])
                elif isinstance(event, DataReceived):
                    body += event.data
                    connection.acknowledge_received_data(event.flow_controlled_length, stream)
                elif isinstance(event, StreamEnded):
                    await self._flush()
                    return status, body
                elif isinstance(event, StreamReset):
                    raise LostError("the stream was reset")
                elif not isinstance(event, WindowUpdated):
                    continue

    def _room(self, stream: int) -> int:
        connection = self._connection
        return min(connection.local_flow_control_window(stream), connection.max_outbound_frame_size)

    async def _flush(self) -> None:
        self._writer.write(self._connection.data_to_send())
        await self._writer.drain()

    async def _events(self) -> list[Event]:
        data = await self._reader.read(65_536)
        if not data:
            raise LostError("the connection was closed")
        return list(self._connection.receive_data(data))
