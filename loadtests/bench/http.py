"""A blocking HTTP/1.1 client that adds as little as it can to what it times."""

import json
import socket
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

__all__ = ["Connection", "Timed"]

RECEIVE_BYTES = 262_144
LIMIT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Timed:
    """`first_seconds`: until the first piece of the body; `seconds`: until its end."""

    status: int
    body: bytes
    first_seconds: float
    seconds: float


class Connection:
    """One kept connection to `url`; requests go one after another."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host = parts.netloc
        self._socket = socket.create_connection((parts.hostname or "", parts.port or 80), LIMIT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def get(self, target: str) -> Timed:
        """As `post`, without a body."""
        return self._exchange(f"GET {target} HTTP/1.1\r\nhost: {self._host}\r\n\r\n", b"")

    def post(self, target: str, body: bytes) -> Timed:
        """Send and read it all. Raises OSError, or ValueError for what is no HTTP response."""
        head = (
            f"POST {target} HTTP/1.1\r\nhost: {self._host}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        return self._exchange(head, body)

    def _exchange(self, head: str, body: bytes) -> Timed:
        started = time.perf_counter()
        self._socket.sendall(head.encode() + body)
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._receive()
        raw_head, _, data = data.partition(b"\r\n\r\n")
        status_line, *lines = raw_head.decode("latin-1").lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        first = time.perf_counter() - started if data else 0.0
        chunked = headers.get("transfer-encoding") == "chunked"
        length = None if chunked else int(headers.get("content-length", "0"))
        while (chunked and not data.endswith(b"0\r\n\r\n")) or (length is not None and len(data) < length):
            data += self._receive()
            first = first or time.perf_counter() - started
        seconds = time.perf_counter() - started
        return Timed(int(status_line.split()[1]), data, first or seconds, seconds)

    def _receive(self) -> bytes:
        data = self._socket.recv(RECEIVE_BYTES)
        if not data:
            raise ConnectionError("the server closed the connection")
        return data


def encoded(body: dict[str, object]) -> bytes:
    return json.dumps(body).encode()
